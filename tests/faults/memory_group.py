"""A cgroup with a limit of memory, in which the kernel kills what takes more."""

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from visavis_server.runtime.cgroups import files

from .process import until


class MemoryGroup:
    """One cgroup below the tests' own; Linux, and the right to make it, are needed."""

    def __init__(self, folder: Path, limit_file: str) -> None:
        self._folder = folder
        self._peak_file = folder / (
            "memory.peak" if limit_file == "memory.max" else "memory.max_usage_in_bytes"
        )

    def take(self, process_id: int) -> None:
        """Let what a process takes from now on count here."""
        (self._folder / "cgroup.procs").write_text(str(process_id))

    @property
    def peak_mib(self) -> float:
        """The most that was taken so far, files that were read included."""
        return int(self._peak_file.read_text()) / (1 << 20)


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """Make a cgroup with a limit, and remove it; raises OSError where that can't be done."""
    own = next(files("memory", "memory.limit_in_bytes", "memory.max"), None)
    if own is None or (not own.exists() and not (own.parent / "cgroup.procs").exists()):
        raise OSError("the memory of this process belongs to no cgroup")
    folder = own.parent / f"visavis-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        (folder / own.name).write_text(str(limit_bytes))
        yield MemoryGroup(folder, own.name)
    finally:
        for line in (folder / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(line), signal.SIGKILL)
        until(lambda: _removed(folder), f"{folder} can't be removed")


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:  # what was killed is still ending
        return False
    return True
