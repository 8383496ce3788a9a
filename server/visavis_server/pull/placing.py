"""The repository's folder: locked while it is pulled into, and changed by renames alone."""

import ctypes
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from visavis_server.models.model_files import version_of
from visavis_server.pull.errors import PullFailed, VersionRefused
from visavis_server.pull.record import Local, Record, read_record

OWN_FOLDER: Final = ".visavis-pull"
"""In the repository, for parts and for what is not visible yet: renames need one file system.
The server ignores hidden folders.
"""

# renameat2(2): swap two paths at once.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_CANNOT_EXCHANGE: Final = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM)


class Place:
    """The folder of a repository.

    parts: the folder of files that are not whole yet.
    """

    def __init__(self, out: Path) -> None:
        self.out = out.absolute()
        self._own = self.out / OWN_FOLDER
        self.parts = self._own / "parts"
        self._staged = self._own / "staged"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other pulls out; removes what a killed one has left, except its parts.

        Raises PullFailed if another pull is at work, or if the folder can't be written.
        """
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
            with (self._own / "lock").open("ab") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise PullFailed(
                        f"another pull is at work in {self.out}; wait for its end, or choose "
                        "another folder with --out"
                    ) from None
                shutil.rmtree(self._staged, ignore_errors=True)
                yield
        except OSError as error:
            raise PullFailed(
                f"--out {self.out} can't be written: {error.strerror or error}; choose a folder "
                "that this user may write to, on a disk with free space"
            ) from None

    def local(self, version: str) -> Local:
        """Return a version, NAME/VERSION, as it is here."""
        return Local.at(self.out / version)

    def versions(self) -> Iterator[tuple[str, Record]]:
        """Yield the versions here that a pull has brought, and their notes."""
        for model in sorted(self.out.iterdir()):
            if model.name.startswith(".") or model.is_symlink() or not model.is_dir():
                continue
            for folder in sorted(model.iterdir()):
                is_version = version_of(folder.name) is not None and not folder.is_symlink()
                if is_version and (record := read_record(folder)):
                    yield f"{model.name}/{folder.name}", record

    @contextmanager
    def staging_folder(self) -> Iterator[Path]:
        """Lend an empty, invisible folder; it is deleted afterwards unless it was placed."""
        folder = self._staged / uuid.uuid4().hex
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def require_real(self, version: str) -> None:
        """Raise VersionRefused if the version's place is a link or a file."""
        target = self.out / version
        for folder in (target.parent, target):
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                raise VersionRefused(
                    f"{version}: {folder} is not a folder of its own; remove it, or choose "
                    "another folder with --out"
                )

    def place(self, staged: Path, version: str) -> None:
        """Make a staged folder visible as a version, in one step."""
        self.require_real(version)
        target = self.out / version
        target.parent.mkdir(exist_ok=True)
        try:
            staged.rename(target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            self._exchange(staged, target)
        _sync(target.parent)

    def remove(self, version: str) -> None:
        """Remove a version, in one step, and its model's folder if that is empty then."""
        folder = self.out / version
        with self.staging_folder() as staged:
            folder.rename(staged / "removed")
        with suppress(OSError):  # it holds other versions
            folder.parent.rmdir()

    def keep_parts(self, wanted: set[Path]) -> None:
        """Remove the parts of files that are not wanted any more."""
        for part in self.parts.iterdir():
            if part not in wanted:
                part.unlink(missing_ok=True)

    def _exchange(self, staged: Path, target: Path) -> None:
        """Swap two folders: at once where the file system can, else by two renames."""
        renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        if renameat2 is not None:
            paths = os.fsencode(staged), os.fsencode(target)
            if not renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE):
                return
            if (number := ctypes.get_errno()) not in _CANNOT_EXCHANGE:
                raise OSError(number, os.strerror(number), str(target))
        # The server drops a version only if two looks in a row don't find it.
        with self.staging_folder() as old:
            target.rename(old / "replaced")
            staged.rename(target)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
