"""Names of label sets: two models that know the same classes share a name."""

import hashlib

_KNOWN = {
    80: ("coco-80", "person", "toothbrush"),
    1000: ("imagenet-1k", "tench", "toilet"),
}
KNOWN_LABEL_SETS = frozenset(name for name, _, _ in _KNOWN.values())


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
