"""Where settings come from: environment variables, a file, and names from earlier releases."""

import json
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

RENAMED_SETTINGS: Final = {"queue_s": "max_queue_wait_s", "watch_s": "watch_interval_s"}
"""New names by old ones. The next release accepts only the new ones."""

PREFIX: Final = "VISAVIS_"

# How similar a variable and a setting must be to report a misspelling. Kubernetes sets VISAVIS_PORT
# and other variables for a service called visavis.
_SIMILARITY: Final = 0.85


def renamed(
    settings: Mapping[str, Any], names: Mapping[str, str], notes: list[str], prefix: str = ""
) -> dict[str, Any]:
    """Return settings by their current names; appends a note for each old name that was used."""
    present = dict(settings)
    for old, new in names.items():
        before, now = (f"{prefix}{name}" for name in (old, new))
        # Variables are compared in lower case and shown in upper case.
        if before.lower() in present:
            value = present.pop(before.lower())
            present.setdefault(now.lower(), value)
            before, now = (name.upper() if prefix else name for name in (before, now))
            notes.append(
                f"{before} has been renamed to {now}; the next release rejects the old name"
            )
    return present


def misspelt(variables: Iterable[str], settings: Iterable[str]) -> list[str]:
    """Return a note for each variable that looks like a misspelled one of the settings."""
    known = [f"{PREFIX}{name}".lower() for name in (*settings, *RENAMED_SETTINGS)]
    notes = []
    for name in variables:
        if name.lower().startswith(PREFIX.lower()) and name.lower() not in known:
            for near in get_close_matches(name.lower(), known, 1, _SIMILARITY):
                notes.append(
                    f"the variable {name.upper()} is not a setting; did you mean {near.upper()}?"
                )
    return notes


def read_toml(file: Path | None) -> dict[str, Any]:
    """Return the settings in a file; accepts the byte order mark that Notepad writes."""
    if file is None or not file.is_file():
        return {}
    return tomllib.loads(file.read_text("utf-8-sig"))


def from_json(text: str) -> Any:
    """Return the value of JSON. Raises ValueError."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"it must be valid JSON ({error})") from None
