"""Detectors on a folder of pictures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from visavis.cards import Model, Task
from visavis.dataset.labels import Truth
from visavis.evaluation.accuracy import detection_accuracy
from visavis.evaluation.answers import PictureAnswers
from visavis.evaluation.boxes import Booleans, Boxes, matched
from visavis.evaluation.detector_facts import disagreements
from visavis.evaluation.detector_runs import Against, Detectors, difference_of
from visavis.evaluation.detector_slices import object_slices, picture_slices
from visavis.evaluation.error_types import RIGHT, JudgedPicture, error_kinds, judged
from visavis.evaluation.figures import NOTHING, Cost, Pair, TaskStudy, Truths
from visavis.evaluation.matching import SIZES
from visavis.evaluation.operating import curve
from visavis.evaluation.runs import runs_of, shown_boxes, study_of, threshold
from visavis.evaluation.shared_classes import Names, SharedClasses
from visavis.evaluation.slices import Parts
from visavis.evaluation.statistics import Changes, Estimate, proportion


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
    all_ = Detectors(
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
        tuple(disagreements(all_)),
        (*object_slices(all_), *picture_slices(all_, found)),
        found.folders_left_out,
        _contests(all_),
    )


def _accuracy(all_: Detectors, model: Model, precision: float | None) -> dict[str, Any]:
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


def _against(all_: Detectors, model: Model) -> dict[str, Against]:
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
        found[path] = Against(
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


def _pair(all_: Detectors, model: Model) -> Pair:
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
    difference = difference_of(all_, model.name, all_.baseline.name)
    if difference is None:
        return pair
    fixed = sum(len(one.fixed) for one in against.values())
    broke = sum(len(one.broke) for one in against.values())
    return replace(pair, metric="map50_95", difference=difference, changes=Changes(fixed, broke))


def _contests(all_: Detectors) -> dict[tuple[str, str], Estimate]:
    names = [model.name for model in all_.models]
    return {
        (one, other): estimate
        for one, other in combinations(names, 2)
        if (estimate := difference_of(all_, one, other)) is not None
    }


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
