"""A confusion matrix as a table that can be read, of the classes that are confused most."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from visavis.evaluation.figures import NOTHING, ModelStudy
from visavis.evaluation.tables import Cell, Pictures

MOST_CLASSES: Final = 16
_SHADES: Final = 8


@dataclass(frozen=True, slots=True)
class HeatCell:
    """A cell; shade: from 0, nothing, to 8, the most of all mistakes."""

    cell: Cell
    shade: int
    right: bool


@dataclass(frozen=True)
class Heat:
    """A model's matrix: truths are rows, answers columns. left_out: classes that are not shown."""

    model: str
    classes: list[str]
    rows: list[tuple[str, list[HeatCell]]]
    left_out: int


def heat(one: ModelStudy) -> Heat | None:
    """Return the part of a model's matrix where it errs most; None if it never does."""
    mistakes: Counter[str] = Counter()
    for pair, count in one.matrix.items():
        if pair[0] != pair[1]:
            for name in {*pair} - {NOTHING}:
                mistakes[name] += count * (NOTHING not in pair)
    if not any(truth != answer for truth, answer in one.matrix):
        return None
    wrong = [name for name in mistakes if mistakes[name] or _nothing(one, name)]
    ranked = sorted(wrong, key=lambda name: (-mistakes[name], -_nothing(one, name), name))
    classes = sorted(ranked[:MOST_CLASSES])
    if any(NOTHING in pair for pair in one.matrix):
        classes.append(NOTHING)
    most = max(
        (n for pair, n in one.matrix.items() if pair[0] != pair[1] and {*pair} <= {*classes}),
        default=1,
    )
    rows = [(truth, [_cell(one, truth, answer, most) for answer in classes]) for truth in classes]
    return Heat(one.card.name, classes, rows, max(0, len(ranked) - MOST_CLASSES))


def _nothing(one: ModelStudy, name: str) -> int:
    return one.matrix.get((name, NOTHING), 0) + one.matrix.get((NOTHING, name), 0)


def _cell(one: ModelStudy, truth: str, answer: str, most: int) -> HeatCell:
    count = one.matrix.get((truth, answer), 0)
    right = truth == answer
    if not count or right:
        return HeatCell(Cell(str(count) if count else ""), 0, right)
    shade = max(1, round(_SHADES * (count / most) ** 0.5))
    pictures = Pictures(one.card.name, truth=truth, answer=answer)
    return HeatCell(Cell(str(count), pictures), shade, right)
