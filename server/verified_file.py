"""A model file that is opened once: all sessions of a version come from the bytes verified then.

A path may lead to another file a moment later, and a file may be overwritten while it is open.
So the file is copied to private memory first; its digest, its metadata and its sessions all come
from that copy. For a session that is made later the file is copied again, from the same
descriptor, and must be what it was.
"""

import errno
import hashlib
import io
import os
import stat
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from server.errors import CannotLoadNow, ModelFileError
from server.model_files import Stamp, stamp_of
from server.onnx_file import parse_onnx_file

# Protobuf's own limit: no ONNX file without external data is larger.
_MOST_BYTES = (2 << 30) - 1
# A document with a thousand labels and a receipt takes 60 KB.
_MOST_SIDECAR_BYTES = 16 << 20
_DESCRIPTORS = Path("/proc/self/fd")


class PrivateCopy:
    """A file's bytes at one moment; no other process can reach or change them.

    model: what ONNX Runtime loads, a path or bytes. As a string, the path of the original.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        self._path = path
        # Bytes would be copied once more by ONNX Runtime: 100 MiB at the peak for ResNet-50.
        memory = _memory()
        self.close = weakref.finalize(self, _close, memory)
        self.model: str | bytes
        if memory is None:
            self.model = _read(descriptor, path, _MOST_BYTES)
        else:
            _fill(memory, descriptor, path)
            self.model = f"{_DESCRIPTORS}/{memory}"

    def __str__(self) -> str:
        """Name the file that was copied."""
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


class VerifiedFile:
    """An open model file.

    contents: its metadata and digest. sidecar: the bytes of the JSON beside it, if there is one.
    stamp: changes when either of them does. Raises ModelFileError if the file is no regular file
    or no ONNX model, and CannotLoadNow if it can't be read for now.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = _opened(path)
        self.close = weakref.finalize(self, os.close, self._descriptor)
        status = os.fstat(self._descriptor)
        self._copy: PrivateCopy | None = PrivateCopy(self._descriptor, path)
        with self._copy.open() as file:
            self.contents = parse_onnx_file(file, path)
        self.sidecar, beside = _read_sidecar(path.with_suffix(".json"))
        self.stamp: Stamp = (*stamp_of(status), *stamp_of(beside))

    @cached_property
    def identity(self) -> str:
        """A digest over all that decides how the model is served: the file, the JSON beside it."""
        parts = (
            self.contents.digest.encode(),
            repr(sorted(self.contents.metadata.items())).encode(),
            repr(self.sidecar).encode(),
        )
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    @contextmanager
    def copy(self) -> Iterator[PrivateCopy]:
        """Lend a private copy of the bytes that `contents` tells of.

        The first one stays until `release`; later ones take memory as long as they are lent.
        Raises ModelFileError if the file has been overwritten since.
        """
        if self._copy is not None:
            yield self._copy
            return
        copy = self._copied_again()
        try:
            yield copy
        finally:
            copy.close()

    def release(self) -> None:
        """Give back the memory of the first copy; the file stays open."""
        if self._copy is not None:
            self._copy.close()
            self._copy = None

    def _copied_again(self) -> PrivateCopy:
        copy = PrivateCopy(self._descriptor, self.path)
        with copy.open() as file:
            if parse_onnx_file(file, self.path) != self.contents:
                raise ModelFileError(
                    f"{self.path}: it was overwritten while it was served; put new files in place "
                    "by renaming them"
                )
        return copy


def _opened(path: Path) -> int:
    """Return a descriptor of a regular file; opening never waits."""
    try:
        # Asked first: to open a device may do something.
        if stat.S_ISREG(path.stat().st_mode):
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
    except OSError as error:
        raise _unreadable(path, error) from None
    raise ModelFileError(f"{path}: not a regular file")


def _memory() -> int | None:
    """Return a descriptor of memory that can be read as a file; None where there is none."""
    if sys.platform != "linux" or not _DESCRIPTORS.is_dir():
        return None
    try:
        return os.memfd_create("model", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:  # not allowed, in a sandbox
        return None


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _fill(memory: int, descriptor: int, path: Path) -> None:
    """Copy a file into memory, and let nothing change it any more."""
    import fcntl

    try:
        size = os.fstat(descriptor).st_size
        _check_size(path, size, _MOST_BYTES)
        offset = 0
        while offset < size and (sent := os.sendfile(memory, descriptor, offset, size - offset)):
            offset += sent
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
    except OSError as error:
        raise _unreadable(path, error) from None


def _read(descriptor: int, path: Path, most_bytes: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        try:
            contents = file.read(most_bytes + 1)
        except OSError as error:
            raise _unreadable(path, error) from None
    _check_size(path, len(contents), most_bytes)
    return contents


def _read_sidecar(path: Path) -> tuple[bytes | None, os.stat_result | None]:
    """Return the JSON beside a model file and its status; nothing if it isn't there."""
    try:
        path.stat()
    except FileNotFoundError:
        return None, None
    except OSError as error:
        raise _unreadable(path, error) from None
    descriptor = _opened(path)
    try:
        status = os.fstat(descriptor)
        return _read(descriptor, path, _MOST_SIDECAR_BYTES), status
    finally:
        os.close(descriptor)


def _check_size(path: Path, size: int, most: int) -> None:
    if size > most:
        raise ModelFileError(f"{path}: it takes {size} bytes; {most} is the most")


def _unreadable(path: Path, error: OSError) -> ModelFileError:
    """Say what keeps a file from being read; what lies in the file's own state stays so."""
    lasting = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM)
    kind = ModelFileError if lasting else CannotLoadNow
    return kind(f"{path}: can't be read ({error.strerror})")
