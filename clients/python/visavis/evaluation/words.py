"""A study in sentences, and its numbers as text."""

import math
from collections.abc import Iterator
from typing import Final

from visavis.agreement import left_out
from visavis.cards import Task
from visavis.evaluation.figures import ModelStudy, Pair, Study, TaskStudy, chance
from visavis.evaluation.statistics import Estimate, Verdict

METRIC_NAMES: Final = {
    "top1": "top-1",
    "top5": "top-5",
    "map50_95": "mAP50-95",
    "map50": "mAP50",
    "agreement": "agreement",
}
DIMENSIONS: Final = {
    "class": "Class",
    "size": "Size of the object",
    "folder": "Folder",
    "brightness": "Brightness",
    "shape": "Shape of the picture",
}
# A difference of latency below this factor is not worth a sentence.
_NOTABLE: Final = 1.05


def counted_pictures(count: int) -> str:
    """Return `1 picture` or `3 pictures`."""
    return f"{count} picture" if count == 1 else f"{count} pictures"


def verdicts(study: Study) -> Iterator[str]:
    """Yield a sentence for each model against its baseline."""
    for task in study.tasks:
        models = {one.card.name: one for one in task.models}
        for pair in task.pairs:
            speed = _speed(models[pair.model], models[pair.baseline])
            yield f"{pair.model} {speed}{_accuracy(pair, task)}."


def chance_sentence(task: TaskStudy) -> str:
    """Return how far the differences of slices can be believed; empty without any."""
    all_ = chance(task)
    if not all_.tested:
        return ""
    were = "differences by slice were" if all_.tested > 1 else "difference by slice was"
    exclude = "interval excludes" if all_.told == 1 else "intervals exclude"
    return (
        f"{all_.tested} {were} tested: {all_.told} {exclude} zero, and up to "
        f"{all_.by_chance:.1f} would by chance alone if the models were equal."
    )


def unknown_sentences(task: TaskStudy) -> Iterator[str]:
    """Yield a sentence for each model whose agreement leaves answers out."""
    for pair in task.pairs:
        if pair.unknown_here or pair.unknown_in_baseline:
            left = left_out(pair.baseline, pair.unknown_here, pair.unknown_in_baseline)
            yield f"{pair.model}: {left}"


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
    on = f"on {counted_pictures(task.labelled)}"
    if pair.verdict is Verdict.CANNOT_TELL:
        moved = "gains" if pair.difference.value > 0 else "loses"
        if size < 0.05:
            return f"has the same {name} {on}, too few to exclude a difference"
        return f"{moved} {size:.1f} points of {name} {on}, too few to confirm it"
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


def mebibytes(count: int) -> str:
    """Return bytes as `312 MiB`."""
    return f"{count / (1 << 20):.0f} MiB"
