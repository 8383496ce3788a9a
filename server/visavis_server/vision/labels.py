"""Names of label sets: models with the same classes share a name."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

# The largest public label set, ImageNet-21k, has 21,841 classes. Without these limits 100 MB of
# labels could travel with every answer.
MAX_CLASSES = 32_768
MAX_NAME_LENGTH = 256
_KNOWN = {
    80: ("coco-80", "person", "toothbrush"),
    91: ("coco-91", "__background__", "toothbrush"),
    1000: ("imagenet-1k", "tench", "toilet"),
}
KNOWN_LABEL_SETS = frozenset(name for name, _, _ in _KNOWN.values())
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
# Of Latin, Greek and Cyrillic: other scripts' marks make other words.
_ACCENTS = re.compile("[\u0300-\u036f]")


def comparable(name: str) -> str:
    """Return a class name as it is compared: case, accents, separators and spelling aside.

    The SDK has the same rule in `visavis.dataset.names`; a test keeps them equal.
    """
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", name)).casefold()
    joined = re.sub(r"[\s_\-/]+", "", plain)  # `traffic light`, `traffic_light`, `trafficlight`
    return _SAME.get(joined, joined)


@lru_cache(maxsize=64)
def _comparable_names(labels: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(comparable, labels))


class SharedNames:
    """The names that two label sets share; here, baseline: their labels."""

    def __init__(self, here: tuple[str, ...], baseline: tuple[str, ...]) -> None:
        self._both = _comparable_names(here) & _comparable_names(baseline)

    def key(self, label: str) -> str | None:
        """Return what a label is matched by; None if only one of the two sets has it."""
        name = comparable(label)
        return name if name in self._both else None


def read_labels(names: object) -> tuple[str, ...]:
    """Return untrusted class names in order of class id; names: a list, or a dict by class id.

    The ids of a dict are integers, or decimal strings, from 0 without gaps, in any order. Several
    classes may share a name: ImageNet has two cranes. Raises ValueError, naming the class, for
    anything else, and as check_labels does.
    """
    if isinstance(names, dict):
        names = _by_id(names)
    if not isinstance(names, list | tuple):
        raise ValueError(f"class names must be a list or a dict, not {type(names).__name__}")
    if not names:
        raise ValueError("there are no class names")
    return check_labels(names)


def _by_id(names: dict[object, object]) -> list[object]:
    by_id: dict[int, object] = {}
    for key, name in names.items():
        if isinstance(key, str) and re.fullmatch("[0-9]{1,9}", key, re.ASCII):
            key = int(key)
        if type(key) is not int:
            raise ValueError(f"{str(key)[:80]!r} is not a class id; ids are 0, 1, 2 and so on")
        if key in by_id:
            raise ValueError(f"class {key} has two names")
        by_id[key] = name
    missing = next((class_id for class_id in range(len(by_id)) if class_id not in by_id), None)
    if missing is not None:
        raise ValueError(
            f"class ids go from {min(by_id)} to {max(by_id)}, but {missing} is missing; ids must "
            "begin at 0 and have no gaps"
        )
    return [by_id[class_id] for class_id in range(len(by_id))]


def check_labels(labels: Sequence[object]) -> tuple[str, ...]:
    """Return untrusted class names in order of class id, with numbers as text.

    Raises ValueError, naming the class, if there are too many names, or one is not text, too long
    or has control characters.
    """
    if len(labels) > MAX_CLASSES:
        raise ValueError(f"there are {len(labels)} class names; the limit is {MAX_CLASSES}")
    for class_id, label in enumerate(labels):
        # YAML reads class names such as 7 as numbers.
        if not isinstance(label, str | int | float):
            raise ValueError(f"the name of class {class_id} is not text")
        text = str(label) if isinstance(label, str | float) or abs(label) < 1 << 128 else ""
        if not 0 < len(text) <= MAX_NAME_LENGTH:
            raise ValueError(
                f"the name of class {class_id} has {len(text)} characters; it must have 1 to "
                f"{MAX_NAME_LENGTH}"
            )
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
            raise ValueError(f"the name of class {class_id} has control characters: {text!a:.80}")
    return tuple(map(str, labels))


def name_of_label_set(labels: tuple[str, ...]) -> str:
    """Return the name of a label set: a known name, or one derived from the labels.

    Known sets are recognised by size, first and last label, because their spelling varies:
    308 of ImageNet's 1,000 labels differ between torchvision and ultralytics.
    """
    if known := _KNOWN.get(len(labels)):
        name, first, last = known
        if labels[0].lower().startswith(first) and labels[-1].lower().startswith(last):
            return name
    digest = hashlib.sha256("\n".join(labels).encode()).hexdigest()[:8]
    return f"custom-{digest}"
