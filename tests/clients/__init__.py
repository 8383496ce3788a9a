"""Tests of the clients: through a real channel, against a server that answers as it is told."""

import subprocess
import sys

from tests.surroundings import Surroundings


def fresh_python(code: str) -> str:
    """Return what code prints in a Python of its own."""
    with Surroundings.temporary() as found:
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=found.elsewhere,
            env=found.environment(),
            check=True,
            capture_output=True,
            text=True,
        ).stdout
