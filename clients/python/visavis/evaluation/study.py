"""The figures of models on a folder of pictures: accuracy, agreement, differences and cost."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from visavis.cards import Model, Task
from visavis.dataset.labels import Truth
from visavis.dataset.names import ClassNames
from visavis.evaluation.accuracy import (
    SIZES,
    Booleans,
    Boxes,
    DetectionAccuracy,
    detection_accuracy,
    matched,
    top_k,
)
from visavis.evaluation.answers import ModelRun, PictureAnswers
from visavis.evaluation.error_types import ErrorKind, error_kinds
from visavis.evaluation.operating import OperatingPoint, curve
from visavis.evaluation.statistics import (
    Changes,
    Estimate,
    Floats,
    Verdict,
    changes,
    difference_of_means,
    proportion,
)

_DEFAULT_THRESHOLD: Final = 0.25


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from decoding to answer, without waiting; and the median of each stage."""

    p50: float
    p95: float
    p99: float
    stages_p50: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many pictures of one class were taken for another."""

    truth: str
    answer: str
    pictures: int


@dataclass(frozen=True)
class ModelStudy:
    """One model on all pictures; accuracies are None without truth.

    pictures: that it answered. operating: at the model's own score threshold; suggested: at the
    threshold of the highest F1; equal_precision: at the baseline's precision. confusions: the
    most frequent first. errors: by kind, of the boxes above the model's own threshold. per_class,
    per_size: AP50-95 by label, by size.
    """

    card: Model
    pictures: int
    failures: int
    latency: Latency | None
    top1: Estimate | None = None
    top5: Estimate | None = None
    map50_95: Estimate | None = None
    map50: Estimate | None = None
    operating: OperatingPoint | None = None
    suggested: OperatingPoint | None = None
    equal_precision: OperatingPoint | None = None
    confusions: tuple[Confusion, ...] = ()
    errors: Mapping[str, ErrorKind] = field(default_factory=dict)
    per_class: Mapping[str, float] = field(default_factory=dict)
    per_size: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """A model against the baseline, on the pictures that both answered.

    agreement: share of pictures with the same best class; of detectors, the mean F1 of their
    boxes. difference: of the metric, top-1 or mAP50-95; None without truth. unknown: classes
    that only one of both knows; they do not count.
    """

    model: str
    baseline: str
    agreement: Estimate
    metric: str = ""
    difference: Estimate | None = None
    changes: Changes | None = None
    unknown: int = 0

    @property
    def verdict(self) -> Verdict | None:
        """The meaning of the difference; None without truth."""
        return self.difference.verdict if self.difference else None


@dataclass(frozen=True)
class Disagreement:
    """A picture that models answer differently; suspect: all agree, and the truth differs."""

    path: str
    answers: Mapping[str, str]
    truth: str = ""
    suspect: bool = False


@dataclass(frozen=True)
class TaskStudy:
    """All models of one task. labelled: pictures whose truth is known."""

    task: Task
    models: tuple[ModelStudy, ...]
    pairs: tuple[Pair, ...]
    labelled: int
    disagreements: tuple[Disagreement, ...]


@dataclass(frozen=True)
class Study:
    """pictures: how many there are. failures: pictures that could not be answered, and why."""

    pictures: int
    failures: Mapping[str, str]
    tasks: tuple[TaskStudy, ...]


Truths = Mapping[str, int | tuple[Truth, ...]]
"""The truth of pictures, by path: a class id, or all objects."""


def study(
    models: Sequence[Model],
    answers: Sequence[PictureAnswers],
    truths: Mapping[Task, Truths],
    baseline: str | None = None,
) -> Study:
    """Return what the answers show.

    truths: class ids are those of the task's first model; other models are measured by name, on
    the classes that they know. baseline: of each task's models; else the first.
    """
    failures = {one.path: one.failure for one in answers if one.failure}
    answered = [one for one in answers if not one.failure]
    tasks = []
    for task in Task:
        capable = [model for model in models if task in model.tasks]
        if capable:
            names = [model.name for model in capable]
            first = capable[names.index(baseline)] if baseline in names else capable[0]
            known = truths.get(task, {})
            build = _detectors if task is Task.DETECTION else _classifiers
            tasks.append(build(capable, first, answered, known))
    return Study(len(answers), failures, tuple(tasks))


def _classifiers(
    models: Sequence[Model],
    baseline: Model,
    answers: Sequence[PictureAnswers],
    truths: Truths,
) -> TaskStudy:
    labelled = [one for one in answers if one.path in truths]
    right: dict[str, tuple[list[str], Booleans]] = {}
    studies = []
    for model in models:
        shared = _SharedClasses(models[0], model)
        own = {one.path: shared.ours(_class_id(truths[one.path])) for one in labelled}
        truth = {path: class_id for path, class_id in own.items() if class_id is not None}
        runs = {path: run for path, run in _runs(model, labelled).items() if path in truth}
        ranked, wanted = [run.classes for run in runs.values()], [truth[path] for path in runs]
        right[model.name] = (list(runs), top_k(ranked, wanted, 1))
        accuracy = {}
        if runs:
            accuracy = {
                "top1": proportion(right[model.name][1].astype(np.float64)),
                "top5": proportion(top_k(ranked, wanted, 5).astype(np.float64)),
                "confusions": _confusions(model, ranked, wanted),
            }
        studies.append(_study_of(model, answers, **accuracy))
    pairs = [
        _classifier_pair(model, baseline, answers, right)
        for model in models
        if model.name != baseline.name
    ]
    return TaskStudy(
        Task.CLASSIFICATION,
        tuple(studies),
        tuple(pairs),
        len(labelled),
        tuple(_classifier_disagreements(models, answers, truths)),
    )


def _confusions(
    model: Model, ranked: Sequence[Sequence[int]], wanted: Sequence[int]
) -> tuple[Confusion, ...]:
    labels = model.label_set.labels
    wrong = Counter(
        (_label(labels, truth), _label(labels, best[0]))
        for best, truth in zip(ranked, wanted, strict=True)
        if best and best[0] != truth
    )
    return tuple(Confusion(*pair, count) for pair, count in sorted(wrong.items(), key=_by_count))


def _by_count(item: tuple[tuple[str, str], int]) -> tuple[int, tuple[str, str]]:
    return -item[1], item[0]


def _classifier_pair(
    model: Model,
    baseline: Model,
    answers: Sequence[PictureAnswers],
    right: Mapping[str, tuple[list[str], Booleans]],
) -> Pair:
    ours, theirs = _runs(model, answers), _runs(baseline, answers)
    shared = _SharedClasses(model, baseline)
    same = []
    for path in ours.keys() & theirs.keys():
        here, there = shared.ours(ours[path].classes[0]), shared.theirs(theirs[path].classes[0])
        if here is not None and there is not None:
            same.append(here == there)
    agreement = proportion(np.array(same, np.float64))
    both = _on_both(right[model.name], right[baseline.name])
    if both is None:
        return Pair(model.name, baseline.name, agreement, unknown=shared.unknown)
    model_right, baseline_right = both
    return Pair(
        model.name,
        baseline.name,
        agreement,
        "top1",
        difference_of_means(model_right.astype(np.float64), baseline_right.astype(np.float64)),
        changes(model_right, baseline_right),
        shared.unknown,
    )


def _detectors(
    models: Sequence[Model],
    baseline: Model,
    answers: Sequence[PictureAnswers],
    truths: Truths,
) -> TaskStudy:
    labelled = [one for one in answers if one.path in truths]
    every = {one.path: _truth_boxes(one, truths[one.path]) for one in labelled}
    known_to: dict[str, Mapping[str, Boxes]] = {}
    accuracies: dict[str, tuple[list[str], DetectionAccuracy]] = {}
    studies = []
    precision: float | None = None
    # The baseline first: its precision is the one that the others are compared at.
    for model in sorted(models, key=lambda one: one.name != baseline.name):
        runs = _runs(model, labelled)
        shared = _SharedClasses(models[0], model)
        known = known_to[model.name] = {path: shared.of_ours(one) for path, one in every.items()}
        accuracy: dict[str, object] = {}
        if runs and any(len(known[path].scores) for path in runs):
            measured = detection_accuracy(
                [Boxes.of(run.boxes) for run in runs.values()],
                [known[path] for path in runs],
                [(one.width, one.height) for one in labelled if one.path in runs],
            )
            accuracies[model.name] = (list(runs), measured)
            labels = model.label_set.labels
            drawn = curve([Boxes.of(run.boxes) for run in runs.values()], [known[p] for p in runs])
            operating = drawn.at(_threshold(model))
            precision = operating.precision if precision is None else precision
            accuracy = {
                "operating": operating,
                "errors": error_kinds(
                    [shown_boxes(model, run) for run in runs.values()], [known[p] for p in runs]
                ),
                "suggested": drawn.best,
                "equal_precision": drawn.at_precision(precision),
                "map50_95": measured.map50_95.estimate,
                "map50": measured.map50.estimate,
                "per_class": {_label(labels, k): measured.of_class(k) for k in measured.classes},
                "per_size": {size: measured.of_size(size) for size in SIZES},
            }
        studies.append(_study_of(model, answers, **accuracy))
    pairs = [
        _detector_pair(model, baseline, answers, known_to, accuracies)
        for model in models
        if model.name != baseline.name
    ]
    return TaskStudy(
        Task.DETECTION,
        tuple(sorted(studies, key=lambda one: models.index(one.card))),
        tuple(pairs),
        len(labelled),
        tuple(_detector_disagreements(models, baseline, answers)),
    )


def _detector_pair(
    model: Model,
    baseline: Model,
    answers: Sequence[PictureAnswers],
    known_to: Mapping[str, Mapping[str, Boxes]],
    accuracies: Mapping[str, tuple[list[str], DetectionAccuracy]],
) -> Pair:
    ours, theirs = _runs(model, answers), _runs(baseline, answers)
    shared = _SharedClasses(model, baseline)
    values = []
    fixed = broke = 0
    for path in sorted(ours.keys() & theirs.keys()):
        here, there = shown_boxes(model, ours[path]), shown_boxes(baseline, theirs[path])
        values.append(_f1(shared.of_ours(here), shared.of_theirs(there)))
        if path in known_to[model.name]:
            # Of the objects that both models can know.
            truth = known_to[baseline.name][path]
            real = shared.of_theirs(truth.where(~truth.crowds))
            change = changes(
                matched(shared.of_ours(here), real)[1], matched(shared.of_theirs(there), real)[1]
            )
            fixed, broke = fixed + change.fixed, broke + change.broke
    agreement = proportion(np.array(values))
    mine, other = accuracies.get(model.name), accuracies.get(baseline.name)
    if mine is None or other is None or mine[0] != other[0]:
        return Pair(model.name, baseline.name, agreement, unknown=shared.unknown)
    return Pair(
        model.name,
        baseline.name,
        agreement,
        "map50_95",
        mine[1].map50_95.minus(other[1].map50_95),
        Changes(fixed, broke),
        shared.unknown,
    )


class _SharedClasses:
    """Class ids of two models as those of the baseline; None: the other does not know the class."""

    def __init__(self, model: Model, baseline: Model) -> None:
        ours, theirs = model.label_set, baseline.label_set
        if ours.labels == theirs.labels or (ours.name == theirs.name and ours.size == theirs.size):
            self._ours = {k: k for k in range(ours.size)}
        else:
            names = ClassNames(theirs.labels)
            found = {k: names.find(label) for k, label in enumerate(ours.labels)}
            self._ours = {k: there for k, there in found.items() if there is not None}
        self._theirs = set(self._ours.values())
        self.unknown = ours.size - len(self._ours) + theirs.size - len(self._theirs)

    def ours(self, class_id: int) -> int | None:
        return self._ours.get(class_id)

    def theirs(self, class_id: int) -> int | None:
        return class_id if class_id in self._theirs else None

    def of_ours(self, boxes: Boxes) -> Boxes:
        kept = boxes.where(np.array([int(k) in self._ours for k in boxes.class_ids], np.bool_))
        ids = np.array([self._ours[int(k)] for k in kept.class_ids], np.int64)
        return Boxes(kept.xyxy, ids, kept.scores, kept.crowds)

    def of_theirs(self, boxes: Boxes) -> Boxes:
        return boxes.where(np.array([int(k) in self._theirs for k in boxes.class_ids], np.bool_))


def _runs(model: Model, answers: Sequence[PictureAnswers]) -> dict[str, ModelRun]:
    """Return a model's answers by path, without those that failed."""
    runs = {one.path: one.runs.get(model.name) for one in answers}
    return {path: run for path, run in runs.items() if run is not None and not run.failure}


def _study_of(model: Model, answers: Sequence[PictureAnswers], **accuracy: object) -> ModelStudy:
    runs = _runs(model, answers)
    failures = len(answers) - len(runs)
    return ModelStudy(model, len(runs), failures, _latency(list(runs.values())), **accuracy)  # type: ignore[arg-type]


def _latency(runs: Sequence[ModelRun]) -> Latency | None:
    timed = [run.stages_ms for run in runs if run.stages_ms]
    if not timed:
        return None
    stages = {name: np.array([one.get(name, 0.0) for one in timed]) for name in timed[0]}
    whole: Floats = np.sum(list(stages.values()), axis=0)
    p50, p95, p99 = (float(x) for x in np.percentile(whole, (50, 95, 99)))
    return Latency(p50, p95, p99, {name: float(np.median(ms)) for name, ms in stages.items()})


def _class_id(truth: int | tuple[Truth, ...]) -> int:
    assert isinstance(truth, int)
    return truth


def _on_both(
    one: tuple[list[str], Booleans], other: tuple[list[str], Booleans]
) -> tuple[Booleans, Booleans] | None:
    first, second = (dict(zip(*each, strict=True)) for each in (one, other))
    paths = [path for path in first if path in second]
    if not paths:
        return None
    return tuple(np.array([each[path] for path in paths]) for each in (first, second))  # type: ignore[return-value]


def _truth_boxes(picture: PictureAnswers, truth: int | tuple[Truth, ...]) -> Boxes:
    assert isinstance(truth, tuple)
    width, height = picture.width, picture.height
    rows = [
        (
            (one.center_x - one.width / 2) * width,
            (one.center_y - one.height / 2) * height,
            (one.center_x + one.width / 2) * width,
            (one.center_y + one.height / 2) * height,
            one.class_id,
            1.0,
        )
        for one in truth
    ]
    return Boxes.of(rows, [one.crowd for one in truth])


def shown_boxes(model: Model, run: ModelRun) -> Boxes:
    """Return the boxes that a user of the model sees: those above its own threshold."""
    boxes = Boxes.of(run.boxes)
    return boxes.where(boxes.scores >= _threshold(model))


def _threshold(model: Model) -> float:
    defaults = model.detection_defaults
    return defaults.score_threshold if defaults else _DEFAULT_THRESHOLD


def _f1(one: Boxes, other: Boxes) -> float:
    total = len(one.scores) + len(other.scores)
    if not total:
        return 1.0  # Both see nothing.
    return 2 * int(matched(one, other)[0].sum()) / total


def _classifier_disagreements(
    models: Sequence[Model], answers: Sequence[PictureAnswers], truths: Truths
) -> list[Disagreement]:
    """Return pictures with different best classes; first those where all contradict the truth."""
    found = []
    for one in answers:
        labels = {
            model.name: _label(model.label_set.labels, run.classes[0])
            for model in models
            if (run := one.runs.get(model.name)) and run.classes
        }
        if not labels:
            continue
        truth = truths.get(one.path)
        wanted = _label(models[0].label_set.labels, truth) if isinstance(truth, int) else ""
        agreed = len(set(labels.values())) == 1
        suspect = bool(wanted) and agreed and len(labels) > 1 and wanted not in labels.values()
        if not agreed or suspect:
            found.append(Disagreement(one.path, labels, wanted, suspect))
    return sorted(found, key=lambda one: (not one.suspect, one.path))


def _detector_disagreements(
    models: Sequence[Model], baseline: Model, answers: Sequence[PictureAnswers]
) -> list[Disagreement]:
    """Return pictures where a model's boxes are not the baseline's, the most different first."""
    shared = {model.name: _SharedClasses(model, baseline) for model in models}
    found = []
    for one in answers:
        there = one.runs.get(baseline.name)
        if there is None or there.failure:
            continue
        worst = 1.0
        counts = {baseline.name: _counted(shown_boxes(baseline, there))}
        for model in models:
            run = one.runs.get(model.name)
            if model.name == baseline.name or run is None or run.failure:
                continue
            here, both = shown_boxes(model, run), shared[model.name]
            f1 = _f1(both.of_ours(here), both.of_theirs(shown_boxes(baseline, there)))
            counts[model.name] = f"{_counted(here)}, F1 {f1:.2f}"
            worst = min(worst, f1)
        if worst < 1:
            found.append((worst, Disagreement(one.path, counts)))
    return [one for _, one in sorted(found, key=lambda each: (each[0], each[1].path))]


def _counted(boxes: Boxes) -> str:
    count = len(boxes.scores)
    return f"{count} box{'es' * (count != 1)}"


def _label(labels: Sequence[str], class_id: int) -> str:
    return labels[class_id] if 0 <= class_id < len(labels) else str(class_id)
