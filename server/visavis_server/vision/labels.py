"""Names of label sets: two models that know the same classes share a name."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

# Of the largest public label sets, ImageNet-21k has the most classes, 21,841. More, or longer
# names, are no labels: 100 MB of them would travel with every answer.
MAX_CLASSES = 32_768
MAX_NAME_LENGTH = 256
_KNOWN = {
    80: ("coco-80", "person", "toothbrush"),
    1000: ("imagenet-1k", "tench", "toilet"),
}
KNOWN_LABEL_SETS = frozenset(name for name, _, _ in _KNOWN.values())


def read_labels(names: object) -> tuple[str, ...]:
    """Return a stranger's class names by class id: a list, or a dict by class id.

    The ids of a dict are numbers, or text that is one, in any order; they begin at 0 and leave
    none out. A name may be that of several classes: ImageNet has two cranes. Raises ValueError,
    saying which, for anything else, and as check_labels does.
    """
    if isinstance(names, dict):
        names = _by_id(names)
    if not isinstance(names, list | tuple):
        raise ValueError(f"a list or a dict is needed, not {type(names).__name__}")
    if not names:
        raise ValueError("no classes are named")
    return check_labels(names)


def _by_id(names: dict[object, object]) -> list[object]:
    by_id: dict[int, object] = {}
    for key, name in names.items():
        if isinstance(key, str) and re.fullmatch("[0-9]{1,9}", key, re.ASCII):
            key = int(key)
        if type(key) is not int:
            raise ValueError(f"{str(key)[:80]!r} is no class id; 0, 1, 2 and so on are")
        if key in by_id:
            raise ValueError(f"class {key} is named twice")
        by_id[key] = name
    missing = next((class_id for class_id in range(len(by_id)) if class_id not in by_id), None)
    if missing is not None:
        raise ValueError(
            f"class ids from {min(by_id)} to {max(by_id)} are named, and {missing} is not; ids "
            "begin at 0 and leave none out"
        )
    return [by_id[class_id] for class_id in range(len(by_id))]


def check_labels(labels: Sequence[object]) -> tuple[str, ...]:
    """Return a stranger's class names, by class id; numbers among them as text.

    Raises ValueError, saying which, for names that are no text, too long or hold control
    characters, and for too many of them.
    """
    if len(labels) > MAX_CLASSES:
        raise ValueError(f"{len(labels)} classes are named; {MAX_CLASSES} are allowed")
    for class_id, label in enumerate(labels):
        # A data set's YAML makes numbers of class names such as 7.
        if not isinstance(label, str | int | float):
            raise ValueError(f"the name of class {class_id} is no text")
        text = str(label) if isinstance(label, str | float) or abs(label) < 1 << 128 else ""
        if not 0 < len(text) <= MAX_NAME_LENGTH:
            raise ValueError(
                f"the name of class {class_id} has {len(text)} characters; 1 to {MAX_NAME_LENGTH} "
                "are allowed"
            )
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
            raise ValueError(f"the name of class {class_id} holds control characters: {text!a:.80}")
    return tuple(map(str, labels))


def name_of_label_set(labels: tuple[str, ...]) -> str:
    """Return the name of a label set: a known one, or one made from the labels themselves.

    Known sets are recognised by size, first and last label, because tables of the same
    classes spell them differently: 308 of ImageNet's 1,000 differ between torchvision and
    ultralytics.
    """
    if known := _KNOWN.get(len(labels)):
        name, first, last = known
        if labels[0].lower().startswith(first) and labels[-1].lower().startswith(last):
            return name
    digest = hashlib.sha256("\n".join(labels).encode()).hexdigest()[:8]
    return f"custom-{digest}"
