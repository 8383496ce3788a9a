"""Detectors on parts of the pictures, and of the objects."""

from collections.abc import Mapping

import numpy as np

from visavis.evaluation.boxes import Boxes
from visavis.evaluation.detector_runs import Detectors, comparable_on
from visavis.evaluation.figures import Slice
from visavis.evaluation.matching import SIZES
from visavis.evaluation.shared_classes import SharedClasses
from visavis.evaluation.slices import Parts, sliced
from visavis.evaluation.statistics import Estimate, Statistic, proportion


def _compared(
    all_: Detectors, statistics: Mapping[str, Statistic]
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Return the figures of models, and their differences to the baseline."""
    known = {name: one for name, one in statistics.items() if not np.isnan(one.value)}
    figures = {name: one.estimate.within(0.0, 1.0) for name, one in known.items()}
    base = all_.baseline.name
    differences = {
        name: one.minus(known[base]).within(-1.0, 1.0)
        for name, one in known.items()
        if name != base and base in known and comparable_on(all_, name, base)
    }
    return figures, differences


def object_slices(all_: Detectors) -> list[Slice]:
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


def picture_slices(all_: Detectors, found: Parts) -> list[Slice]:
    """Return the slices of pictures; without truth, of agreements with the baseline."""
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
