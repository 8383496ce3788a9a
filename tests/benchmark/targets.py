"""What a target is, and what measuring it gives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .site import Site


@dataclass(frozen=True)
class Target:
    """One row of the table. reached: whether a figure is good enough."""

    row: str
    text: str
    reached: Callable[[float], bool]


@dataclass(frozen=True)
class Result:
    """What was measured. figure: what the target is about. text: the figure and its context."""

    figure: float
    text: str


@dataclass(frozen=True)
class Measurement:
    """What is measured in one go; `measure` gives a result for each of the targets.

    It raises NotRun where it can't be measured here.
    """

    name: str
    targets: tuple[Target, ...]
    measure: Callable[[Site], Sequence[Result]]


def at_least(row: str, figure: float, text: str = "") -> Target:
    """Return a target that a figure reaches from below."""
    return Target(row, text or f"at least {figure:g}", lambda measured: measured >= figure)


def at_most(row: str, figure: float, text: str = "") -> Target:
    """Return a target that a figure must not exceed."""
    return Target(row, text or f"at most {figure:g}", lambda measured: measured <= figure)
