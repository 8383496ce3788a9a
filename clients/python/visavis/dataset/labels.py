"""The types that hold a picture's labels, and the parsing that all label files share."""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from visavis.errors import InvalidData

MOST_LIST_BYTES: Final = 256 << 20
"""The largest file with the labels of all pictures, or with their paths."""

MOST_PICTURE_BYTES: Final = 16 << 20
"""The largest file with the labels of one picture."""

# Class ids fit into 32 bits.
_MOST_CLASSES: Final = 1 << 31

# Converters round, so a box may end slightly outside the picture. Pixels are far larger.
TOLERANCE: Final = 0.01


# Left, top, width and height.
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Truth:
    """One labelled object: cxcywh as fractions of the upright picture's width and height.

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
    """A picture with its label: a class id, or all its objects for a detector.

    size: the picture's width and height in pixels, as the labels have it; None if they have none.
    """

    path: Path
    truth: int | tuple[Truth, ...]
    size: tuple[float, float] | None = None


def owned(
    pictures: Mapping[Path, str], entries: Collection[str], shown: Callable[[str], str]
) -> dict[Path, str]:
    """Return the label entry of each picture: the one at its path, or else the one of its name.

    pictures: with their paths as the entries have them. shown: an entry's name, for errors. An
    entry at the path of one picture is never used for another. An entry with no picture's name is
    that of a picture whose name differs in case only. Raises InvalidData where several fit.
    """
    names = {PurePosixPath(path).name for path in pictures.values()}
    same_name: defaultdict[str, list[str]] = defaultdict(list)
    same_letters: defaultdict[str, list[str]] = defaultdict(list)
    for entry in sorted(set(entries).difference(pictures.values())):
        name = PurePosixPath(entry).name
        if name in names:
            same_name[name].append(entry)
        else:
            same_letters[name.casefold()].append(entry)
    found = {}
    for picture, path in pictures.items():
        name = PurePosixPath(path).name
        others = same_name.get(name) or same_letters.get(name.casefold(), [])
        if path in entries:
            found[picture] = path
        elif len(others) > 1:
            raise InvalidData(
                f"{picture} may belong to {shown(others[0])} or to {shown(others[1])}; give the "
                f"labels the same folders as the pictures, here {shown(path)}"
            )
        elif others:
            found[picture] = others[0]
    owners: dict[str, Path] = {}
    for picture, entry in found.items():
        other = owners.setdefault(entry, picture)
        if other.parent != picture.parent:
            raise InvalidData(
                f"{shown(entry)} may belong to {other} or to {picture}; give the labels the same "
                "folders as the pictures"
            )
    return found


def box_in_pixels(
    class_id: int, box: Box, size: tuple[float, float], crowd: bool, where: str
) -> Truth:
    """Return an object from its box in pixels: left, top, width and height.

    size: the picture's width and height, as the label file has them. where: file and entry, for
    the error. Raises InvalidData for a box without area, and for one outside the picture.
    """
    left, top, width, height = box
    across, down = size
    if not (width > 0 and height > 0):
        raise InvalidData(f"{where} has no area; its width and height must be above 0")
    if max(box) < 1:
        raise InvalidData(
            f"{where} is smaller than a pixel; multiply fractions by the picture's width and height"
        )
    center_x, center_y = (left + width / 2) / across, (top + height / 2) / down
    inside = all(-TOLERANCE <= center <= 1 + TOLERANCE for center in (center_x, center_y))
    # Of a small picture, a pixel at each edge is more.
    fits = all(
        length <= max(side * (1 + TOLERANCE), side + 2)
        for length, side in ((width, across), (height, down))
    )
    if not (inside and fits):  # Also refuses NaN and infinite numbers.
        raise InvalidData(
            f"{where} is not in its picture of {across:g} × {down:g} px; a box needs its left "
            "and upper edge, width and height in pixels"
        )
    return Truth(class_id, center_x, center_y, width / across, height / down, crowd)


def parse_number(text: str) -> float:
    """Return a number, which may have a decimal comma; NaN if it is none."""
    try:
        # Python's own numbers may have underscores.
        return math.nan if "_" in text else float(text.strip().replace(",", "."))
    except ValueError:
        return math.nan


def parse_class_id(text: str, where: str, name: str) -> int:
    """Return a class id, which some tools write as 5.0 and some spreadsheets as 5,0.

    where, name: file and line, and the name of the value, for the error. Raises InvalidData.
    """
    number = parse_number(text)
    if not (0 <= number < _MOST_CLASSES and number.is_integer()):
        raise InvalidData(
            f"{where}: {name} is {text.strip()[:40]!r}; it must be a whole number, 0 or above"
        )
    return int(number)
