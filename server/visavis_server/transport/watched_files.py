"""Files that are read beside whoever uses them, and read again when they change."""

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

# How long a change may go unnoticed.
_LOOK_EVERY_S = 1.0
# Of one file: many times what tokens or certificates take.
_MAX_BYTES = 1 << 20

T = TypeVar("T")


class WatchedFiles(Generic[T]):
    """What some files mean: `value`, as they were at most a second ago.

    name: of what is in them, for the log. understand: returns what the contents mean, or raises
    StartupError. A thread reads them, so that a mount that hangs holds up nobody. Files that can't
    be read or understood any more are reported, and leave the value that was. Raises StartupError
    if they can't be at first.
    """

    def __init__(
        self, name: str, paths: Sequence[Path], understand: Callable[[list[bytes]], T]
    ) -> None:
        self._name = name
        self._paths = paths
        self._understand = understand
        self._contents = self._read()
        self.value = understand(self._contents)
        self._trouble = ""
        self._wanted = threading.Event()
        threading.Thread(
            target=_watch, args=(weakref.ref(self), self._wanted), name=name, daemon=True
        ).start()

    def look_soon(self) -> None:
        """Let the thread look at once; the caller does not wait for it."""
        self._wanted.set()

    def look(self) -> None:
        """Read the files, and understand them if they have changed."""
        try:
            contents = self._read()
            if contents != self._contents:
                self._contents = contents
                self.value = self._understand(contents)
                _log.info(f"{self._name} read again", files=[str(path) for path in self._paths])
        except StartupError as error:
            if str(error) != self._trouble:
                _log.error(f"{self._name} stay as they were", why=str(error))
            self._trouble = str(error)
        else:
            self._trouble = ""

    def _read(self) -> list[bytes]:
        return [_contents_of(path) for path in self._paths]


def _watch(files: "weakref.ref[WatchedFiles[T]]", wanted: threading.Event) -> None:
    while True:
        wanted.wait(_LOOK_EVERY_S)
        wanted.clear()
        if (watched := files()) is None:
            return
        try:
            watched.look()
        except Exception:  # noqa: BLE001  whatever the files hold, watching goes on
            _log.exception("files can't be watched")
        del watched


def _contents_of(path: Path) -> bytes:
    """Return a file's bytes. Raises StartupError unless it is a regular file of limited size."""
    try:
        # Asked first, since to open a device may have effects; and again of what was opened.
        if stat.S_ISREG(path.stat().st_mode):
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                contents = file.read(_MAX_BYTES + 1)
                regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        else:
            regular = False
    except OSError as error:
        raise StartupError(f"{path} can't be read: {error.strerror}") from None
    if not regular:
        raise StartupError(f"{path} is no regular file")
    if len(contents) > _MAX_BYTES:
        raise StartupError(f"{path} is over {_MAX_BYTES} bytes")
    return contents
