"""Tests of the clients: through a real channel, against a server that answers as it is told."""

import subprocess
import sys


def fresh_python(code: str) -> str:
    """Return what code prints in a Python of its own."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
