"""A study as JSON, CSV and Markdown."""

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from visavis.evaluation.choice import dominated_by, worth_of
from visavis.evaluation.figures import ModelStudy, Pair, Slice, Spread, Study, TaskStudy, chance
from visavis.evaluation.gate import Check
from visavis.evaluation.operating import OperatingPoint
from visavis.evaluation.statistics import Estimate, Verdict
from visavis.evaluation.tables import (
    COLUMNS,
    Table,
    errors_table,
    models_table,
    pairs_table,
    slice_tables,
    stages_table,
    thresholds_table,
)
from visavis.evaluation.words import (
    DIMENSIONS,
    chance_sentence,
    counted_pictures,
    points,
    unknown_sentences,
    verdicts,
)

SCHEMA_VERSION: Final = 1
# Classes that a summary lists, of those told from zero.
_MOST_CLASSES: Final = 20
# Spreadsheets run a cell that begins like this as a formula: labels and names are others' text.
# Some take the full-width forms, too.
_FORMULA: Final = (*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20")
# Words that are text in Markdown, whatever a label is: no tags, links, pictures or mentions.
_PLAIN: Final = re.compile(r"(?!.*(//|www\.))(\w|(?<=\w)@|[ .,:;%/()=+'-])*")


def to_json(study: Study, checks: Sequence[Check] = ()) -> dict[str, Any]:
    """Return a study as JSON's values; see docs/compare.schema.json."""
    return {
        "schema_version": SCHEMA_VERSION,
        "pictures": study.pictures,
        "failures": dict(study.failures),
        "verdict": list(verdicts(study)),
        "models": [_model(task, model) for task in study.tasks for model in task.models],
        "pairs": [_pair(pair) for task in study.tasks for pair in task.pairs],
        "slices": [_slice(task, one) for task in study.tasks for one in task.slices],
        "slice_differences": [_chance(task) for task in study.tasks],
        "suspect_labels": [
            {"picture": one.path, "truth": one.truth, "models": dict(one.answers)}
            for task in study.tasks
            for one in task.disagreements
            if one.suspect
        ],
        "checks": [
            {"model": c.model, "metric": c.metric, "outcome": c.outcome.value, "why": c.why}
            for c in checks
        ],
    }


def to_csv(study: Study) -> str:
    """Return the models as CSV, a row each."""
    spread = [f"{name}{end}" for name in COLUMNS for end in ("", "_low", "_high")]
    header = ["model", "version", "precision", "provider", "task", "pictures", *spread]
    header += ["p50_ms", "p95_ms", "p99_ms", "pictures_per_s", "cpu_ms", "memory_bytes"]
    return _csv(header, (_row(task, one) for task in study.tasks for one in task.models))


def _row(task: TaskStudy, one: ModelStudy) -> list[Any]:
    card = one.card
    row: list[Any] = [card.name, card.version, card.precision, card.execution_provider]
    row += [task.task.value, one.pictures]
    for name in COLUMNS:
        row += _ends(getattr(one, name))
    timed, cost = one.latency, one.cost
    row += [timed.p50, timed.p95, timed.p99] if timed else ["", "", ""]
    row += [cost.pictures_per_s, cost.cpu_ms, cost.memory_bytes] if cost else ["", "", ""]
    return row


def slices_to_csv(study: Study) -> str:
    """Return the slices as CSV, a row for each model on each."""
    header = ["task", "dimension", "slice", "pictures", "metric", "model"]
    header += ["value", "low", "high", "difference", "difference_low", "difference_high"]
    return _csv(
        header,
        (
            [
                *(task.task.value, one.dimension, one.name, len(one.paths), one.metric, model),
                *_ends(one.figures.get(model)),
                *_ends(one.differences.get(model)),
            ]
            for task in study.tasks
            for one in task.slices
            for model in one.figures
        ),
    )


def confusion_to_csv(study: Study) -> str:
    """Return the confusion matrices as CSV, a row for each class that was answered for each."""
    return _csv(
        ["model", "truth", "answer", "count"],
        (
            [model.card.name, truth, answer, count]
            for task in study.tasks
            for model in task.models
            for (truth, answer), count in sorted(model.matrix.items())
        ),
    )


def to_markdown(study: Study, checks: Sequence[Check] = ()) -> str:
    """Return the verdict and the tables as Markdown, for a pull request or a job summary."""
    lines = [f"**{line}**  " for line in verdicts(study)]
    for task in study.tasks:
        lines += ["", f"### {task.task.value.capitalize()}"]
        tables = (models_table, pairs_table, thresholds_table, errors_table, stages_table)
        for table in tables:
            lines += _markdown(table(task))
        lines += [line for sentence in unknown_sentences(task) for line in ("", sentence)]
        for slices in slice_tables(task):
            if not slices.heading.startswith(DIMENSIONS["class"]):
                lines += _markdown(slices)
        lines += _told_classes(task)
        if note := chance_sentence(task):
            lines += ["", note]
    if checks:
        rows = [[c.outcome.value, c.model, c.why] for c in checks]
        lines += ["", "### Limits", "", *_markdown_table(["outcome", "model", "why"], rows)]
    return "\n".join(lines).strip() + "\n"


def _told_classes(task: TaskStudy) -> Iterator[str]:
    told = [
        (one, model, difference)
        for one in task.slices
        if one.dimension == "class"
        for model, difference in one.differences.items()
        if difference.verdict is not Verdict.CANNOT_TELL
    ]
    if not told:
        return
    told.sort(key=lambda each: -abs(each[2].value))
    yield from ("", "Classes for which the interval of the difference excludes zero:", "")
    for one, model, difference in told[:_MOST_CLASSES]:
        name = _markdown_text(one.name)
        yield f"- {name}, {model}: {points(difference)} on {counted_pictures(len(one.paths))}"
    if len(told) > _MOST_CLASSES:
        yield f"- and {len(told) - _MOST_CLASSES} more"


def _model(task: TaskStudy, one: ModelStudy) -> dict[str, Any]:
    card = one.card
    fields: dict[str, Any] = {
        "model": card.name,
        "version": card.version,
        "precision": card.precision,
        "execution_provider": card.execution_provider,
        "task": task.task.value,
        "pictures": one.pictures,
        "failures": one.failures,
        "labelled": task.labelled,
    }
    fields |= {name: _estimate(getattr(one, name)) for name in COLUMNS if getattr(one, name)}
    for name in ("operating", "suggested", "equal_precision"):
        point: OperatingPoint | None = getattr(one, name)
        if point is not None:
            fields[name] = {
                "threshold": point.threshold,
                "precision": point.precision,
                "recall": point.recall,
                "f1": point.f1,
            }
    if one.latency and worth_of(one, task):
        fields["dominated_by"] = list(dominated_by(one, task))
    if one.matrix:
        fields["confusion_matrix"] = _matrix(one)
        fields["confusions"] = [
            {"truth": c.truth, "answer": c.answer, "pictures": c.pictures} for c in one.confusions
        ]
    if one.errors:
        fields["errors"] = {
            kind: {"count": error.count, "map50_lost": error.lost}
            for kind, error in one.errors.items()
        }
    if one.per_size:
        fields["map50_95_by_size"] = _numbers(one.per_size)
    if one.per_class:
        fields["ap50_95_by_class"] = _numbers(one.per_class)
    return fields | _costs(one)


def _matrix(one: ModelStudy) -> dict[str, Any]:
    """Return a matrix as its classes and its cells: [index of truth, index of answer, count]."""
    classes = sorted({name for pair in one.matrix for name in pair})
    index = {name: k for k, name in enumerate(classes)}
    cells = [[index[t], index[a], count] for (t, a), count in sorted(one.matrix.items())]
    return {"classes": classes, "cells": cells}


def _costs(one: ModelStudy) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if one.latency:
        stages = {
            name.removesuffix("_ms"): _spread(spread) for name, spread in one.latency.stages.items()
        }
        whole = Spread(one.latency.p50, one.latency.p95, one.latency.p99)
        fields["latency_ms"] = {**_spread(whole), "stages": stages}
    if one.cost:
        fields["cost"] = {
            "pictures_per_s": one.cost.pictures_per_s,
            "cpu_ms_per_picture": one.cost.cpu_ms,
            "memory_bytes": one.cost.memory_bytes,
        }
    return fields


def _spread(spread: Spread) -> dict[str, float]:
    return {"p50": spread.p50, "p95": spread.p95, "p99": spread.p99}


def _pair(pair: Pair) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "model": pair.model,
        "baseline": pair.baseline,
        **_numbers(
            {
                "agreement": pair.agreement.value,
                "agreement_low": pair.agreement.low,
                "agreement_high": pair.agreement.high,
            }
        ),
        "unknown_classes": pair.unknown,
        "unknown_here": pair.unknown_here,
        "unknown_in_baseline": pair.unknown_in_baseline,
    }
    if pair.difference is not None and pair.changes is not None:
        fields |= {
            "metric": pair.metric,
            "fixed": pair.changes.fixed,
            "broke": pair.changes.broke,
            **_difference(pair.difference),
        }
        if pair.metric == "top1":
            fields["p_value"] = pair.changes.p_value
    return fields


def _slice(task: TaskStudy, one: Slice) -> dict[str, Any]:
    return {
        "task": task.task.value,
        "dimension": one.dimension,
        "slice": one.name,
        "metric": one.metric,
        "pictures": len(one.paths),
        "few": one.few,
        "models": {name: _estimate(estimate) for name, estimate in one.figures.items()},
        "differences": {name: _difference(own) for name, own in one.differences.items()},
    }


def _chance(task: TaskStudy) -> dict[str, Any]:
    all_ = chance(task)
    return {
        "task": task.task.value,
        "tested": all_.tested,
        "told": all_.told,
        "by_chance": all_.by_chance,
        "folders_left_out": task.folders_left_out,
    }


def _difference(difference: Estimate) -> dict[str, Any]:
    ends = {"difference": difference.value, "low": difference.low, "high": difference.high}
    return {**_numbers(ends), "verdict": str(difference.verdict)}


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    return _numbers({"value": estimate.value, "low": estimate.low, "high": estimate.high})


def _ends(estimate: Estimate | None) -> list[Any]:
    return [estimate.value, estimate.low, estimate.high] if estimate else ["", "", ""]


def _numbers(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Return figures without NaN and infinities, which JSON does not have."""
    return {name: x if math.isfinite(x) else None for name, x in figures.items()}


def _csv(header: Sequence[str], rows: Iterator[list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_cell(x) for x in row])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _markdown(table: Table) -> Iterator[str]:
    if table.rows:
        if table.heading:
            yield from ("", f"#### {table.heading}")
        yield from ("", *_markdown_table(table.header, table.texts))


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(map(_markdown_text, cells)) + " |"

    return [line(header), line(["---"] * len(header)), *map(line, rows)]


def _markdown_text(text: str) -> str:
    """Return a text that Markdown shows as it is; labels and paths are others' text."""
    line = " ".join(text.split())
    if _PLAIN.fullmatch(line):
        return line
    # In code, nothing but the quote itself means anything; in a table, the bar does too.
    quoted = line.replace("`", "'").replace("|", "\\|")
    return f"`{quoted}`"
