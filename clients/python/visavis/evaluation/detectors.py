"""Detectors on a folder of pictures."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from visavis.cards import Model, Task
from visavis.dataset.labels import Truth
from visavis.evaluation.accuracy import DetectionAccuracy, detection_accuracy
from visavis.evaluation.answers import PictureAnswers
from visavis.evaluation.boxes import Booleans, Boxes, matched
from visavis.evaluation.error_types import RIGHT, JudgedBox, JudgedPicture, error_kinds, judged
from visavis.evaluation.figures import (
    NOTHING,
    Cost,
    Disagreement,
    Fact,
    Pair,
    Slice,
    TaskStudy,
    Truths,
)
from visavis.evaluation.matching import SIZES
from visavis.evaluation.operating import curve
from visavis.evaluation.runs import runs_of, shown_boxes, study_of, threshold
from visavis.evaluation.shared_classes import Names, SharedClasses
from visavis.evaluation.slices import Parts, sliced
from visavis.evaluation.statistics import Changes, Estimate, Statistic, proportion


@dataclass(frozen=True)
class _Detectors:
    """models: the first gives the class ids of the truth. names: of each model's classes.

    known: the truth of each picture as each model knows it. paths: the pictures of each model's
    accuracy. judged: each model's boxes above its own threshold, by path. against: each model's
    shown boxes and the baseline's, by path.
    """

    models: Sequence[Model]
    baseline: Model
    answers: Sequence[PictureAnswers]
    truths: Mapping[str, Boxes]
    names: Mapping[str, Names]
    known: dict[str, Mapping[str, Boxes]] = field(default_factory=dict)
    paths: dict[str, list[str]] = field(default_factory=dict)
    accuracies: dict[str, DetectionAccuracy] = field(default_factory=dict)
    judged: dict[str, dict[str, JudgedPicture]] = field(default_factory=dict)
    against: dict[str, "dict[str, _Against]"] = field(default_factory=dict)

    @property
    def others(self) -> list[Model]:
        return [model for model in self.models if model.name != self.baseline.name]


@dataclass(frozen=True, slots=True)
class _Against:
    """A model on a picture, against the baseline.

    f1: of their boxes. only_here, only_there: classes of unmatched boxes, as the baseline's ids.
    fixed, broke: classes of objects that only one of both finds. unknown, unknown_there: boxes of
    each that were left out, as the other lacks their class.
    """

    f1: float
    only_here: tuple[int, ...]
    only_there: tuple[int, ...]
    fixed: tuple[int, ...]
    broke: tuple[int, ...]
    unknown: int
    unknown_there: int


def detectors(
    models: Sequence[Model],
    baseline: Model,
    answers: Sequence[PictureAnswers],
    truths: Truths,
    found: Parts,
    costs: Mapping[str, Cost],
) -> TaskStudy:
    """Return the figures of all detectors; see `study`."""
    known = {
        one.path: _truth_boxes(one, truth)
        for one in answers
        if isinstance(truth := truths.get(one.path), tuple)
    }
    all_ = _Detectors(
        models, baseline, answers, known, {one.name: Names(one, models[0]) for one in models}
    )
    accuracies: dict[str, dict[str, Any]] = {}
    precision: float | None = None
    # The baseline first: its precision is the one that the others are compared at.
    for model in (baseline, *all_.others):
        accuracies[model.name] = figures = _accuracy(all_, model, precision)
        if precision is None and figures:
            precision = figures["operating"].precision
    for model in all_.others:
        all_.against[model.name] = _against(all_, model)
    return TaskStudy(
        Task.DETECTION,
        tuple(study_of(model, answers, costs, accuracies[model.name]) for model in models),
        tuple(_pair(all_, model) for model in all_.others),
        len(known),
        tuple(_disagreements(all_)),
        (*_objects(all_), *_slices(all_, found)),
        found.folders_left_out,
        _contests(all_),
    )


def _accuracy(all_: _Detectors, model: Model, precision: float | None) -> dict[str, Any]:
    labelled = [one for one in all_.answers if one.path in all_.truths]
    shared = SharedClasses(all_.models[0], model)
    known = {path: shared.of_ours(boxes) for path, boxes in all_.truths.items()}
    runs = runs_of(model, labelled)
    all_.known[model.name], all_.paths[model.name] = known, list(runs)
    if not any(len(known[path].scores) for path in runs):
        return {}
    found, truth = [Boxes.of(run.boxes) for run in runs.values()], [known[path] for path in runs]
    sizes = [(one.width, one.height) for one in labelled if one.path in runs]
    measured = all_.accuracies[model.name] = detection_accuracy(found, truth, sizes)
    drawn = curve(found, truth)
    operating = drawn.at(threshold(model))
    all_.judged[model.name] = {
        path: judged(shown_boxes(model, run), known[path]) for path, run in runs.items()
    }
    pictures, names = list(all_.judged[model.name].values()), all_.names[model.name]
    return {
        "operating": operating,
        "suggested": drawn.best,
        "equal_precision": drawn.at_precision(
            operating.precision if precision is None else precision
        ),
        "map50_95": measured.map50_95.estimate.within(0.0, 1.0),
        "map50": measured.map50.estimate.within(0.0, 1.0),
        "errors": error_kinds(pictures),
        "matrix": confusion_matrix(pictures, names),
        "per_class": {names[k]: measured.of_class(k).value for k in measured.classes},
        "per_size": {size: measured.of_size(size).value for size in SIZES},
    }


def confusion_matrix(
    pictures: Sequence[JudgedPicture], names: Names
) -> Mapping[tuple[str, str], int]:
    """Return how often an object of one class got a box of each.

    Each row of an object's class sums up to its objects, each column to the boxes of its class:
    a box without an object of its own, and an object without a box, count as NOTHING.
    """
    matrix: Counter[tuple[str, str]] = Counter()
    for picture in pictures:
        left = Counter(picture.objects)
        for box in picture.boxes:
            right, confused = box.kind == RIGHT, box.kind == "class" and box.becomes is not None
            if (right or confused) and box.truth is not None:
                left[box.truth] -= 1
                matrix[names[box.truth], names[box.class_id]] += 1
            else:
                matrix[NOTHING, names[box.class_id]] += 1
        for class_id, count in left.items():
            if count > 0:
                matrix[names[class_id], NOTHING] += count
    return matrix


def _against(all_: _Detectors, model: Model) -> dict[str, _Against]:
    ours, theirs = (runs_of(one, all_.answers) for one in (model, all_.baseline))
    shared = SharedClasses(model, all_.baseline)
    truths = all_.known[all_.baseline.name]
    found = {}
    for path in sorted(ours.keys() & theirs.keys()):
        shown, shown_there = (
            shown_boxes(model, ours[path]),
            shown_boxes(all_.baseline, theirs[path]),
        )
        here, there = shared.of_ours(shown), shared.of_theirs(shown_there)
        matched_here, matched_there = matched(here, there)
        total = len(here.scores) + len(there.scores)
        # Of the objects that both models can know.
        real = shared.of_theirs(truths[path]).real if path in truths else Boxes.of([])
        seen, seen_there = matched(here, real)[1], matched(there, real)[1]
        found[path] = _Against(
            2 * int(matched_here.sum()) / total if total else 1.0,  # Both see nothing.
            _ids(here, ~matched_here),
            _ids(there, ~matched_there),
            _ids(real, seen & ~seen_there),
            _ids(real, seen_there & ~seen),
            len(shown.scores) - len(here.scores),
            len(shown_there.scores) - len(there.scores),
        )
    return found


def _ids(boxes: Boxes, chosen: Booleans) -> tuple[int, ...]:
    return tuple(int(k) for k in boxes.class_ids[chosen])


def _pair(all_: _Detectors, model: Model) -> Pair:
    against = all_.against[model.name]
    agreement = proportion(np.array([one.f1 for one in against.values()]))
    pair = Pair(
        model.name,
        all_.baseline.name,
        agreement,
        unknown=SharedClasses(model, all_.baseline).unknown,
        unknown_here=sum(one.unknown for one in against.values()),
        unknown_in_baseline=sum(one.unknown_there for one in against.values()),
    )
    difference = _difference(all_, model.name, all_.baseline.name)
    if difference is None:
        return pair
    fixed = sum(len(one.fixed) for one in against.values())
    broke = sum(len(one.broke) for one in against.values())
    return replace(pair, metric="map50_95", difference=difference, changes=Changes(fixed, broke))


def _comparable(all_: _Detectors, one: str, other: str) -> bool:
    """Return True if both were measured, on the same pictures."""
    measured = all_.accuracies
    return one in measured and other in measured and all_.paths[one] == all_.paths[other]


def _difference(all_: _Detectors, one: str, other: str) -> Estimate | None:
    if not _comparable(all_, one, other):
        return None
    measured = all_.accuracies
    return measured[one].map50_95.minus(measured[other].map50_95).within(-1.0, 1.0)


def _contests(all_: _Detectors) -> dict[tuple[str, str], Estimate]:
    names = [model.name for model in all_.models]
    return {
        (one, other): estimate
        for one, other in combinations(names, 2)
        if (estimate := _difference(all_, one, other)) is not None
    }


def _compared(
    all_: _Detectors, statistics: Mapping[str, Statistic]
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Return the figures of models, and their differences to the baseline."""
    known = {name: one for name, one in statistics.items() if not np.isnan(one.value)}
    figures = {name: one.estimate.within(0.0, 1.0) for name, one in known.items()}
    base = all_.baseline.name
    differences = {
        name: one.minus(known[base]).within(-1.0, 1.0)
        for name, one in known.items()
        if name != base and base in known and _comparable(all_, name, base)
    }
    return figures, differences


def _objects(all_: _Detectors) -> list[Slice]:
    """Return the slices by class and by size, which are of objects."""
    slices = []
    names, shared = (
        all_.names[all_.models[0].name],
        {model.name: SharedClasses(all_.models[0], model) for model in all_.models},
    )
    classes = sorted({int(k) for one in all_.truths.values() for k in one.real.class_ids})
    for class_id in classes:
        statistics = {}
        for name, measured in all_.accuracies.items():
            own = shared[name].ours(class_id)
            if own is not None and own in measured.classes:
                statistics[name] = measured.of_class(own)
        figures, differences = _compared(all_, statistics)
        if figures:
            paths = frozenset(p for p, one in all_.truths.items() if class_id in one.class_ids)
            slices.append(Slice("class", names[class_id], "map50_95", paths, figures, differences))
    for size in SIZES:
        statistics = {name: one.of_size(size) for name, one in all_.accuracies.items()}
        figures, differences = _compared(all_, statistics)
        if figures:
            paths = frozenset(p for p, one in all_.truths.items() if size in _sizes(one))
            slices.append(Slice("size", size, "map50_95", paths, figures, differences))
    return slices


def _sizes(boxes: Boxes) -> set[str]:
    """Return the sizes of the objects, as COCO names them."""
    real = boxes.real
    areas = (real.xyxy[:, 2:] - real.xyxy[:, :2]).prod(axis=1)
    return {SIZES[int(index)] for index in np.digitize(areas, (32.0**2, 96.0**2))}


def _slices(all_: _Detectors, found: Parts) -> list[Slice]:
    if all_.accuracies:

        def accuracy(paths: frozenset[str]) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
            statistics = {}
            for name, measured in all_.accuracies.items():
                chosen = np.array([path in paths for path in all_.paths[name]], np.bool_)
                statistics[name] = measured.on(chosen).map50_95
            return _compared(all_, statistics)

        return sliced(found, "map50_95", accuracy)

    def agreement(paths: frozenset[str]) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
        figures = {}
        for name, against in all_.against.items():
            values = [one.f1 for path, one in against.items() if path in paths]
            if values:
                figures[name] = proportion(np.array(values))
        return figures, {}

    return sliced(found, "agreement", agreement)


def _truth_boxes(picture: PictureAnswers, truth: tuple[Truth, ...]) -> Boxes:
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


def _disagreements(all_: _Detectors) -> list[Disagreement]:
    """Return pictures where a model differs from the truth or from the baseline.

    The most different from the baseline first.
    """
    found = []
    for one in all_.answers:
        facts = _facts(all_, one.path)
        if not facts:
            continue
        against = {n: all_.against[n].get(one.path) for n in all_.against}
        worst = min((own.f1 for own in against.values() if own), default=1.0)
        answers = {}
        for model in all_.models:
            run = one.runs.get(model.name)
            if run is not None and not run.failure:
                count, own = len(shown_boxes(model, run).scores), against.get(model.name)
                text = f"{count} box{'es' * (count != 1)}"
                answers[model.name] = f"{text}, F1 {own.f1:.2f}" if own else text
        truth = all_.truths.get(one.path)
        objects = "" if truth is None else _counted(len(truth.real.scores))
        found.append((worst, Disagreement(one.path, answers, objects, facts=facts)))
    return [one for _, one in sorted(found, key=lambda each: (each[0], each[1].path))]


def _counted(objects: int) -> str:
    return f"{objects} object{'s' * (objects != 1)}"


def _facts(all_: _Detectors, path: str) -> tuple[Fact, ...]:
    facts: dict[Fact, None] = {}  # each once, in this order
    names_of_baseline = all_.names[all_.baseline.name]
    for model in all_.models:
        own, names = all_.against.get(model.name, {}).get(path), all_.names[model.name]
        if own is not None:
            kinds = {
                "fixed": own.fixed,
                "broke": own.broke,
                "here": own.only_here,
                "baseline": own.only_there,
            }
            for kind, ids in kinds.items():
                for class_id in ids:
                    facts[Fact(model.name, kind, names_of_baseline[class_id])] = None
        picture = all_.judged.get(model.name, {}).get(path)
        if picture is None:
            continue
        for class_id in picture.missed:
            facts[Fact(model.name, "missed", names[class_id], NOTHING)] = None
        for box in picture.boxes:
            if box.kind != RIGHT:
                facts |= dict.fromkeys(_of_box(model.name, box, names))
    return tuple(facts)


def _of_box(model: str, box: JudgedBox, names: Names) -> Iterator[Fact]:
    """Yield the facts about a wrong box: those that the confusion matrix counts."""
    confused = box.kind == "class" and box.becomes is not None
    truth = names[box.truth] if confused and box.truth is not None else NOTHING
    yield Fact(model, box.kind, truth, names[box.class_id])
    if box.kind == "place" and box.becomes is not None:
        yield Fact(model, "place", names[box.becomes], NOTHING)
