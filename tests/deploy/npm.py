"""Validates custom resources with the schemas that npm has of them."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

_FOLDER = Path(__file__).parent


@cache
def validator() -> Callable[[Sequence[Any]], None]:
    """Return a function that raises AssertionError for invalid resources."""
    if not shutil.which("npm"):
        _missing("needs Node")
    if not (_FOLDER / "node_modules" / "@kubernetes-models").is_dir():
        npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(npm, cwd=_FOLDER, capture_output=True, text=True, check=False)
        if done.returncode:
            _missing(f"npm can't fetch the schemas: {done.stderr[-500:]}")

    def validate(resources: Sequence[Any]) -> None:
        done = subprocess.run(
            ["node", _FOLDER / "validate.mjs"],
            input=json.dumps(resources),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    return validate


def _missing(why: str) -> None:
    assert os.environ.get("CI") != "true", why
    pytest.skip(why)
