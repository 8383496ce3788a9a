"""The facts on a card as text."""

from visavis.cards import Model
from visavis.commands.console import plain
from visavis.fact_rows import MISSING


def version(card: Model) -> str:
    """Return a card's version, with all versions if there are several: 1 (available: 1, 7)."""
    if len(card.versions) < 2:
        return str(card.version)
    return f"{card.version} (available: {', '.join(map(str, card.versions))})"


def known(text: str) -> str:
    """Return a text from a card, or a dash if it is empty."""
    return plain(text) or MISSING


def label_set(card: Model) -> str:
    """Return the name and the size of the label set."""
    return f"{known(card.label_set.name)} ({card.label_set.size})"


def input_size(card: Model) -> str:
    """Return the size of the model's input in pixels."""
    return f"{card.input.width} × {card.input.height} px"
