"""Where model files lie: `<name>/<version>/model.onnx` in the folder that is the repository."""

import errno
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from server.errors import ModelFileError

# One path segment: no separators, no leading dot, nothing that a terminal would obey.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
_VERSION_PATTERN = r"[1-9][0-9]{0,8}"

Stamp = tuple[int, ...]
"""What changes when a file does."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One version of one model, on disk."""

    name: str
    version: int
    path: Path

    def __str__(self) -> str:
        """Say it as people do."""
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a repository has found.

    files: the model files, by name and version, each with its stamp. folders: device and inode of
    each folder that could be read. unread: paths that are there and can't be read, and why.
    """

    root: Path
    files: dict[ModelFile, Stamp] = field(default_factory=dict)
    folders: dict[Path, tuple[int, int]] = field(default_factory=dict)
    unread: dict[Path, str] = field(default_factory=dict)

    def homes(self) -> dict[Path, tuple[int, int]]:
        """Return device and inode of the folders that model files were found in."""
        above = {folder for file in self.files for folder in file.path.parents}
        return {folder: where for folder, where in self.folders.items() if folder in above}

    def kept_by(self, file: ModelFile, homes: Mapping[Path, tuple[int, int]]) -> str:
        """Say why a file that was not found may still be there; nothing if it was removed.

        homes: the folders that it was found in before. A file was removed if a folder above it
        could be read and does not hold it. A folder without any models that was another one
        before proves nothing: under a mount that is gone lies an empty folder.
        """
        name, version = file.path.parents[1], file.path.parent
        for folder, child in ((self.root, name), (name, version), (version, file.path)):
            if child in self.unread:
                return f"{child} can't be read ({self.unread[child]})"
            if child in self.folders:
                continue
            holds_others = any(folder in other.path.parents for other in self.files)
            if holds_others or self.folders[folder] == homes.get(folder):
                return ""
            return f"{folder} is another folder than before, and holds no models"
        return ""


def look_at(root: Path) -> Look:
    """Return what a repository holds now.

    Versions are plain positive integers; other folders are left alone. Raises ModelFileError if
    the repository is no folder, or can't be read.
    """
    look = Look(root)
    names = _listed(root, look)
    if root in look.unread:
        raise ModelFileError(
            f"the model repository {root} can't be read ({look.unread[root]}); "
            "let this user read it, or name another with --models"
        )
    if root not in look.folders:
        raise ModelFileError(
            f"the model repository {root} is not a folder; export a model with "
            f"`visavis export resnet50 --out {root}`, or name another with --models"
        )
    found: list[ModelFile] = []
    for name in names:
        if not re.fullmatch(NAME_PATTERN, name):
            continue
        for version in _listed(root / name, look):
            if re.fullmatch(_VERSION_PATTERN, version):
                found.append(ModelFile(name, int(version), root / name / version / "model.onnx"))
    for file in sorted(found, key=lambda file: (file.name, file.version)):
        if (status := _status(file.path.parent, look)) is not None:
            look.folders[file.path.parent] = status.st_dev, status.st_ino
        if (status := _status(file.path, look)) is not None:
            look.files[file] = stamp(file.path, status)
    return look


def scan(root: Path) -> list[ModelFile]:
    """Return the model files of a repository, by name and version; raises as look_at does."""
    return list(look_at(root).files)


def stamp(path: Path, status: os.stat_result | None = None) -> Stamp:
    """Return what changes when a model file, or the JSON beside it, does."""
    sidecar = path.with_suffix(".json")
    return *stamp_of(status or _stat(path)), *stamp_of(_stat(sidecar))


def stamp_of(status: os.stat_result | None) -> Stamp:
    """Return what changes when a file does; None: it isn't there."""
    if status is None:
        return (0,)
    return status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns


def _listed(folder: Path, look: Look) -> list[str]:
    """Return what a folder holds, if it is one; a look notes what keeps it from being read."""
    if (status := _status(folder, look)) is None:
        return []
    try:
        names = [path.name for path in folder.iterdir()]
    except NotADirectoryError:
        return []
    except OSError as error:
        look.unread[folder] = _why(error)
        return []
    look.folders[folder] = status.st_dev, status.st_ino
    return names


def _status(path: Path, look: Look) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            look.unread[path] = "a link that leads nowhere"
    except OSError as error:
        look.unread[path] = _why(error)
    return None


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _why(error: OSError) -> str:
    return error.strerror or errno.errorcode.get(error.errno or 0, "unknown error")
