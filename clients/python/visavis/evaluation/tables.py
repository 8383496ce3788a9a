"""A study as tables of texts; cells know which pictures they are about."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from visavis.evaluation.choice import dominated_by
from visavis.evaluation.error_types import KINDS
from visavis.evaluation.figures import ModelStudy, Slice, TaskStudy
from visavis.evaluation.statistics import Estimate
from visavis.evaluation.words import DIMENSIONS, METRIC_NAMES, interval, mebibytes, points

COLUMNS = ("top1", "top5", "map50_95", "map50")
"""Accuracies of models, in this order."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures that a figure is about: those of which all of these are true.

    kind: of a fact. about: a class, in the truth or in the answer. part: the number of a slice.
    """

    model: str = ""
    kind: str = ""
    about: str = ""
    truth: str = ""
    answer: str = ""
    part: int | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """A text of a table; order: a number to sort by, where the text does not start with one."""

    text: str
    pictures: Pictures | None = None
    order: float | None = None


@dataclass(frozen=True)
class Table:
    """A heading, and rows of as many cells as the header has; no rows where nothing is known."""

    heading: str
    header: list[str]
    rows: list[list[Cell]]

    @property
    def texts(self) -> list[list[str]]:
        """The rows as texts."""
        return [[cell.text for cell in row] for row in self.rows]


def models_table(task: TaskStudy) -> Table:
    """Return accuracy and cost of each model."""
    shown = [name for name in COLUMNS if any(getattr(one, name) for one in task.models)]
    costs = any(one.cost for one in task.models)
    dominated = {one.card.name: dominated_by(one, task) for one in task.models}
    header = ["model", "runs as", *(METRIC_NAMES[name] for name in shown), "p50 ms", "p99 ms"]
    header += ["pictures/s", "CPU ms", "memory"] if costs else []
    header += ["dominated by"] if any(dominated.values()) else []
    rows = []
    for one in task.models:
        provider = one.card.execution_provider.removesuffix("ExecutionProvider")
        timed = one.latency
        failed = f" ({one.failures} failed)" if one.failures else ""
        row = [
            Cell(one.card.name + failed, Pictures(one.card.name)),
            Cell(f"{one.card.precision}, {provider}"),
            *(Cell(interval(getattr(one, name))) for name in shown),
            *(Cell(f"{ms:.1f}") for ms in ((timed.p50, timed.p99) if timed else ())),
            *([Cell("")] * (0 if timed else 2)),
        ]
        row += _cost(one) if costs else []
        if any(dominated.values()):
            row.append(Cell(", ".join(dominated[one.card.name])))
        rows.append(row)
    return Table("", header, rows)


def _cost(one: ModelStudy) -> list[Cell]:
    if one.cost is None:
        return [Cell("")] * 3
    memory = one.cost.memory_bytes
    return [
        Cell(f"{one.cost.pictures_per_s:.1f}"),
        Cell("" if one.cost.cpu_ms is None else f"{one.cost.cpu_ms:.1f}"),
        Cell("" if memory is None else mebibytes(memory)),
    ]


def pairs_table(task: TaskStudy) -> Table:
    """Return each model against the baseline."""
    header = ["model", "against", "agreement"]
    known = any(pair.difference for pair in task.pairs)
    tested = any(pair.metric == "top1" for pair in task.pairs)
    if known:
        header += ["difference", "fixed", "broke", *(["p"] if tested else []), "verdict"]
    rows = []
    for pair in task.pairs:
        row = [
            Cell(pair.model, Pictures(pair.model)),
            Cell(pair.baseline),
            Cell(interval(pair.agreement)),
        ]
        if known:
            changed = pair.changes
            row += [
                Cell(points(pair.difference) if pair.difference else ""),
                Cell(str(changed.fixed), Pictures(pair.model, "fixed")) if changed else Cell(""),
                Cell(str(changed.broke), Pictures(pair.model, "broke")) if changed else Cell(""),
            ]
            row += [Cell(f"{changed.p_value:.3g}" if changed else "")] if tested else []
            row.append(Cell(pair.verdict.value if pair.verdict else ""))
        rows.append(row)
    return Table("Against the baseline", header, rows)


def thresholds_table(task: TaskStudy) -> Table:
    """Return detectors at score thresholds; no rows without truth."""
    header = ["model", "threshold", "precision", "recall", "F1", "suggested", "its F1"]
    header.append("recall at equal precision")
    rows = []
    for one in task.models:
        at, best, equal = one.operating, one.suggested, one.equal_precision
        if at is not None and best is not None:
            texts = [
                f"{at.threshold:g}",
                *(f"{figure:.3f}" for figure in (at.precision, at.recall, at.f1)),
                f"{best.threshold:.3f}",
                f"{best.f1:.3f}",
                f"{equal.recall:.3f}" if equal else "",
            ]
            rows.append([Cell(one.card.name, Pictures(one.card.name)), *map(Cell, texts)])
    return Table("At a score threshold", header, rows)


def errors_table(task: TaskStudy) -> Table:
    """Return why detectors' boxes are wrong; no rows without truth."""
    rows = [
        [
            Cell(one.card.name, Pictures(one.card.name)),
            *(
                Cell(f"{error.count} ({100 * error.lost:.1f})", Pictures(one.card.name, kind))
                for kind, error in one.errors.items()
            ),
        ]
        for one in task.models
        if one.errors
    ]
    heading = "Errors by kind, with the points of mAP50 that each costs"
    return Table(heading, ["model", *KINDS], rows)


def stages_table(task: TaskStudy) -> Table:
    """Return where each model's time goes; no rows where no model was timed."""
    timed = [one for one in task.models if one.latency]
    stages = list(timed[0].latency.stages) if timed and timed[0].latency else []
    rows = []
    for one in timed:
        assert one.latency is not None
        spreads = [one.latency.stages.get(stage) for stage in stages]
        texts = [
            f"{each.p50:.1f} / {each.p95:.1f} / {each.p99:.1f}" if each else "" for each in spreads
        ]
        rows.append([Cell(one.card.name), *map(Cell, texts)])
    header = ["model", *(stage.removesuffix("_ms") for stage in stages)]
    return Table("Milliseconds of each stage: p50 / p95 / p99", header, rows)


def slice_tables(task: TaskStudy) -> Iterator[Table]:
    """Yield a table for each dimension by which the pictures are told apart."""
    models = [one.card.name for one in task.models]
    others = [pair.model for pair in task.pairs]
    for dimension, heading in DIMENSIONS.items():
        own = [(k, one) for k, one in enumerate(task.slices) if one.dimension == dimension]
        if not own:
            continue
        metric = own[0][1].metric
        shown = [name for name in models if any(name in one.figures for _, one in own)]
        compared = [name for name in others if any(name in one.differences for _, one in own)]
        header = [dimension, "pictures", *shown, *(f"{name}, difference" for name in compared)]
        rows = [_slice(number, one, shown, compared) for number, one in own]
        yield Table(f"{heading}: {_metric(dimension, metric)}", header, rows)


def _metric(dimension: str, metric: str) -> str:
    name = METRIC_NAMES[metric]
    return name.removeprefix("m") if dimension == "class" and metric == "map50_95" else name


def _slice(number: int, one: Slice, shown: Sequence[str], compared: Sequence[str]) -> list[Cell]:
    few = ", few" if one.few else ""

    def pictures(model: str) -> Pictures:
        if one.dimension == "class":
            return Pictures(model, about=one.name)
        return Pictures(model, part=number)

    return [
        Cell(one.name, pictures("")),
        Cell(f"{len(one.paths)}{few}"),
        *(Cell(interval(one.figures.get(name)), pictures(name)) for name in shown),
        *(_difference(one.differences.get(name), pictures(name)) for name in compared),
    ]


def _difference(difference: Estimate | None, pictures: Pictures) -> Cell:
    if difference is None or math.isnan(difference.value):
        return Cell("")
    text = f"{points(difference)} {difference.verdict.value}"
    return Cell(text, pictures, difference.value)
