"""A model file that is opened once, so that every session comes from the verified bytes.

A path may point to another file a moment later, and an open file may be overwritten. So the file is
first copied to private memory; digest, metadata and sessions all come from that copy. For a later
session the file is copied again through the same descriptor, and must not have changed.
"""

import hashlib
import os
import stat
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from visavis_server.arrays import Tensor
from visavis_server.errors import ModelFileError
from visavis_server.models.model_files import Stamp, stamp_of
from visavis_server.models.onnx_file import parse_onnx_file, read_constants
from visavis_server.runtime.private_copy import PrivateCopy, read_bytes, unreadable

# A document with a thousand labels and a receipt takes 60 KB.
_MOST_SIDECAR_BYTES = 16 << 20


class VerifiedFile:
    """An open model file.

    contents: its metadata and digest. sidecar: the bytes of the JSON beside it; None: no JSON.
    stamp: changes when either of them does. Raises ModelFileError if the file is not a regular
    file or not an ONNX model, and CannotLoadNow if it temporarily can't be read.
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
        """A digest of everything that decides how the model is served: the file and its sidecar."""
        parts = (
            self.contents.digest.encode(),
            repr(sorted(self.contents.metadata.items())).encode(),
            repr(self.sidecar).encode(),
        )
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    @contextmanager
    def copy(self) -> Iterator[PrivateCopy]:
        """Lend a private copy of the bytes that `contents` describes.

        The first copy stays until `release`; later ones use memory only while they are lent.
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

    def constants(self, names: Sequence[str]) -> list[Tensor]:
        """Return initializers of the graph by name. Raises ModelFileError if one is missing."""
        if not names:
            return []
        with self.copy() as copy, copy.open() as file:
            return read_constants(file, names, self.path)

    def release(self) -> None:
        """Release the memory of the first copy; the file stays open."""
        if self._copy is not None:
            self._copy.close()
            self._copy = None

    def _copied_again(self) -> PrivateCopy:
        copy = PrivateCopy(self._descriptor, self.path)
        with copy.open() as file:
            if parse_onnx_file(file, self.path) != self.contents:
                raise ModelFileError(
                    f"{self.path}: the file was overwritten while it was served; replace files by "
                    "renaming new ones into place"
                )
        return copy


def _opened(path: Path) -> int:
    """Return a descriptor of a regular file; never blocks."""
    try:
        # Before opening it: opening a device may have side effects.
        if stat.S_ISREG(path.stat().st_mode):
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
    except OSError as error:
        raise unreadable(path, error) from None
    raise ModelFileError(f"{path}: not a regular file")


def _read_sidecar(path: Path) -> tuple[bytes | None, os.stat_result | None]:
    """Return the JSON beside a model file and its status; None, None if it does not exist."""
    try:
        path.stat()
    except FileNotFoundError:
        return None, None
    except OSError as error:
        raise unreadable(path, error) from None
    descriptor = _opened(path)
    try:
        status = os.fstat(descriptor)
        return read_bytes(descriptor, path, _MOST_SIDECAR_BYTES), status
    finally:
        os.close(descriptor)
