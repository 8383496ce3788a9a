"""One model's answers about all pictures, for both tasks."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from visavis.cards import Model
from visavis.evaluation.answers import ModelRun, PictureAnswers
from visavis.evaluation.boxes import Boxes
from visavis.evaluation.figures import Cost, Latency, ModelStudy, Spread
from visavis.evaluation.statistics import Floats

_DEFAULT_THRESHOLD: Final = 0.25


def runs_of(model: Model, answers: Sequence[PictureAnswers]) -> dict[str, ModelRun]:
    """Return a model's answers by path, without those that failed."""
    runs = {one.path: one.runs.get(model.name) for one in answers}
    return {path: run for path, run in runs.items() if run is not None and not run.failure}


def study_of(
    model: Model,
    answers: Sequence[PictureAnswers],
    costs: Mapping[str, Cost],
    accuracy: Mapping[str, Any],
) -> ModelStudy:
    """Return a model's figures. accuracy: those that depend on the truth."""
    runs = runs_of(model, answers)
    failures = [one.runs[model.name].failure for one in answers if model.name in one.runs]
    return ModelStudy(
        model,
        len(runs),
        len(answers) - len(runs),
        _latency(list(runs.values())),
        cost=costs.get(model.name),
        why=next(filter(None, failures), ""),
        **accuracy,
    )


def shown_boxes(model: Model, run: ModelRun) -> Boxes:
    """Return the boxes that a user of the model sees: those above its own threshold."""
    boxes = Boxes.of(run.boxes)
    return boxes.where(boxes.scores >= threshold(model))


def threshold(model: Model) -> float:
    """Return a detector's own score threshold."""
    defaults = model.detection_defaults
    return defaults.score_threshold if defaults else _DEFAULT_THRESHOLD


def _latency(runs: Sequence[ModelRun]) -> Latency | None:
    timed = [run.stages_ms for run in runs if run.stages_ms]
    if not timed:
        return None
    stages = {name: np.array([one.get(name, 0.0) for one in timed]) for name in timed[0]}
    whole = _spread(np.sum(list(stages.values()), axis=0))
    return Latency(
        whole.p50, whole.p95, whole.p99, {name: _spread(ms) for name, ms in stages.items()}
    )


def _spread(ms: Floats) -> Spread:
    return Spread(*(float(x) for x in np.percentile(ms, (50, 95, 99))))
