"""Packages of npm: those that tests need, and ours, installed into an empty project."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from tests import builds

LIBRARY = Path(__file__).parents[1] / "clients" / "typescript"
PROGRAMS = Path(__file__).parent / "clients" / "typescript_project"


def project(folder: Path) -> Path:
    """Return a folder with the package, installed by npm, and the programs that use it."""
    if not shutil.which("npm"):
        missing("needs npm")
    run("make", "-C", LIBRARY, "node_modules", folder=LIBRARY)
    # It builds the library first.
    name = run("npm", "pack", "--silent", "--pack-destination", folder, folder=LIBRARY).strip()
    folder = folder / "project"
    shutil.copytree(PROGRAMS, folder)
    (folder / "package.json").write_text('{ "name": "empty", "private": true }\n')
    run("npm", "install", "--silent", "--prefer-offline", f"../{name}", folder=folder)
    return folder


def installed(folder: Path, package: str) -> Path:
    """Return the folder of a package that a folder's package-lock.json names, fetched if absent."""
    if not shutil.which("npm"):
        missing("needs npm")
    found = folder / "node_modules" / package
    if not found.is_dir():
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            missing(f"npm can't fetch {package}: {done.stderr[-500:]}")
    return found


def missing(why: str) -> NoReturn:
    """Skip a test for want of something; CI has everything."""
    assert os.environ.get("CI") != "true", why
    pytest.skip(why)


def tool(name: str) -> Path:
    """Return the path of a tool with which the library was built."""
    return LIBRARY / "node_modules" / ".bin" / name


def run(*command: str | Path, folder: Path) -> str:
    """Return what a command prints; it must succeed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**builds.ENVIRONMENT, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout
