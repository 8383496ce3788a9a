"""Tests of the clients, through a real channel to a server with canned answers."""

import subprocess
import sys

from tests.surroundings import Surroundings


def fresh_python(code: str) -> str:
    """Return the output of code in a new Python process."""
    with Surroundings.temporary() as found:
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=found.elsewhere,
            env=found.environment(),
            check=True,
            capture_output=True,
            text=True,
        ).stdout
