"""Accuracy of models against what they cost, as points on a chart."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from visavis.evaluation.choice import dominated_by, worth_of
from visavis.evaluation.figures import ModelStudy, TaskStudy
from visavis.evaluation.statistics import Estimate
from visavis.evaluation.words import METRIC_NAMES

_SIZE: Final = (640.0, 300.0)
_MARGINS: Final = (56.0, 20.0, 16.0, 44.0)  # left, right, top, bottom
_NAME_SIZE: Final = (8.0, 14.0)  # of a letter, at most
# From a point to the base line of its name: above it, below it, further away.
_NAME_OFFSETS: Final = (-8.0, 18.0, -23.0, 33.0, -38.0, 48.0)


@dataclass(frozen=True, slots=True)
class Point:
    """A model, in the chart's pixels."""

    x: float
    y: float
    low_y: float
    high_y: float
    name: str
    dominated: bool
    name_y: float = 0.0

    @property
    def name_is_right(self) -> bool:
        """True if the name stands at the point's right: on the left half, where it has room."""
        return self.x < 400

    @property
    def text(self) -> str:
        """The name as it is drawn."""
        return f"{self.name} (dominated)" if self.dominated else self.name

    @property
    def name_x(self) -> float:
        """Where the name begins, or ends if it stands at the point's left."""
        return self.x + 9 if self.name_is_right else self.x - 9


@dataclass(frozen=True, slots=True)
class Chart:
    """Accuracy, or agreement, against a cost; ticks: position and text.

    frontier: the corners of the line through the models that no other beats.
    """

    metric: str
    cost: str
    points: tuple[Point, ...]
    frontier: tuple[tuple[float, float], ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    width: float = _SIZE[0]
    height: float = _SIZE[1]


_COSTS: Final[dict[str, Callable[[ModelStudy], float | None]]] = {
    "latency, p50 in ms": lambda one: one.latency.p50 if one.latency else None,
    "memory in MiB": lambda one: (
        one.cost.memory_bytes / (1 << 20) if one.cost and one.cost.memory_bytes else None
    ),
}


def charts(task: TaskStudy) -> list[Chart]:
    """Return a chart for each cost that is known of two models."""
    found = []
    for name, cost in _COSTS.items():
        known = [
            (one, worth, at)
            for one in task.models
            if (worth := worth_of(one, task)) is not None and (at := cost(one)) is not None
        ]
        if len(known) >= 2:
            found.append(_chart(task, name, known))
    return found


def _chart(task: TaskStudy, cost: str, known: list[tuple[ModelStudy, Estimate, float]]) -> Chart:
    left, right, top, bottom = _MARGINS
    most = 1.1 * max(at for _, _, at in known) or 1.0
    low = max(0.0, min(worth.low for _, worth, _ in known) - 0.02)
    high = min(1.0, max(worth.high for _, worth, _ in known) + 0.02)

    def x(at: float) -> float:
        return left + (_SIZE[0] - left - right) * at / most

    def y(value: float) -> float:
        return top + (_SIZE[1] - top - bottom) * (high - value) / (high - low)

    points = _with_names(
        Point(
            x(at),
            y(worth.value),
            y(max(low, worth.low)),
            y(min(high, worth.high)),
            one.card.name,
            bool(dominated_by(one, task)),
        )
        for one, worth, at in known
    )
    best = [(at, worth.value) for _, worth, at in known]
    return Chart(
        _metric(task),
        cost,
        points,
        tuple((x(at), y(value)) for at, value in _frontier(best)),
        tuple((x(at), text) for at, text in ticks(0.0, most)),
        tuple((y(value), text) for value, text in ticks(low, high)),
    )


def _with_names(points: Iterable[Point]) -> tuple[Point, ...]:
    """Return points with a height for each name, such that none covers another."""
    taken: list[tuple[float, float, float]] = []
    placed = []
    for point in points:
        width = _NAME_SIZE[0] * len(point.text)
        start = point.name_x if point.name_is_right else point.name_x - width
        free = (
            point.y + offset
            for offset in _NAME_OFFSETS
            if all(
                abs(point.y + offset - y) >= _NAME_SIZE[1] or start + width < left or right < start
                for left, right, y in taken
            )
        )
        name_y = next(free, point.y + _NAME_OFFSETS[0])
        taken.append((start, start + width, name_y))
        placed.append(replace(point, name_y=name_y))
    return tuple(placed)


def ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return three to seven round numbers in a range, with their texts."""
    rough = (high - low) / 4
    power = math.floor(math.log10(rough))
    step = next(k for k in (1, 2, 2.5, 5, 10) if k * 10**power >= rough) * 10**power
    decimals = max(0, -power + (step / 10**power == 2.5))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(k * step, f"{k * step:.{decimals}f}") for k in range(first, last + 1)]


def _frontier(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the steps of the best value at each cost, cheapest first."""
    steps: list[tuple[float, float]] = []
    for at, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not steps or value > steps[-1][1]:
            if steps:
                steps.append((at, steps[-1][1]))
            steps.append((at, value))
    return steps


def _metric(task: TaskStudy) -> str:
    if any(one.map50_95 for one in task.models):
        return METRIC_NAMES["map50_95"]
    return METRIC_NAMES["top1" if any(one.top1 for one in task.models) else "agreement"]
