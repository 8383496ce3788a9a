"""Model files: discovery, trial, verification, loading and watching."""
