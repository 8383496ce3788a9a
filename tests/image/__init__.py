"""`make image-check`: builds the image without a registry or a daemon, runs it, and asks it."""
