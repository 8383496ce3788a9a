"""The types that hold a picture's labels, and the parsing that all label files share."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from visavis.errors import InvalidData

MOST_LIST_BYTES: Final = 256 << 20
"""The largest file with the labels of all pictures, or with their paths."""

MOST_PICTURE_BYTES: Final = 16 << 20
"""The largest file with the labels of one picture."""

# Class ids fit into 32 bits.
_MOST_CLASSES: Final = 1 << 31


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
    """A picture with its label: a class id, or all its objects for a detector."""

    path: Path
    truth: int | tuple[Truth, ...]


def parse_class_id(text: str, where: str, name: str) -> int:
    """Return a class id, which some tools write as 5.0 and some spreadsheets as 5,0.

    where, name: file and line, and the name of the value, for the error. Raises InvalidData.
    """
    try:
        number = float(text.strip().replace(",", "."))
    except ValueError:
        number = math.nan
    if not (0 <= number < _MOST_CLASSES and number.is_integer()):
        raise InvalidData(
            f"{where}: {name} is {text.strip()[:40]!r}; it must be a whole number, 0 or above"
        )
    return int(number)
