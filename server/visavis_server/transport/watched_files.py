"""Files that a thread reloads when they change."""

import os
import stat
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from visavis_server.errors import StartupError

_log = structlog.get_logger()

# The interval between checks for changes.
_CHECK_EVERY_S = 1.0
# Of one file: many times the size of tokens or certificates.
_MAX_BYTES = 1 << 20

T = TypeVar("T")


class WatchedFiles(Generic[T]):
    """The parsed contents of some files: `value`, at most a second old.

    name: of the contents, for the log. parse: returns the value of the contents, or raises
    StartupError. A thread reads the files, so that a mount that hangs blocks no call. If they can
    no longer be read or parsed, an error is logged and the value stays. Raises StartupError if they
    can't be read or parsed at first.
    """

    def __init__(self, name: str, paths: Sequence[Path], parse: Callable[[list[bytes]], T]) -> None:
        self._name = name
        self._paths = paths
        self._parse = parse
        self._contents = self._read()
        self.value = parse(self._contents)
        self._trouble = ""
        self._wanted = threading.Event()
        threading.Thread(
            target=_watch, args=(weakref.ref(self), self._wanted), name=name, daemon=True
        ).start()

    def look_soon(self) -> None:
        """Make the thread check the files now; returns at once."""
        self._wanted.set()

    def look(self) -> None:
        """Read the files, and parse them if they have changed."""
        try:
            contents = self._read()
            if contents != self._contents:
                self._contents = contents
                self.value = self._parse(contents)
                _log.info(f"{self._name} reloaded", files=[str(path) for path in self._paths])
        except StartupError as error:
            if str(error) != self._trouble:
                _log.error(f"{self._name} not reloaded", why=str(error))
            self._trouble = str(error)
        else:
            self._trouble = ""

    def _read(self) -> list[bytes]:
        return [_contents_of(path) for path in self._paths]


def _watch(files: "weakref.ref[WatchedFiles[T]]", wanted: threading.Event) -> None:
    while True:
        wanted.wait(_CHECK_EVERY_S)
        wanted.clear()
        if (watched := files()) is None:
            return
        try:
            watched.look()
        except Exception:  # noqa: BLE001  no content of the files ends the thread
            _log.exception("files can't be watched")
        del watched


def _contents_of(path: Path) -> bytes:
    """Return a file's bytes. Raises StartupError unless it is a regular file of limited size."""
    try:
        # Checked before opening, because opening a device may have side effects, and again after.
        if stat.S_ISREG(path.stat().st_mode):
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                contents = file.read(_MAX_BYTES + 1)
                regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        else:
            regular = False
    except OSError as error:
        raise StartupError(f"{path} can't be read: {error.strerror}") from None
    if not regular:
        raise StartupError(f"{path} is not a regular file")
    if len(contents) > _MAX_BYTES:
        raise StartupError(f"{path} is larger than {_MAX_BYTES} bytes")
    return contents
