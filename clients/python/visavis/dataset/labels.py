"""The types that hold a picture's labels, and the parsing that all label files share."""

import math
from dataclasses import dataclass
from pathlib import Path

from visavis.errors import InvalidData


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


def read_text(path: Path) -> str:
    """Return the contents of a UTF-8 file, without the byte order mark of Notepad and Excel."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidData(f"{path} is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise InvalidData(f"can't read {path}: {error.strerror}") from None


def parse_class_id(text: str, where: str, name: str) -> int:
    """Return a class id, which some tools write as 5.0 and some spreadsheets as 5,0.

    where, name: file and line, and the name of the value, for the error. Raises InvalidData.
    """
    try:
        number = float(text.strip().replace(",", "."))
    except ValueError:
        number = math.nan
    if not (number >= 0 and number.is_integer()):
        raise InvalidData(
            f"{where}: {name} is {text.strip()[:40]!r}; it must be a whole number, 0 or above"
        )
    return int(number)
