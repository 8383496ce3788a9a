"""The deployment files: rendered, and validated against the schemas of what reads them."""
