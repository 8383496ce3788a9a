"""Tests of the clients, through a real channel to a server with canned answers."""

import subprocess
import sys


def fresh_python(code: str) -> str:
    """Return the output of code in a new Python process."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
