"""Packages for tests in a process of their own, which would not fit into our environment."""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

_CACHE = Path("~/.cache/visavis").expanduser()


def installed(requirements: Path, what: str) -> Path:
    """Return a folder with the packages that a file lists, without their dependencies.

    Skips the test if they can't be fetched, except in CI. what: their name in the reason.
    """
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = _CACHE / f"{requirements.parent.name}-{digest}"
    if folder.exists():
        return folder
    _CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE) as unfinished:
        target = Path(unfinished) / "packages"
        pip = (sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet")
        how = ("--no-deps", "--target", str(target), "--requirement", str(requirements))
        done = subprocess.run((*pip, *how), capture_output=True, text=True, check=False)
        if done.returncode:
            assert os.environ.get("CI") != "true", done.stderr
            pytest.skip(f"pip can't fetch {what}: {done.stderr.strip()[-200:]}")
        if not folder.exists():  # another run may have been quicker
            target.rename(folder)
    return folder
