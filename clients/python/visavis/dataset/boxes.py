"""Reads boxes from YOLO's text files. An invalid row is reported by file and line."""

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from visavis.dataset.file_reading import read_text
from visavis.dataset.labels import (
    MOST_PICTURE_BYTES,
    TOLERANCE,
    Labelled,
    Truth,
    owned,
    parse_class_id,
    parse_number,
)
from visavis.dataset.names import posix
from visavis.dataset.pictures import find_files
from visavis.errors import InvalidData

# A class, and x and y of three corners.
_POLYGON_COLUMNS: Final = 7


def read_boxes(
    folder: Path, pictures: Sequence[Path], labels: Path | None = None
) -> tuple[Labelled, ...]:
    """Return the pictures with their objects, from one text file per picture.

    labels: the folder of the text files; None to look where YOLO does, with the last `images` of
    the picture's path replaced by `labels`, or beside the picture. A picture without a file has no
    objects if others of its `images`, or else of its folder, have files; of other pictures the
    truth is unknown. With a folder of labels, no picture without a file has objects. A row is
    `class cx cy width height` or a polygon `class x1 y1 x2 y2 x3 y3 ...`, as fractions of the
    picture, optionally with semicolons and decimal commas. Raises InvalidData for an invalid or
    repeated row.
    """
    where = _beside(pictures) if labels is None else _below(labels, folder, pictures)
    # Of other folders, nothing says that anybody looked for objects there.
    seen = {_images_of(picture) for picture in where} if labels is None else None
    return tuple(
        Labelled(path, _objects(where[path]) if path in where else ())
        for path in pictures
        if where and (seen is None or _images_of(path) in seen)
    )


def _beside(pictures: Iterable[Path]) -> dict[Path, Path]:
    """Return the label file of each picture, by its own path or else by that of its link target."""
    found = {}
    for picture in pictures:
        for path in (picture.absolute(), picture.resolve()):
            if text := _spelled(_usual_place(path)) or _spelled(path.with_suffix(".txt")):
                found[picture] = text
                break
    return found


def _spelled(path: Path) -> Path | None:
    """Return a text file, whether its name's accents are composed or not, as macOS has them.

    Its suffix may be in capitals.
    """
    names = (path.name, *(unicodedata.normalize(form, path.name) for form in ("NFC", "NFD")))
    spellings = (
        path.with_name(name).with_suffix(end) for name in names for end in (".txt", ".TXT")
    )
    return next((one for one in spellings if one.is_file()), None)


def _usual_place(picture: Path) -> Path:
    """Return the path where YOLO expects a picture's labels: …/images/a.jpg, …/labels/a.txt."""
    parts = list(picture.with_suffix(".txt").parts)
    last = next((i for i in reversed(range(len(parts) - 1)) if parts[i] == "images"), None)
    if last is not None:
        parts[last] = "labels"
    return Path(*parts)


def _images_of(picture: Path) -> Path:
    """Return the last folder `images` above a picture, else the picture's folder."""
    return next((each for each in picture.parents if each.name == "images"), picture.parent)


def _below(labels: Path, folder: Path, pictures: Sequence[Path]) -> dict[Path, Path]:
    """Return the label file of each picture, by the same relative path or else by its name."""
    files = {
        posix(path.relative_to(labels).with_suffix("")): path
        for path in find_files(labels)
        if path.suffix.lower() == ".txt"
    }
    stems = {path: posix(path.relative_to(folder).with_suffix("")) for path in pictures}
    found = owned(stems, files, lambda stem: str(labels / f"{stem}.txt"))
    if not found:
        raise InvalidData(f"{labels} has no PICTURE.txt for any picture in {folder}")
    return {picture: files[stem] for picture, stem in found.items()}


def _objects(path: Path) -> tuple[Truth, ...]:
    lines: dict[Truth, int] = {}
    for number, line in enumerate(read_text(path, MOST_PICTURE_BYTES).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        columns = [column.strip() for column in line.split(";")] if ";" in line else line.split()
        truth = _object(columns, where)
        if truth in lines:
            raise InvalidData(
                f"{where}: repeats line {lines[truth]}, so the object would count twice; delete "
                "one of the two"
            )
        lines[truth] = number
    return tuple(lines)


def _object(columns: Sequence[str], where: str) -> Truth:
    if len(columns) == 1 and "," in columns[0]:
        raise InvalidData(
            f"{where}: has commas between the columns, or no spaces; separate columns with "
            "spaces, as in `0 0.5 0.5 0.2 0.1`"
        )
    is_polygon = len(columns) >= _POLYGON_COLUMNS and len(columns) % 2 == 1
    if len(columns) != 5 and not is_polygon:
        raise InvalidData(
            f"{where}: has {len(columns)} columns; a box has 5, `class cx cy width height`, and a "
            "polygon has 7 or more, `class x1 y1 x2 y2 x3 y3 ...`"
        )
    class_id = parse_class_id(columns[0], where, "the class")
    numbers = [_fraction(column, where) for column in columns[1:]]
    if is_polygon:
        xs, ys = numbers[::2], numbers[1::2]
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
        numbers = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    center_x, center_y, width, height = numbers
    for name, side in (("width", width), ("height", height)):
        if side <= 0:
            raise InvalidData(f"{where}: the {name} is {side:g}; it must be above 0")
    return Truth(class_id, center_x, center_y, width, height)


def _fraction(text: str, where: str) -> float:
    number = parse_number(text)
    if not -TOLERANCE <= number <= 1 + TOLERANCE:  # Rejects NaN too.
        hint = "; divide pixels by the picture's width or height" if number > 1 else ""
        raise InvalidData(
            f"{where}: {text[:40]!r} is not a fraction of the picture, from 0 to 1{hint}"
        )
    return number
