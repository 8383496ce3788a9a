"""The pictures that a command is given: folders, patterns, lists and files."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from visavis.dataset.file_reading import read_text
from visavis.dataset.labels import MOST_LIST_BYTES
from visavis.dataset.pictures import find_pictures, is_picture, without_pictures
from visavis.errors import InvalidData

_LIST_SUFFIX: Final = ".txt"


def are_many(name: str) -> bool:
    """Return True for a folder, a pattern, or a list of pictures."""
    path = Path(name)
    if name == "-" or path.is_file():
        return path.suffix.lower() == _LIST_SUFFIX
    return path.is_dir() or glob.has_magic(name)


def given_pictures(given: Sequence[str]) -> tuple[Path, list[Path]]:
    """Return the folder that paths are relative to, and the pictures, each once.

    given: folders, patterns such as `photos/**/*.jpg`, text files with the path of a picture on
    each line, and pictures. Raises InvalidData for one that has none.
    """
    if len(given) == 1 and Path(given[0]).is_dir():
        return Path(given[0]), _of_folder(Path(given[0]))
    chosen = [path.absolute() for name in given for path in _pictures(name)]
    if not chosen:
        raise InvalidData("there is no picture to compare")
    common = Path(*_common_parts([path.parent for path in chosen]))
    return common, list(dict.fromkeys(chosen))


def _pictures(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        return _of_folder(path)
    if path.is_file():
        return _listed(path) if path.suffix.lower() == _LIST_SUFFIX else [path]
    if glob.has_magic(name):
        names = glob.iglob(name, recursive=True)  # noqa: PTH207  a path with a pattern anywhere
        found = sorted(filter(is_picture, map(Path, names)))
        if not found:
            raise InvalidData(f"no JPEG, PNG or WebP picture matches {name!r}")
        return found
    raise InvalidData(f"{name} does not exist; give a folder, a pattern, a list or pictures")


def _of_folder(folder: Path) -> list[Path]:
    pictures = find_pictures(folder)
    if not pictures:
        raise InvalidData(f"the folder {folder} {without_pictures(folder)}")
    return pictures


def _listed(file: Path) -> list[Path]:
    """Return the pictures that a text file lists, relative to its folder, as YOLO's do."""
    found = []
    for number, line in enumerate(read_text(file, MOST_LIST_BYTES).splitlines(), 1):
        if not line.strip():
            continue
        path = file.parent / line.strip()
        if not path.is_file():
            raise InvalidData(f"{file}, line {number}: {line.strip()[:200]} is not a file")
        found.append(path)
    if not found:
        raise InvalidData(f"{file} lists no picture")
    return found


def _common_parts(folders: Sequence[Path]) -> Iterator[str]:
    for parts in zip(*(folder.parts for folder in folders), strict=False):
        if len(set(parts)) > 1:
            return
        yield parts[0]
