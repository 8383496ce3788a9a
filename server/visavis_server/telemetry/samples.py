"""Metrics as plain samples, which processes exchange and add up.

A worker sends its samples as JSON; the supervisor adds those of all workers. This module imports
little: the supervisor is small.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Labels = tuple[tuple[str, str], ...]
"""Names and values of labels, in their order."""

Samples = dict[tuple[str, Labels], float]
"""Values by the name and the labels of each sample."""

WORKER: Final = "worker"
"""The label that tells workers apart."""

_ADDING_UP: Final = ("counter", "histogram")


@dataclass(frozen=True, slots=True)
class Family:
    """The samples of one metric.

    kind: as Prometheus names it. samples: values by the name and the labels of each sample.
    combined: how the samples of several workers become one: "sum", "max", or "each", which keeps
    them apart by the label `worker`.
    """

    name: str
    kind: str
    help: str
    combined: str = "sum"
    samples: Samples = field(default_factory=dict)

    def to_json(self) -> list[Any]:
        """Return the family in a form that JSON can hold."""
        rows = [[name, labels, value] for (name, labels), value in self.samples.items()]
        return [self.name, self.kind, self.help, self.combined, rows]

    @classmethod
    def from_json(cls, data: list[Any]) -> "Family":
        """Return a family from its form in JSON."""
        name, kind, about, combined, rows = data
        samples = {
            (sample, tuple((key, text) for key, text in labels)): value
            for sample, labels, value in rows
        }
        return cls(name, kind, about, combined, samples)


def combined(
    by_worker: Mapping[int, Iterable[Family]], ended: Iterable[Family] = ()
) -> list[Family]:
    """Return the metrics of all workers together.

    ended: what workers had counted that have ended since, from `counts`: without it, counters
    would fall when a worker ends.
    """
    families: dict[str, Family] = {}
    for worker, own in by_worker.items():
        for family in own:
            _add(families, family, str(worker))
    for family in ended:
        _add(families, family, None)
    return list(families.values())


def counts(families: Iterable[Family], worker: int, before: Iterable[Family] = ()) -> list[Family]:
    """Return what a worker has counted, added to what others had before."""
    total: dict[str, Family] = {}
    for family in before:
        _add(total, family, None)
    for family in families:
        if family.kind in _ADDING_UP:
            _add(total, family, str(worker))
    return list(total.values())


def _add(families: dict[str, Family], more: Family, worker: str | None) -> None:
    """Add a family's samples; worker: the label for those that are kept apart; None: they have it.

    A plain dict per family, since a scrape adds up thousands of samples.
    """
    known = families.get(more.name)
    if known is None:
        known = Family(more.name, more.kind, more.help, more.combined)
        families[more.name] = known
    samples = known.samples
    for (name, labels), value in more.samples.items():
        if more.combined == "each" and worker is not None:
            labels = (*labels, (WORKER, worker))
        key = name, labels
        if more.combined == "max" or more.kind == "info":
            samples[key] = max(value, samples.get(key, value))
        else:
            samples[key] = samples.get(key, 0.0) + value
