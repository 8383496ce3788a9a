"""Facts on a card, in words."""

from visavis.cards import Model
from visavis.commands.console import plain

UNKNOWN = "unknown"


def version(card: Model) -> str:
    """Return a card's version, and all there are if there are several: 1 (there are 1 and 7)."""
    if len(card.versions) < 2:
        return str(card.version)
    *others, last = map(str, card.versions)
    return f"{card.version} (there are {', '.join(others)} and {last})"


def parameters(count: int) -> str:
    """Return how many parameters a model has: 25.6 M."""
    if count <= 0:
        return UNKNOWN
    if count < 100_000:
        return f"{count / 1e3:.1f} k"
    return f"{count / 1e6:.1f} M"


def tasks(card: Model) -> str:
    """Return what a model is capable of."""
    return ", ".join(card.tasks) or "none"


def yes_or_no(value: bool | None) -> str:
    """Return yes, no, or that nobody knows."""
    return UNKNOWN if value is None else "yes" if value else "no"


def known(text: str) -> str:
    """Return a text from a card, or that it says nothing."""
    return plain(text) or UNKNOWN


def label_set(card: Model) -> str:
    """Return the name and the size of the label set."""
    return f"{known(card.label_set.name)} ({card.label_set.size})"


def input_size(card: Model) -> str:
    """Return the size of the model's input in pixels."""
    return f"{card.input.width} × {card.input.height} px"
