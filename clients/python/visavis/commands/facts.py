"""The facts on a card as text."""

from visavis.cards import Model
from visavis.commands.console import plain

UNKNOWN = "unknown"


def version(card: Model) -> str:
    """Return a card's version, with all versions if there are several: 1 (available: 1, 7)."""
    if len(card.versions) < 2:
        return str(card.version)
    return f"{card.version} (available: {', '.join(map(str, card.versions))})"


def parameters(count: int) -> str:
    """Return the number of parameters in short form: 25.6 M."""
    if count <= 0:
        return UNKNOWN
    if count < 100_000:
        return f"{count / 1e3:.1f} k"
    return f"{count / 1e6:.1f} M"


def tasks(card: Model) -> str:
    """Return the tasks of a model."""
    return ", ".join(card.tasks) or "none"


def yes_or_no(value: bool | None) -> str:
    """Return yes, no or unknown."""
    return UNKNOWN if value is None else "yes" if value else "no"


def known(text: str) -> str:
    """Return a text from a card, or unknown if it is empty."""
    return plain(text) or UNKNOWN


def label_set(card: Model) -> str:
    """Return the name and the size of the label set."""
    return f"{known(card.label_set.name)} ({card.label_set.size})"


def input_size(card: Model) -> str:
    """Return the size of the model's input in pixels."""
    return f"{card.input.width} × {card.input.height} px"
