"""How often models are right, against the truth of each picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np

from visavis.evaluation.boxes import Booleans, Boxes, Ints
from visavis.evaluation.matching import MATCHED_SIZES, SIZES, Matches, matches
from visavis.evaluation.statistics import Floats, Statistic, resamples

_RECALLS: Final = np.linspace(0.0, 1.0, 101)
# Numbers that are held at once for the resamples of one class.
_CELLS: Final = 2_000_000


def top_k(ranked: Sequence[Sequence[int]], truth: Sequence[int], k: int) -> Booleans:
    """Return for each picture if its class is among a model's first k, by class id."""
    return np.array([one in best[:k] for best, one in zip(ranked, truth, strict=True)], np.bool_)


def average_precisions(found: Matches, weights: Ints) -> Floats:
    """Return one class's average precision at each threshold, as COCO's own code accumulates it.

    weights [rows, pictures]: how often each picture counts. The result is [rows, thresholds]; NaN
    in rows without an object.
    """
    total = weights @ found.objects
    figures = np.full((len(weights), len(found.correct)), np.nan)
    rows = np.flatnonzero(total)
    step = max(1, _CELLS // max(1, len(found.picture)))
    for start in range(0, len(rows), step):
        chosen = rows[start : start + step]
        figures[chosen] = _precisions(found, weights[chosen], total[chosen])
    return figures


def _precisions(found: Matches, weights: Ints, total: Ints) -> Floats:
    # Boxes below the last right one change nothing, and most boxes are.
    right_ones = np.flatnonzero((found.correct & found.counted).any(axis=0))
    end = int(right_ones[-1]) + 1 if len(right_ones) else 0
    each = weights[:, found.picture[:end]].astype(np.int32)  # [rows, boxes]
    figures = np.empty((len(weights), len(found.correct)))
    seen = np.zeros(0)
    for index, (correct, counted) in enumerate(zip(found.correct, found.counted, strict=True)):
        if index == 0 or not np.array_equal(counted, found.counted[index - 1]):
            seen = np.cumsum(each * counted[:end], axis=1, dtype=np.int32)
        # Precision falls between right boxes, so that its envelope depends on those alone.
        hits = np.flatnonzero(correct & counted)
        right = np.cumsum(each[:, hits], axis=1)
        precision = right / np.maximum(seen[:, hits], np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = np.searchsorted(_RECALLS, right / total[:, None], side="right")
        gained = np.diff(reached, axis=1, prepend=0)
        figures[:, index] = (envelope * gained).sum(axis=1) / len(_RECALLS)
    return figures


@dataclass(frozen=True)
class DetectionAccuracy:
    """A detector's boxes, matched with the truth by COCO's rules.

    classes: those with an object on any picture; figures are means over them. by_size: the same
    for objects of each of SIZES.
    """

    pictures: int
    classes: Mapping[int, Matches]
    by_size: Mapping[str, Mapping[int, Matches]] = field(repr=False)

    @cached_property
    def map50_95(self) -> Statistic:
        """Mean average precision over IoU 0.50 to 0.95."""
        return _mean(self._precisions.mean(axis=2), self.pictures)

    @cached_property
    def map50(self) -> Statistic:
        """Mean average precision at IoU 0.50."""
        return _mean(self._precisions[:, :, 0], self.pictures)

    def of_size(self, size: str) -> Statistic:
        """Return mAP50-95 on objects of one of SIZES; NaN without any."""
        return self._of_sizes[size]

    def of_class(self, class_id: int) -> Statistic:
        """Return AP50-95 of one class; NaN if no picture has an object of it."""
        figures = self._precisions[:, list(self.classes).index(class_id)].mean(axis=1)
        return _mean(figures[:, None], _pictures_with({0: self.classes[class_id]}))

    def on(self, chosen: Booleans) -> "DetectionAccuracy":
        """Return the accuracy on some of the pictures."""
        sizes = {
            size: {k: one.on(chosen) for k, one in classes.items()}
            for size, classes in self.by_size.items()
        }
        classes = {k: one.on(chosen) for k, one in self.classes.items()}
        return DetectionAccuracy(int(chosen.sum()), classes, sizes)

    @cached_property
    def _of_sizes(self) -> Mapping[str, Statistic]:
        return {
            size: _mean(_drawn(classes, self.pictures).mean(axis=2), _pictures_with(classes))
            for size, classes in self.by_size.items()
        }

    @cached_property
    def _precisions(self) -> Floats:
        return _drawn(self.classes, self.pictures)


def detection_accuracy(
    found: Sequence[Boxes], truth: Sequence[Boxes], sizes: Sequence[tuple[int, int]]
) -> DetectionAccuracy:
    """Match a detector's boxes with the truth, picture by picture.

    found: at most 100 boxes on a picture, with scores from near 0 on, so that the whole curve of
    precision is seen. sizes: width and height of each picture in pixels.
    """
    matched = matches(found, truth, sizes)
    whole, *others = (matched[area] for area in MATCHED_SIZES)
    return DetectionAccuracy(len(sizes), whole, dict(zip(SIZES, others, strict=True)))


def average_precision(rows: Sequence[tuple[float, bool]], objects: int) -> float:
    """Return COCO's average precision of one class from score and correctness of each box."""
    order = sorted(range(len(rows)), key=lambda index: -rows[index][0])
    correct = np.array([[rows[index][1] for index in order]], np.bool_).reshape(1, -1)
    there = np.zeros(correct.shape[1], np.int64)
    one = Matches(correct, np.ones_like(correct), there, np.array([objects]))
    return float(average_precisions(one, np.ones((1, 1), np.int64))[0, 0])


def _drawn(classes: Mapping[int, Matches], pictures: int) -> Floats:
    """Return all precisions, of the pictures and of each resample: [1 + n, classes, thresholds]."""
    weights = np.vstack([np.ones((1, pictures), np.int64), resamples(pictures)])
    if not classes:
        return np.full((len(weights), 1, 1), np.nan)
    return np.stack([average_precisions(one, weights) for one in classes.values()], axis=1)


def _mean(figures: Floats, pictures: int) -> Statistic:
    """Return the mean over classes of [1 + n, classes]; those without objects do not count."""
    known = ~np.isnan(figures)
    count = known.sum(axis=1)
    total = np.where(known, figures, 0.0).sum(axis=1)
    means = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return Statistic(float(means[0]), means[1:], pictures)


def _pictures_with(classes: Mapping[int, Matches]) -> int:
    """Return how many pictures have an object of any of these classes."""
    if not classes:
        return 0
    return int((np.sum([one.objects for one in classes.values()], axis=0) > 0).sum())
