"""A study as JSON, CSV and Markdown, and as sentences."""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from visavis.cards import Task
from visavis.evaluation.choice import accuracy_of, dominated
from visavis.evaluation.error_types import KINDS
from visavis.evaluation.gate import Check
from visavis.evaluation.operating import OperatingPoint
from visavis.evaluation.statistics import Estimate, Verdict
from visavis.evaluation.study import ModelStudy, Pair, Study, TaskStudy

SCHEMA_VERSION: Final = 1
METRIC_NAMES: Final = {
    "top1": "top-1",
    "top5": "top-5",
    "map50_95": "mAP50-95",
    "map50": "mAP50",
    "agreement": "agreement",
}
_COLUMNS: Final = ("top1", "top5", "map50_95", "map50")
# A difference of latency below this factor is not worth a sentence.
_NOTABLE: Final = 1.05


def to_json(study: Study, checks: Sequence[Check] = ()) -> dict[str, Any]:
    """Return a study as JSON's values; see docs/compare.schema.json."""
    return {
        "schema_version": SCHEMA_VERSION,
        "pictures": study.pictures,
        "failures": dict(study.failures),
        "verdict": list(verdicts(study)),
        "models": [_model(task, model) for task in study.tasks for model in task.models],
        "pairs": [_pair(pair) for task in study.tasks for pair in task.pairs],
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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    spread = [f"{name}{end}" for name in _COLUMNS for end in ("", "_low", "_high")]
    writer.writerow(
        [
            *("model", "version", "precision", "provider", "task", "pictures"),
            *(*spread, "p50_ms", "p95_ms", "p99_ms"),
        ]
    )
    for task in study.tasks:
        for one in task.models:
            card = one.card
            row: list[Any] = [card.name, card.version, card.precision, card.execution_provider]
            row += [task.task.value, one.pictures]
            for name in _COLUMNS:
                estimate: Estimate | None = getattr(one, name)
                row += [estimate.value, estimate.low, estimate.high] if estimate else ["", "", ""]
            timed = one.latency
            row += [timed.p50, timed.p95, timed.p99] if timed else ["", "", ""]
            writer.writerow([f"{x:.6g}" if isinstance(x, float) else x for x in row])
    return text.getvalue()


def to_markdown(study: Study, checks: Sequence[Check] = ()) -> str:
    """Return the verdict and the tables as Markdown, for a pull request or a job summary."""
    lines = [f"**{line}**  " for line in verdicts(study)]
    for task in study.tasks:
        lines += ["", f"### {task.task.value.capitalize()}", ""]
        header, rows = table(task)
        lines += _markdown_table(header, rows)
        for header, rows in (pairs_table(task), thresholds_table(task), errors_table(task)):
            if rows:
                lines += ["", *_markdown_table(header, rows)]
    if checks:
        rows = [[c.outcome.value, c.model, c.why] for c in checks]
        lines += ["", "### Limits", "", *_markdown_table(["outcome", "model", "why"], rows)]
    return "\n".join(lines).strip() + "\n"


def table(task: TaskStudy) -> tuple[list[str], list[list[str]]]:
    """Return the models of a task as a table of texts: its header and its rows."""
    shown = [name for name in _COLUMNS if any(getattr(one, name) for one in task.models)]
    header = ["model", "runs as", *(METRIC_NAMES[name] for name in shown), "p50 ms", "p99 ms"]
    rows = []
    for one in task.models:
        provider = one.card.execution_provider.removesuffix("ExecutionProvider")
        timed = one.latency
        rows.append(
            [
                one.card.name + (f" ({one.failures} failed)" if one.failures else ""),
                f"{one.card.precision}, {provider}",
                *(interval(getattr(one, name)) for name in shown),
                *(f"{ms:.1f}" for ms in ((timed.p50, timed.p99) if timed else ())),
            ]
        )
    return header, rows


def pairs_table(task: TaskStudy) -> tuple[list[str], list[list[str]]]:
    """Return each model against the baseline as a table of texts."""
    header = ["model", "against", "agreement"]
    known = any(pair.difference for pair in task.pairs)
    if known:
        header += ["difference", "fixed", "broke", "p", "verdict"]
    rows = []
    for pair in task.pairs:
        row = [pair.model, pair.baseline, interval(pair.agreement)]
        if known:
            changed = pair.changes
            row += [
                points(pair.difference) if pair.difference else "",
                str(changed.fixed) if changed else "",
                str(changed.broke) if changed else "",
                f"{changed.p_value:.3g}" if changed and pair.metric == "top1" else "",
                pair.verdict.value if pair.verdict else "",
            ]
        rows.append(row)
    return header, rows


def thresholds_table(task: TaskStudy) -> tuple[list[str], list[list[str]]]:
    """Return detectors at score thresholds as a table of texts; no rows without truth."""
    header = ["model", "threshold", "precision", "recall", "F1", "suggested", "its F1"]
    header.append("recall at equal precision")
    rows = []
    for one in task.models:
        at, best, equal = one.operating, one.suggested, one.equal_precision
        if at is not None and best is not None:
            rows.append(
                [
                    one.card.name,
                    f"{at.threshold:g}",
                    *(f"{figure:.3f}" for figure in (at.precision, at.recall, at.f1)),
                    f"{best.threshold:.3f}",
                    f"{best.f1:.3f}",
                    f"{equal.recall:.3f}" if equal else "",
                ]
            )
    return header, rows


def errors_table(task: TaskStudy) -> tuple[list[str], list[list[str]]]:
    """Return why detectors' boxes are wrong as a table of texts; no rows without truth."""
    rows = [
        [
            one.card.name,
            *(f"{error.count} ({100 * error.lost:.1f})" for error in one.errors.values()),
        ]
        for one in task.models
        if one.errors
    ]
    return ["model", *KINDS], rows


def verdicts(study: Study) -> Iterator[str]:
    """Yield a sentence for each model against its baseline."""
    for task in study.tasks:
        models = {one.card.name: one for one in task.models}
        for pair in task.pairs:
            speed = _speed(models[pair.model], models[pair.baseline])
            yield f"{pair.model} {speed}{_accuracy(pair, task)}."


def _speed(model: ModelStudy, baseline: ModelStudy) -> str:
    if not (model.latency and baseline.latency and model.latency.p50):
        return ""
    factor = baseline.latency.p50 / model.latency.p50
    if factor >= _NOTABLE:
        return f"is {factor:.2f} times as fast as {baseline.card.name} and "
    if factor <= 1 / _NOTABLE:
        return f"takes {1 / factor:.2f} times as long as {baseline.card.name} and "
    return f"is as fast as {baseline.card.name} and "


def _accuracy(pair: Pair, task: TaskStudy) -> str:
    if pair.difference is None:
        share = 100 * pair.agreement.value
        classifies = task.task is Task.CLASSIFICATION
        same = "names the same class" if classifies else "finds the same boxes"
        return f"{same} in {share:.1f} % (no truth: accuracy is unknown)"
    name, size = METRIC_NAMES[pair.metric], abs(100 * pair.difference.value)
    on = f"on {task.labelled} pictures"
    if pair.verdict is Verdict.CANNOT_TELL:
        moved = "gains" if pair.difference.value > 0 else "loses"
        if size < 0.05:
            return f"has the same {name} {on}, as far as they can tell"
        return f"{moved} {size:.1f} points of {name} {on}, which are too few to confirm it"
    return f"{'gains' if pair.difference.value > 0 else 'loses'} {size:.1f} points of {name} {on}"


def interval(estimate: Estimate | None) -> str:
    """Return a share as `0.784 (0.72-0.84)`; empty for none."""
    if estimate is None or math.isnan(estimate.value):
        return ""
    return f"{estimate.value:.3f} ({estimate.low:.2f}-{estimate.high:.2f})"


def points(estimate: Estimate) -> str:
    """Return a difference in points, with its interval: `-0.4 (-1.9 to +1.1)`."""
    value, low, high = (100 * x for x in (estimate.value, estimate.low, estimate.high))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


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
    fields |= {name: _estimate(getattr(one, name)) for name in _COLUMNS if getattr(one, name)}
    for name in ("operating", "suggested", "equal_precision"):
        point: OperatingPoint | None = getattr(one, name)
        if point is not None:
            fields[name] = {
                "threshold": point.threshold,
                "precision": point.precision,
                "recall": point.recall,
                "f1": point.f1,
            }
    if one.latency and accuracy_of(one, task.task):
        fields["dominated"] = dominated(one, task)
    if one.confusions:
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
    if one.latency:
        stages = {name.removesuffix("_ms"): ms for name, ms in one.latency.stages_p50.items()}
        fields["latency_ms"] = {
            "p50": one.latency.p50,
            "p95": one.latency.p95,
            "p99": one.latency.p99,
            "stages_p50": stages,
        }
    return fields


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
    }
    if pair.difference is not None and pair.changes is not None:
        fields |= {
            "metric": pair.metric,
            "fixed": pair.changes.fixed,
            "broke": pair.changes.broke,
            **_numbers(
                {
                    "difference": pair.difference.value,
                    "low": pair.difference.low,
                    "high": pair.difference.high,
                }
            ),
            "verdict": str(pair.verdict),
        }
        if pair.metric == "top1":
            fields["p_value"] = pair.changes.p_value
    return fields


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    return _numbers({"value": estimate.value, "low": estimate.low, "high": estimate.high})


def _numbers(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Return figures without NaN and infinities, which JSON does not have."""
    return {name: x if math.isfinite(x) else None for name, x in figures.items()}


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(header), line(["---"] * len(header)), *map(line, rows)]
