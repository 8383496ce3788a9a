"""Names of label sets: two models that know the same classes share a name."""

import hashlib
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
