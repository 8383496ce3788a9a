"""Class names of labels, found among a model's own."""

import re
import unicodedata
from collections import defaultdict
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
# Of Latin, Greek and Cyrillic. Other scripts' marks make other words, as of crow (カラス) and
# glass (ガラス).
_ACCENTS = re.compile("[\u0300-\u036f]")


def comparable(name: str) -> str:
    """Return a class name as it is compared: case, accents, separators and spelling aside."""
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", name)).casefold()
    joined = re.sub(r"[\s_\-/]+", "", plain)  # `traffic light`, `traffic_light`, `trafficlight`
    return _SAME.get(joined, joined)


class ClassNames:
    """A model's class names; labels may give a name, or a class id in digits."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        # The classes `a` and `A` are alike, and yet two. ImageNet has two cranes.
        self._spelled: defaultdict[str, list[int]] = defaultdict(list)
        self._alike: defaultdict[str, list[int]] = defaultdict(list)
        for class_id, label in enumerate(labels):
            self._spelled[_composed(label)].append(class_id)
            self._alike[comparable(label)].append(class_id)

    def find(self, name: str) -> int | None:
        """Return the class id of a name, the first of several; None if the model lacks it."""
        return next(iter(self._named(name)), None)

    def class_id(self, name: str, where: str) -> int:
        """Return the class id of a name. Raises InvalidData if it is unknown or ambiguous."""
        found = self._named(name)
        if len(found) > 1:
            raise InvalidData(f"{where}: {name!r} is the name of two classes; give the class id")
        if found:
            return found[0]
        if name.isdecimal() and int(name) < len(self._labels):
            return int(name)
        raise InvalidData(
            f"{where}: {name[:80]!r} is not a class of the model; it has {len(self._labels)}, "
            f"such as {', '.join(map(repr, self._labels[:3]))}"
        )

    def _named(self, name: str) -> Sequence[int]:
        """Return the classes that are spelled like a name, or else those that compare equal."""
        return self._spelled.get(_composed(name)) or self._alike.get(comparable(name)) or ()


def posix(path: str | Path) -> str:
    """Return a path as results name it: with slashes, accents composed, other bytes escaped."""
    # Names from other systems may not be UTF-8; they could not be written to a report.
    return _composed(Path(path).as_posix().encode("utf-8", "backslashreplace").decode())


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
