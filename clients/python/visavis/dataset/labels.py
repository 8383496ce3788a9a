"""What is known to be on pictures: class ids from a CSV file, boxes from YOLO's text files.

Every row is checked, and refused by its file and line.
"""

import csv
import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from visavis.dataset.pictures import find_files
from visavis.errors import InvalidData

# Converters round: a box at the edge may end a little outside. Pixels are far beyond this.
_TOLERANCE: Final = 0.01
_DELIMITERS: Final = ",;\t"
# Tells Excel, in a line before the first one, what separates the columns.
_EXCEL_HINTS: Final = frozenset(f"sep={delimiter}" for delimiter in _DELIMITERS)
# A class and x, y of each corner; with fewer corners it is no area.
_POLYGON_COLUMNS: Final = 7


@dataclass(frozen=True, slots=True)
class Truth:
    """One object on a picture: cxcywh as fractions of the upright picture's width and height.

    crowd: an area with many such objects; boxes in it are neither right nor wrong.
    """

    class_id: int
    center_x: float
    center_y: float
    width: float
    height: float
    crowd: bool = False


@dataclass(frozen=True, slots=True)
class Labelled:
    """A picture and what is known to be on it: a class id, or all objects for a detector."""

    path: Path
    truth: int | tuple[Truth, ...]


def read_classes(folder: Path, pictures: Iterable[Path], labels: Path) -> tuple[Labelled, ...]:
    """Return those of the pictures that a CSV file gives a class id.

    labels: has the columns `file`, a path below the folder, and `class_index`; separated by
    commas, semicolons or tabs. Raises InvalidData, by file and line, for a row that can't be
    read or that names a picture again, and if no picture is named.
    """
    class_ids: dict[Path, tuple[int, int]] = {}
    for line, name, class_id in _csv_rows(labels):
        path = _composed(folder / name.replace("\\", "/"))
        if path in class_ids:
            raise InvalidData(
                f"{labels}, line {line}: {name} has a class in line {class_ids[path][1]} already; "
                "keep one of the two lines"
            )
        class_ids[path] = class_id, line
    found = tuple(
        Labelled(path, class_ids[known][0])
        for path in pictures
        if (known := _composed(path)) in class_ids
    )
    if not found:
        raise InvalidData(
            f"{labels} names no picture of {folder}; its paths must begin at that folder"
        )
    return found


def read_boxes(
    folder: Path, pictures: Sequence[Path], labels: Path | None = None
) -> tuple[Labelled, ...]:
    """Return the pictures with their objects, from a text file for each picture.

    labels: the folder of these files; None: `labels` in the place of the last `images` in each
    picture's path, or else beside the picture. A picture without a file has no object; where no
    picture has one, nothing is returned. Raises InvalidData, by file and line, for a row that is
    neither `class cx cy width height` nor a polygon `class x1 y1 x2 y2 x3 y3 ...`, as fractions
    of the picture, and for one that repeats another. Semicolons and decimal commas are read.
    """
    where = _beside(pictures) if labels is None else _below(labels, folder, pictures)
    if not where:
        return ()
    return tuple(
        Labelled(path, _objects(where[path]) if path in where else ()) for path in pictures
    )


def _csv_rows(labels: Path) -> Iterator[tuple[int, str, int]]:
    """Yield line, file and class id of each row."""
    lines = _text(labels).splitlines()
    before = 1 if lines and lines[0].lower() in _EXCEL_HINTS else 0
    first = next(filter(None, lines[before:]), "")
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.DictReader(lines[before:], delimiter=delimiter, skipinitialspace=True)
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
    if missing := {"file", "class_index"} - set(reader.fieldnames):
        raise InvalidData(
            f"{labels} has no column {' and no column '.join(sorted(missing))}; its first line "
            f"must be `file,class_index`, and is {first[:80]!r}"
        )
    try:
        for row in reader:
            line = reader.line_num + before
            where = f"{labels}, line {line}"
            if not any(row.values()):
                continue  # Excel's way to write an empty row.
            name, given = (row["file"] or "").strip(), row["class_index"] or ""
            if not name or None in row:
                raise InvalidData(
                    f"{where}: must be a file and its class, such as `cat.jpg{delimiter}281`, "
                    f"with as many columns as the first line"
                )
            yield line, name, _class_id(given, where, "class_index")
    except csv.Error as error:
        raise InvalidData(
            f"{labels}, line {reader.line_num + before}: is no CSV: {error}"
        ) from None


def _beside(pictures: Iterable[Path]) -> dict[Path, Path]:
    """Return where there are files of labels, by picture: of its own name, else of its target."""
    found = {}
    for picture in pictures:
        for path in (picture.absolute(), picture.resolve()):
            if (text := _usual_place(path)).is_file():
                found[picture] = text
                break
    return found


def _usual_place(picture: Path) -> Path:
    """Return where YOLO looks for a picture's objects: …/images/a.jpg, …/labels/a.txt."""
    parts = list(picture.with_suffix(".txt").parts)
    last = next((i for i in reversed(range(len(parts) - 1)) if parts[i] == "images"), None)
    if last is not None:
        parts[last] = "labels"
    return Path(*parts)


def _below(labels: Path, folder: Path, pictures: Sequence[Path]) -> dict[Path, Path]:
    """Return where there are files of labels, by picture: at the same path, else of its name.

    A file at the same path as one picture is no other's.
    """
    files = {path for path in find_files(labels) if path.suffix == ".txt"}
    same_paths = {
        picture: labels / picture.relative_to(folder).with_suffix(".txt") for picture in pictures
    }
    texts: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(files.difference(same_paths.values())):
        texts[path.stem].append(path)
    found = {}
    for picture, same_path in same_paths.items():
        same_name = texts[picture.stem]
        if same_path in files:
            found[picture] = same_path
        elif len(same_name) > 1:
            raise InvalidData(
                f"{picture} may belong to {same_name[0]} or to {same_name[1]}; give the labels "
                f"the same folders as the pictures, here {same_path}"
            )
        elif same_name:
            found[picture] = same_name[0]
    owners: dict[Path, Path] = {}
    for picture, text in found.items():
        other = owners.setdefault(text, picture)
        if other.parent != picture.parent:
            raise InvalidData(
                f"{text} may belong to {other} or to {picture}; give the labels the same folders "
                "as the pictures"
            )
    if not found:
        raise InvalidData(f"{labels} holds no FILE.txt for any picture of {folder}")
    return found


def _objects(path: Path) -> tuple[Truth, ...]:
    found: dict[Truth, int] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        columns = [column.strip() for column in line.split(";")] if ";" in line else line.split()
        truth = _object(columns, where)
        if truth in found:
            raise InvalidData(
                f"{where}: repeats line {found[truth]}; delete one of the two, or the object "
                "counts twice"
            )
        found[truth] = number
    return tuple(found)


def _object(columns: Sequence[str], where: str) -> Truth:
    if len(columns) == 1 and "," in columns[0]:
        raise InvalidData(
            f"{where}: has commas between the columns, or blanks are missing; separate columns by "
            "blanks, as in `0 0.5 0.5 0.2 0.1`"
        )
    is_polygon = len(columns) >= _POLYGON_COLUMNS and len(columns) % 2 == 1
    if len(columns) != 5 and not is_polygon:
        raise InvalidData(
            f"{where}: has {len(columns)} columns; a box has 5, `class cx cy width height`, a "
            "polygon `class x1 y1 x2 y2 x3 y3` and so on"
        )
    class_id = _class_id(columns[0], where, "the class")
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


def _class_id(text: str, where: str, what: str) -> int:
    """Return a class id; some tools write 5.0, some spreadsheets 5,0."""
    try:
        number = float(text.strip().replace(",", "."))
    except ValueError:
        number = math.nan
    if not (number >= 0 and number.is_integer()):
        raise InvalidData(
            f"{where}: {what} is {text.strip()[:40]!r}; it must be a whole number from 0"
        )
    return int(number)


def _fraction(text: str, where: str) -> float:
    try:
        number = float(text.replace(",", "."))  # a decimal comma
    except ValueError:
        number = math.nan
    if not -_TOLERANCE <= number <= 1 + _TOLERANCE:  # NaN is refused too
        hint = "; pixels must be divided by the picture's width or height" if number > 1 else ""
        raise InvalidData(
            f"{where}: {text[:40]!r} is no fraction of the picture, from 0 to 1{hint}"
        )
    return number


def _composed(path: Path) -> Path:
    """Return a path with its accents as most write them; macOS gives them as marks of their own."""
    return Path(unicodedata.normalize("NFC", str(path)))


def _text(path: Path) -> str:
    """Return a text file; a byte order mark, as Notepad and Excel write it, is no part of it."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidData(f"{path} is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise InvalidData(f"{path} can't be read: {error.strerror}") from None
