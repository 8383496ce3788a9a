"""Validates custom resources with the schemas that npm has of them."""

import json
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests import npm

_FOLDER = Path(__file__).parent


@cache
def validator() -> Callable[[Sequence[Any]], None]:
    """Return a function that raises AssertionError for invalid resources."""
    npm.installed(_FOLDER, "@kubernetes-models/keda")

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
