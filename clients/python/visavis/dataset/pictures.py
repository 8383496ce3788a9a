"""The pictures in a folder, without what file managers and cameras leave beside them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})
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
    return sorted(_pictures(folder, frozenset()))


def _pictures(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    # Only the folders on the way here: two links to one folder are two folders of pictures.
    real = os.path.realpath(folder)
    if real in above:
        return
    for path in folder.iterdir():
        if is_picture(path):
            yield path
        elif path.is_dir() and not _is_foreign(path.name):
            yield from _pictures(path, above | {real})


def _is_foreign(name: str) -> bool:
    return name.startswith(".") or name.lower() in _FOREIGN_FOLDERS
