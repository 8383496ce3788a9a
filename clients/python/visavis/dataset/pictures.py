"""The pictures in a folder, without what file managers and cameras leave beside them."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from visavis.errors import InvalidData

_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_OTHER_SUFFIXES: Final = frozenset(
    {".heic", ".heif", ".avif", ".gif", ".tif", ".tiff", ".bmp", ".jxl", ".jp2", ".dng", ".pdf"}
)
# Thumbnails of Synology, archives of macOS, and the bins of Windows; everything that begins with
# a dot is hidden, macOS' resource forks (`._p1.jpg`) and `.Trash` among it.
_FOREIGN_FOLDERS: Final = frozenset(
    {"@eadir", "__macosx", "$recycle.bin", "system volume information", "lost+found"}
)


def is_picture(path: Path) -> bool:
    """Say whether a path names a picture's file, by its suffix; hidden files are none."""
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()


def find_pictures(folder: Path) -> list[Path]:
    """Return the pictures in a folder and those below it, sorted by path.

    Linked files and folders count; a folder that links back to one above it is entered once.
    Hidden files and folders, and those of thumbnails and bins, are passed over.
    """
    return sorted(filter(is_picture, find_files(folder)))


def find_files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and those below it, as find_pictures looks for them.

    Raises InvalidData where a folder can't be read.
    """
    return _files(folder, frozenset())


def chosen_pictures(given: Iterable[Path]) -> list[Path]:
    """Return files as they are given, and the pictures in folders in their place.

    Raises InvalidData for a folder without any.
    """
    chosen: list[Path] = []
    for path in given:
        if not path.is_dir():
            chosen.append(path)
        elif found := find_pictures(path):
            chosen += found
        else:
            raise InvalidData(f"the folder {path} {without_pictures(path)}")
    return chosen


def without_pictures(folder: Path) -> str:
    """Return why a folder gives no picture, with the other formats that are in it."""
    others = Counter(path.suffix.lower() for path in find_files(folder))
    found = {suffix: count for suffix, count in others.items() if suffix in _OTHER_SUFFIXES}
    holds = "holds no JPEG, PNG or WebP picture"
    if not found:
        return holds
    named = ", ".join(f"{count} {suffix}" for suffix, count in sorted(found.items()))
    return f"{holds}, but {named}; convert them"


def _files(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    # Only the folders on the way here: two links to one folder are two folders of pictures.
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        paths = list(folder.iterdir())
    except OSError as error:
        raise InvalidData(f"the folder {folder} can't be read: {error.strerror}") from None
    for path in paths:
        if path.is_dir():
            if not _is_foreign(path.name):
                yield from _files(path, above | {real})
        elif path.is_file() and not path.name.startswith("."):
            yield path


def _is_foreign(name: str) -> bool:
    return name.startswith(".") or name.lower() in _FOREIGN_FOLDERS
