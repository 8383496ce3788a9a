"""Class names of labels, found among a model's own."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from visavis.errors import InvalidData

# COCO's paper and its JSON files, YOLO's names and torchvision's differ in these.
_SAME = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
    "television": "tv",
    "hairdryer": "hairdrier",
    "doughnut": "donut",
}


def comparable(name: str) -> str:
    """Return a class name as it is compared: case, accents, separators and spelling aside."""
    plain = unicodedata.normalize("NFKD", name)
    plain = "".join(c for c in plain if not unicodedata.combining(c)).casefold()
    joined = re.sub(r"[\s_\-/]+", "", plain)  # `traffic light`, `traffic_light`, `trafficlight`
    return _SAME.get(joined, joined)


class ClassNames:
    """A model's class names; labels may give a name, or a class id in digits."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._ids: dict[str, int] = {}
        self._repeated: set[str] = set()
        for class_id, label in enumerate(labels):
            key = comparable(label)
            if key in self._ids:  # ImageNet has two cranes and two maillots
                self._repeated.add(key)
            self._ids.setdefault(key, class_id)

    def find(self, name: str) -> int | None:
        """Return the class id of a name; None if the model does not know it."""
        return self._ids.get(comparable(name))

    def class_id(self, name: str, where: str) -> int:
        """Return the class id of a name. Raises InvalidData if it is unknown or ambiguous."""
        key = comparable(name)
        if key in self._repeated:
            raise InvalidData(f"{where}: {name!r} is the name of two classes; give the class id")
        if key in self._ids:
            return self._ids[key]
        if name.isdecimal() and int(name) < len(self._labels):
            return int(name)
        raise InvalidData(
            f"{where}: {name[:80]!r} is not a class of the model; it has {len(self._labels)}, "
            f"such as {', '.join(map(repr, self._labels[:3]))}"
        )


def posix(path: str | Path) -> str:
    """Return a path as results name it: with slashes, accents composed."""
    return unicodedata.normalize("NFC", Path(path).as_posix())
