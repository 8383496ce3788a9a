"""`make python-check`: installs the wheels under every version of Python that Debian has."""
