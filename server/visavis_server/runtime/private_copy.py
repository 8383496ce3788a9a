"""A private copy of a file, in memory that no other process can access."""

import errno
import io
import os
import sys
import time
import weakref
from pathlib import Path
from typing import BinaryIO

from visavis_server.errors import CannotLoadNow, ModelFileError

# Protobuf's own limit: no ONNX file without external data is larger.
_MOST_BYTES = (2 << 30) - 1
_DESCRIPTORS = Path("/proc/self/fd")
# The kernel holds pages for milliseconds.
_SEAL_S, _SEAL_AGAIN_S = 5.0, 0.02


class PrivateCopy:
    """A snapshot of a file's bytes that no other process can read or change.

    model: the path or the bytes that ONNX Runtime loads. str() gives the original's path.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        self._path = path
        # ONNX Runtime would copy bytes once more: ResNet-50 then takes 100 MiB more at the peak.
        memory = _memory()
        self.close = weakref.finalize(self, _close, memory)
        self.model: str | bytes
        if memory is None:
            self.model = read_bytes(descriptor, path, _MOST_BYTES)
        else:
            _fill(memory, descriptor, path)
            self.model = f"{_DESCRIPTORS}/{memory}"

    def __str__(self) -> str:
        """Return the original's path."""
        return str(self._path)

    def open(self) -> BinaryIO:
        """Return the bytes as a file."""
        if isinstance(self.model, bytes):
            return io.BytesIO(self.model)
        return open(self.model, "rb")

    def read(self) -> bytes:
        """Return the bytes."""
        with self.open() as file:
            return file.read()


def _memory() -> int | None:
    """Return the descriptor of an anonymous file in memory; None if the system has none."""
    if sys.platform != "linux" or not _DESCRIPTORS.is_dir():
        return None
    try:
        return os.memfd_create("model", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:  # forbidden, in a sandbox
        return None


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _fill(memory: int, descriptor: int, path: Path) -> None:
    """Copy a file into memory and seal it against changes."""
    try:
        size = os.fstat(descriptor).st_size
        _check_size(path, size, _MOST_BYTES)
        offset = 0
        while offset < size and (sent := os.sendfile(memory, descriptor, offset, size - offset)):
            offset += sent
        _seal(memory)
    except OSError as error:
        raise unreadable(path, error) from None


def _seal(memory: int) -> None:
    """Forbid all changes, once nothing else refers to the file's pages.

    The kernel refuses with EBUSY while its own housekeeping (compaction, migration) holds a page.
    """
    import fcntl

    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    until = time.monotonic() + _SEAL_S
    while True:
        try:
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > until:
                raise
        time.sleep(_SEAL_AGAIN_S)


def read_bytes(descriptor: int, path: Path, most_bytes: int) -> bytes:
    """Return an open file's bytes. Raises ModelFileError if it can't be read or is too large."""
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        try:
            contents = file.read(most_bytes + 1)
        except OSError as error:
            raise unreadable(path, error) from None
    _check_size(path, len(contents), most_bytes)
    return contents


def _check_size(path: Path, size: int, most: int) -> None:
    if size > most:
        raise ModelFileError(f"{path}: the file has {size} bytes; the limit is {most}")


def unreadable(path: Path, error: OSError) -> ModelFileError:
    """Return the error for a file that can't be read: CannotLoadNow if a retry may succeed."""
    lasting = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM)
    kind = ModelFileError if lasting else CannotLoadNow
    return kind(f"{path}: can't be read ({error.strerror})")
