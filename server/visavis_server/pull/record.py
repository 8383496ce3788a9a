"""What a pull notes in each version's folder, beside the model: where it came from.

The note is renamed into place with the files that it describes, so the two always agree.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FILE = ".pull.json"
"""The server ignores hidden files."""

_MAX_BYTES = 64 << 10


class RecordedFile(BaseModel):
    """A fetched file: its tag at the source, and what it was like when it was placed here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tag: str
    size: Annotated[int, Field(ge=0)]
    sha256: str
    mtime_ns: int


class Record(BaseModel):
    """Where a version came from.

    source: its name. files: by name. key: the fingerprint of the key that its signature was
    checked with; "": it was not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    files: dict[str, RecordedFile]
    key: str = ""


def read_record(version: Path) -> Record | None:
    """Return the note in a version's folder; None if there is none that can be used."""
    try:
        with (version / FILE).open("rb") as file:
            return Record.model_validate_json(file.read(_MAX_BYTES))
    except (OSError, ValidationError):
        return None


def write_record(version: Path, record: Record) -> None:
    """Write the note into a version's folder that is not visible yet."""
    with (version / FILE).open("x", encoding="utf-8") as file:
        file.write(json.dumps(record.model_dump(), indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())


def recorded(path: Path, tag: str) -> RecordedFile:
    """Return the facts of a file that is about to be placed."""
    status = path.stat()
    return RecordedFile(
        tag=tag, size=status.st_size, sha256=sha256(path), mtime_ns=status.st_mtime_ns
    )


def is_intact(path: Path, known: RecordedFile) -> bool:
    """Return True if a file is as it was placed; reads it only if its time has changed."""
    try:
        status = path.stat()
        same_size = status.st_size == known.size and not path.is_symlink()
        return same_size and (status.st_mtime_ns == known.mtime_ns or sha256(path) == known.sha256)
    except OSError:
        return False


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Local:
    """A version in the repository.

    exists: whether anything has its name. record: None if a pull did not bring it.
    """

    folder: Path
    exists: bool
    record: Record | None

    @classmethod
    def at(cls, folder: Path) -> "Local":
        """Return the version in a folder, which may not exist."""
        exists = folder.is_symlink() or folder.exists()
        return cls(folder, exists, read_record(folder) if exists else None)
