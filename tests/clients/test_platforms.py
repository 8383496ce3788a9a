"""The client's package uses nothing that only some systems have."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_the_types_of_other_systems_have_all_that_the_client_uses(
    platform: str, tmp_path: Path
) -> None:
    mypy = [sys.executable, "-m", "mypy", "--platform", platform, "--package", "visavis"]
    done = subprocess.run(
        [*mypy, "--cache-dir", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
