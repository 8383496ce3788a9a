"""Finds the pictures in a folder, without the files that systems and file managers leave there."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Final

from visavis.errors import InvalidData

_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_OTHER_SUFFIXES: Final = frozenset(
    {".heic", ".heif", ".avif", ".gif", ".tif", ".tiff", ".bmp", ".jxl", ".jp2", ".dng", ".pdf"}
)
# Synology's thumbnails, macOS's archives, and recycle bins. Names with a leading dot are hidden,
# which covers macOS's resource forks (`._p1.jpg`) and `.Trash`.
_FOREIGN_FOLDERS: Final = frozenset(
    {
        *("@eadir", "__macosx", "$recycle.bin", "#recycle", "@recycle", "#snapshot"),
        *("system volume information", "lost+found"),
    }
)
# ImageNet in full has 21,841 folders.
_MOST_FOLDERS: Final = 100_000
_MOST_LEVELS: Final = 100


def is_picture(path: Path) -> bool:
    """Return True for a visible file with the suffix of a picture."""
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()


def find_pictures(folder: Path) -> list[Path]:
    """Return the pictures in a folder and its subfolders, sorted by path.

    Symbolic links are followed; a link to a parent folder is ignored. Hidden files and folders,
    thumbnails and recycle bins are skipped.
    """
    return sorted(filter(is_picture, find_files(folder)))


def find_files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, by the rules of find_pictures.

    Raises InvalidData for an unreadable folder, and for one that never seems to end: a few links
    can make billions of folders.
    """
    return _files(folder, frozenset(), count(1))


def chosen_pictures(given: Iterable[Path]) -> list[Path]:
    """Return the paths with each folder replaced by its pictures.

    Raises InvalidData for a folder without pictures.
    """
    chosen: list[Path] = []
    for path in given:
        if not path.is_dir():
            chosen.append(path)
        elif pictures := find_pictures(path):
            chosen += pictures
        else:
            raise InvalidData(f"the folder {path} {without_pictures(path)}")
    return chosen


def without_pictures(folder: Path) -> str:
    """Return the end of the error for a folder without pictures: it counts other formats."""
    suffixes = Counter(path.suffix.lower() for path in find_files(folder))
    others = {suffix: count for suffix, count in suffixes.items() if suffix in _OTHER_SUFFIXES}
    message = "has no JPEG, PNG or WebP picture"
    if not others:
        return message
    counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    return f"{message}, but {counts}; convert them"


def _files(folder: Path, above: frozenset[str], entered: Iterator[int]) -> Iterator[Path]:
    # `above` holds only parents: two links to one folder count as two folders of pictures.
    real = os.path.realpath(folder)
    if real in above:
        return
    if len(above) > _MOST_LEVELS:
        raise InvalidData(f"{folder} is more than {_MOST_LEVELS} levels deep; give a folder in it")
    if next(entered) > _MOST_FOLDERS:
        raise InvalidData(
            f"there are more than {_MOST_FOLDERS} folders, and {folder} is one of them; give a "
            "smaller folder, or one with fewer links"
        )
    try:
        paths = list(folder.iterdir())
    except OSError as error:
        raise InvalidData(f"can't read the folder {folder}: {error.strerror}") from None
    for path in paths:
        if path.is_dir():
            if not _is_foreign(path.name):
                yield from _files(path, above | {real}, entered)
        elif path.is_file() and not path.name.startswith("."):
            yield path


def _is_foreign(name: str) -> bool:
    return name.startswith(".") or name.lower() in _FOREIGN_FOLDERS
