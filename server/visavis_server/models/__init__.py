"""Model files: found, verified, tried, loaded and watched."""
