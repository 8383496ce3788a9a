"""The rows of the table that compares models: what people compare first, then what cards add."""

from collections.abc import Mapping
from typing import Final

from visavis.cards import Model

MISSING: Final = "—"
"""A fact that is not known, or does not apply."""

COMPARED: Final = 9
"""The rows that every table of models has; those after them are what our cards add."""


def fact_rows(card: Model) -> Mapping[str, str]:
    """Return a model's facts by row, in the order of the table; text from the card is untrusted."""
    facts = card.facts
    window = facts.context_window
    return {
        "organization": facts.organization or MISSING,
        "category": facts.category or MISSING,
        "modality": facts.modality or MISSING,
        "release date": facts.release_date or MISSING,
        "context window": MISSING if window is None else f"{window:,} tokens",
        "parameters": parameters(facts.parameter_count),
        "licence": facts.code_license or MISSING,
        "vision tasks": ", ".join(card.tasks) or MISSING,
        "real-time vision": yes_or_no(facts.real_time),
        "architecture": facts.architecture or MISSING,
        "licence, weights": facts.weights_license or MISSING,
        "labels": f"{card.label_set.name or MISSING} ({card.label_set.size})",
        "input": f"{card.input.width} × {card.input.height} px",
        "accuracy": _accuracy(card),
    }


def parameters(count: int) -> str:
    """Return the number of parameters in short form: 25.6 M."""
    if count <= 0:
        return MISSING
    if count < 100_000:
        return f"{count / 1e3:.1f} k"
    return f"{count / 1e6:.1f} M"


def yes_or_no(value: bool | None) -> str:
    """Return yes, no or the dash for an unknown fact."""
    return MISSING if value is None else "yes" if value else "no"


def _accuracy(card: Model) -> str:
    measured = card.accuracy
    return f"{measured.metric} {measured.value:.1%}" if measured else MISSING
