"""Fetches files in resumable parts: what arrived before a cut, or a kill, is not fetched again."""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from visavis_server.pull.errors import PullFailed, SourceUnreachable, VersionRefused
from visavis_server.pull.source import Entry, Restart, Source

# Attempts without a new byte, and the wait before the second; each further wait is twice as long.
_ATTEMPTS = 5
_FIRST_WAIT_S = 0.5

Advance = Callable[[int], None]
"""Called with the number of bytes that arrived; negative if they are fetched again."""


def part_of(source: Source, entry: Entry, folder: Path) -> Path:
    """Return the path of a file's part: another one once its contents have changed."""
    named = "\0".join((source.name, entry.path, entry.tag, str(entry.size)))
    return folder / f"{hashlib.sha256(named.encode()).hexdigest()[:32]}.part"


def fetch(source: Source, entry: Entry, folder: Path, advance: Advance) -> Path:
    """Return the path of a fetched file, in a folder of parts.

    Goes on from the part that an earlier call left. Raises PullError: SourceUnreachable keeps the
    part for the next call; VersionRefused removes it.
    """
    part = part_of(source, entry, folder)
    kept = part.stat().st_size if part.exists() else 0
    if kept > entry.size:
        part.unlink()
        kept = 0
    advance(kept)
    resumed = kept > 0
    while True:
        _fill(source, entry, part, advance)
        if source.tag(entry) != entry.tag:
            part.unlink(missing_ok=True)
            raise SourceUnreachable(f"{entry.path} changed while it was fetched")
        if not entry.sha256 or _sha256(part) == entry.sha256:
            return part
        part.unlink()
        if not resumed:
            raise VersionRefused(f"{entry.path}: its bytes do not have the digest of the source")
        resumed = False  # the part of an earlier run may have been damaged
        advance(-entry.size)


def _fill(source: Source, entry: Entry, part: Path, advance: Advance) -> None:
    """Append to a part until it is whole."""
    failures = restarts = 0
    while (have := part.stat().st_size if part.exists() else 0) < entry.size:
        try:
            _append(source, entry, part, have, advance)
        except Restart:
            restarts += 1
            if restarts == _ATTEMPTS:
                raise SourceUnreachable(
                    f"{entry.path} was cut off {restarts} times by a source that can't resume"
                ) from None
            part.unlink(missing_ok=True)
            advance(-have)
        except SourceUnreachable:
            failures = 1 if part.exists() and part.stat().st_size > have else failures + 1
            if failures == _ATTEMPTS:
                raise
            time.sleep(_FIRST_WAIT_S * 2 ** (failures - 1))
    if entry.size == 0:
        part.touch()


def _append(source: Source, entry: Entry, part: Path, offset: int, advance: Advance) -> None:
    """Read once, until the source ends or the file is whole."""
    have = offset
    with part.open("ab") as file:
        for block in source.read(entry, offset):
            if have + len(block) > entry.size:
                file.truncate(0)
                raise PullFailed(f"{entry.path} is longer than the source said: {entry.size} bytes")
            file.write(block)
            file.flush()
            have += len(block)
            advance(len(block))
            if have == entry.size:
                break
        os.fsync(file.fileno())
    if have < entry.size:
        raise SourceUnreachable(f"{entry.path} was cut off after {have} of {entry.size} bytes")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
