"""Finds model files: `<name>/<version>/model.onnx` in the folder of the repository."""

import errno
import os
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from visavis_server.errors import ModelFileError
from visavis_server.names import NAME_PATTERN, NAME_RULE

_HOME: Final = "/1/model.onnx"
# The contract's versions are int32.
_LARGEST_VERSION: Final = 2**31 - 1
_VERSION_DIGITS: Final = len(str(_LARGEST_VERSION))
# Suffixes of files that were probably meant as models.
MODEL_SUFFIXES: Final = (
    ".onnx",
    ".pt",
    ".pth",
    ".engine",
    ".plan",
    ".tflite",
    ".pb",
    ".safetensors",
)
# Files of systems and file managers, ignored like names that begin with a dot.
_LEFT_ALONE: Final = frozenset(
    ("lost+found", "__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information")
)
# Suffixes of files that are still being written.
_INCOMPLETE: Final = (".part", ".tmp", ".partial")

Stamp = tuple[int, ...]
"""A value that changes when a file does."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One version of one model, on disk."""

    name: str
    version: int
    path: Path

    def __str__(self) -> str:
        """Return NAME/VERSION."""
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class Look:
    """The result of one look at a repository.

    files: the model files, by name and version, each with its stamp. folders: device and inode of
    each folder that could be read. unread: existing paths that can't be read, and why.
    passed_over: paths that were probably meant as models, and why they are not served.
    """

    root: Path
    files: dict[ModelFile, Stamp] = field(default_factory=dict)
    folders: dict[Path, tuple[int, int]] = field(default_factory=dict)
    unread: dict[Path, str] = field(default_factory=dict)
    passed_over: dict[Path, str] = field(default_factory=dict)

    def not_served(self, kept: Iterable[ModelFile] = (), name: str | None = None) -> list[str]:
        """Return a line for each path that is not served, with the reason; sorted by path.

        kept: files that are served though they were not found; their folders are left out. name:
        restricts the result to one model.
        """
        reasons = self.passed_over | {p: f"can't be read: {why}" for p, why in self.unread.items()}
        known = {path for file in kept for path in (file.path, *file.path.parents[:2])}
        return [
            f"{path}: {why}"
            for path, why in sorted(reasons.items())
            if path not in known and name in (None, path.relative_to(self.root).parts[0])
        ]

    def homes(self) -> dict[Path, tuple[int, int]]:
        """Return device and inode of the folders that hold model files."""
        above = {folder for file in self.files for folder in file.path.parents}
        return {folder: where for folder, where in self.folders.items() if folder in above}

    def kept_by(self, file: ModelFile, homes: Mapping[Path, tuple[int, int]]) -> str:
        """Return why a file that was not found may still exist; "" if it was removed.

        homes: the folders that files were found in before. A file counts as removed if a folder
        above it could be read and does not hold it. A folder without models proves nothing if its
        inode has changed: an unmounted file system leaves an empty folder behind.
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
            return f"{folder} has been replaced by a folder without models"
        return ""


def version_of(text: str) -> int | None:
    """Parse a version: a positive int32 in decimal. Returns None if the text is not one."""
    if len(text) > _VERSION_DIGITS or not re.fullmatch(r"[1-9][0-9]*", text):
        return None
    return version if (version := int(text)) <= _LARGEST_VERSION else None


def look_at(root: Path) -> Look:
    """Return the current contents of a repository.

    Misplaced or misnamed models are passed over, with the reason; other files are ignored. Raises
    ModelFileError if the repository is not a folder or can't be read.
    """
    look = Look(root)
    names = _listed(root, look)
    if root in look.unread:
        raise ModelFileError(
            f"the model repository {root} can't be read ({look.unread[root]}); "
            "grant this user read access, or choose another with --models"
        )
    if root not in look.folders and root.exists():
        raise ModelFileError(f"{root} is a file; set --models to the folder that holds NAME{_HOME}")
    if root not in look.folders:
        raise ModelFileError(
            f"the model repository {root} is not a folder; export a model with "
            f"`visavis export resnet50 --out {root}`, or choose another with --models"
        )
    found: list[ModelFile] = []
    for name in names:
        if re.fullmatch(NAME_PATTERN, name):
            found += _versions(root, name, look)
        elif _is_folder(root / name, look):
            look.passed_over[root / name] = f"{NAME_RULE}; rename it"
        else:
            _pass_over(root / name, f"<name>{_HOME}", look)
    for file in sorted(found, key=lambda file: (file.name, file.version)):
        if (status := _status(file.path.parent, look)) is not None:
            look.folders[file.path.parent] = status.st_dev, status.st_ino
        if (status := _status(file.path, look)) is not None:
            look.files[file] = stamp(file.path, status)
            _pass_over_beside(file.path, look)
        elif look.unread.keys().isdisjoint((file.path, file.path.parent)):
            _miss(file.path, look)
    return look


def within_a_model(folder: Path) -> bool:
    """Return True if a folder is that of one model or version, not a repository."""
    versions = (child for child in folder.iterdir() if version_of(child.name) is not None)
    return any((each / "model.onnx").is_file() for each in (folder, *versions))


def scan(root: Path) -> list[ModelFile]:
    """Return the model files of a repository, by name and version. Raises as look_at does."""
    return list(look_at(root).files)


def stamp(path: Path, status: os.stat_result | None = None) -> Stamp:
    """Return a value that changes when a model file or the JSON beside it does."""
    sidecar = path.with_suffix(".json")
    return *stamp_of(status or _stat(path)), *stamp_of(_stat(sidecar))


def stamp_of(status: os.stat_result | None) -> Stamp:
    """Return a value that changes when a file does; status None: the file does not exist."""
    if status is None:
        return (0,)
    return status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns


def _listed(folder: Path, look: Look) -> list[str]:
    """Return the names in a folder; notes in the look why it can't be read."""
    if (status := _status(folder, look)) is None:
        return []
    try:
        names = sorted(path.name for path in folder.iterdir() if not _is_left_alone(path.name))
    except NotADirectoryError:
        return []
    except OSError as error:
        look.unread[folder] = _why(error)
        return []
    look.folders[folder] = status.st_dev, status.st_ino
    return names


def _versions(root: Path, name: str, look: Look) -> list[ModelFile]:
    """Return the versions in a model's folder; notes misplaced files in the look."""
    folder = root / name
    entries = _listed(folder, look)
    if folder not in look.folders:
        _pass_over(folder, f"{_stem(name)}{_HOME}", look)
        return []
    found: list[ModelFile] = []
    misplaced = False
    for entry in entries:
        if (version := version_of(entry)) is not None:
            found.append(ModelFile(name, version, folder / entry / "model.onnx"))
        elif _is_folder(folder / entry, look):
            look.passed_over[folder / entry] = why_no_version(entry)
            misplaced = True
        else:
            misplaced |= _pass_over(folder / entry, f"{name}{_HOME}", look)
    if not (found or misplaced):
        look.passed_over[folder] = f"it holds no version; the model file belongs at {name}{_HOME}"
    return found


def why_no_version(entry: str) -> str:
    """Return why a folder's name is not a version."""
    if not re.fullmatch(r"[0-9]+", entry):
        return "the folder of a version is named 1, 2 or another whole number; rename it"
    if not (digits := entry.lstrip("0")):
        return "versions start at 1; rename it"
    if version_of(digits) is None:
        return f"the largest version is {_LARGEST_VERSION}; rename it"
    return f"a version has no leading zeros; rename it to {digits}"


def _miss(path: Path, look: Look) -> None:
    """Note why a version's folder has no model file."""
    folder = path.parent
    others = _listed(folder, look)
    if folder in look.unread or any(other.endswith(_INCOMPLETE) for other in others):
        return
    if not folder.is_dir():
        look.passed_over[folder] = (
            f"it is not a folder; the model file belongs at {folder.name}/{path.name}"
        )
        return
    named = sorted(other for other in others if other.lower().endswith(MODEL_SUFFIXES))
    instead = f"; it holds {named[0][:64]}" if named else ""
    look.passed_over[folder] = f"it holds no {path.name}{instead}"


def _pass_over(path: Path, place: str, look: Look) -> bool:
    """Note a misplaced model file; returns True if the path was noted or can't be read."""
    if path in look.unread:
        return True
    if path.suffix.lower() not in MODEL_SUFFIXES:
        return False
    look.passed_over[path] = f"model files are served from {place} only; move it there"
    return True


def _pass_over_beside(path: Path, look: Look) -> None:
    """Note other model files in a version's folder, beside the served one."""
    with suppress(OSError):  # its files can be opened, but perhaps not listed
        for other in path.parent.iterdir():
            if other.suffix.lower() == ".onnx" and other != path and not _is_left_alone(other.name):
                why = f"only {path.name} of a version's folder is served; give it its own folder"
                look.passed_over[other] = why


def _is_left_alone(name: str) -> bool:
    return name.startswith(".") or name in _LEFT_ALONE


def _is_folder(path: Path, look: Look) -> bool:
    status = _status(path, look)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _status(path: Path, look: Look) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            look.unread[path] = "a broken link"
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
