"""The first run on a GPU: what must hold, and how fast it is. `python -m tests.gpu --help`."""
