"""How often models are right, against the truth of each picture."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from visavis.evaluation.statistics import Floats, Statistic, resamples

Ints = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

MAX_DETECTIONS: Final = 100
"""Boxes of a picture that count, as COCO has it."""

SIZES: Final = ("small", "medium", "large")
"""Objects of up to 32² and 96² pixels, and above; COCO's words."""

_RECALLS: Final = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, slots=True)
class Boxes:
    """Boxes on one picture: xyxy [n, 4] in pixels, class ids [n], scores [n] (1 for truth).

    crowds [n]: areas of the truth in which boxes are neither right nor wrong.
    """

    xyxy: Floats
    class_ids: Ints
    scores: Floats
    crowds: Booleans

    @classmethod
    def of(cls, rows: npt.ArrayLike, crowds: Sequence[bool] = ()) -> "Boxes":
        """Return boxes from rows of x_min, y_min, x_max, y_max, class id and score."""
        table = np.array(rows, np.float64).reshape(-1, 6)
        flags = np.array(crowds or np.zeros(len(table)), np.bool_)
        return cls(table[:, :4], table[:, 4].astype(np.int64), table[:, 5], flags)

    def where(self, chosen: Booleans) -> "Boxes":
        """Return some of them."""
        return Boxes(
            self.xyxy[chosen], self.class_ids[chosen], self.scores[chosen], self.crowds[chosen]
        )


def top_k(ranked: Sequence[Sequence[int]], truth: Sequence[int], k: int) -> Booleans:
    """Return for each picture if its class is among a model's first k, by class id."""
    return np.array([one in best[:k] for best, one in zip(ranked, truth, strict=True)], np.bool_)


@dataclass(frozen=True, slots=True)
class _Class:
    """All detections of one class on all pictures, highest score first.

    correct, counted [thresholds, n]: whether a detection found an object, and whether it counts.
    picture [n]: where it is. objects [pictures]: how many there are to find.
    """

    correct: Booleans
    counted: Booleans
    picture: Ints
    objects: Ints

    def precision(self, weights: Ints) -> float:
        """Return the average precision over all thresholds; NaN without an object.

        weights [pictures]: how often each picture counts. As COCO's own code accumulates it.
        """
        total = int(self.objects @ weights)
        if not total:
            return float("nan")
        each = weights[self.picture]
        right = np.cumsum(self.correct * self.counted * each, axis=1)
        wrong = np.cumsum(~self.correct * self.counted * each, axis=1)
        recall = right / total
        precision = right / np.maximum(right + wrong, np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        padded = np.pad(envelope, ((0, 0), (0, 1)))
        at = [np.searchsorted(row, _RECALLS, side="left") for row in recall]
        return float(np.mean([row[index] for row, index in zip(padded, at, strict=True)]))


@dataclass(frozen=True)
class DetectionAccuracy:
    """A detector's boxes, matched with the truth by COCO's rules.

    Classes are those with an object on any picture; figures are means over them.
    """

    pictures: int
    classes: dict[int, _Class]
    by_size: dict[str, dict[int, _Class]] = field(repr=False)

    @cached_property
    def map50_95(self) -> Statistic:
        """Mean average precision over IoU 0.50 to 0.95."""
        return self._statistic(self.classes)

    @cached_property
    def map50(self) -> Statistic:
        """Mean average precision at IoU 0.50."""
        return self._statistic({k: _first_threshold(c) for k, c in self.classes.items()})

    def of_size(self, size: str) -> float:
        """Return mAP50-95 on objects of one of SIZES; NaN without any."""
        return _mean_precision(self.by_size[size], np.ones(self.pictures, np.int64))

    def of_class(self, class_id: int) -> float:
        """Return AP50-95 of one class; NaN if no picture has an object of it."""
        one = self.classes.get(class_id)
        return one.precision(np.ones(self.pictures, np.int64)) if one else float("nan")

    def _statistic(self, classes: dict[int, _Class]) -> Statistic:
        once = np.ones(self.pictures, np.int64)
        drawn = resamples(self.pictures)
        moved = np.array([_mean_precision(classes, weights) for weights in drawn])
        return Statistic(_mean_precision(classes, once), moved, self.pictures)


def detection_accuracy(
    found: Sequence[Boxes], truth: Sequence[Boxes], sizes: Sequence[tuple[int, int]]
) -> DetectionAccuracy:
    """Match a detector's boxes with the truth, picture by picture.

    found: with scores from near 0 on, so that the whole curve of precision is seen. sizes: width
    and height of each picture in pixels. The matching is pycocotools' own.
    """
    evaluated = _evaluated(found, truth, sizes)
    pictures = len(sizes)
    each = np.array(evaluated.evalImgs, dtype=object).reshape(
        len(evaluated.params.catIds), len(evaluated.params.areaRng), pictures
    )
    ids = [int(one) for one in evaluated.params.catIds]
    areas = [
        {k: _gathered(list(each[index, area])) for index, k in enumerate(ids)} for area in range(4)
    ]
    whole, *others = areas
    return DetectionAccuracy(pictures, whole, dict(zip(SIZES, others, strict=True)))


def _evaluated(
    found: Sequence[Boxes], truth: Sequence[Boxes], sizes: Sequence[tuple[int, int]]
) -> Any:
    objects: list[dict[str, Any]] = [
        {"image_id": index, "category_id": int(k), "bbox": _xywh(box), "iscrowd": int(crowd)}
        for index, one in enumerate(truth)
        for box, k, crowd in zip(one.xyxy, one.class_ids, one.crowds, strict=True)
    ]
    for number, one in enumerate(objects, 1):
        one |= {"id": number, "area": one["bbox"][2] * one["bbox"][3]}
    results = [
        {"image_id": index, "category_id": int(k), "bbox": _xywh(box), "score": float(score)}
        for index, one in enumerate(found)
        for box, k, score in zip(one.xyxy, one.class_ids, one.scores, strict=True)
    ]
    known = COCO()
    known.dataset = {
        "info": {},
        "images": [{"id": i, "width": w, "height": h} for i, (w, h) in enumerate(sizes)],
        "annotations": objects,
        "categories": [{"id": k} for k in sorted({one["category_id"] for one in objects})],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its timings
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(results) if results else COCO(), "bbox")
        evaluation.params.imgIds = list(range(len(sizes)))
        evaluation.params.catIds = [one["id"] for one in known.dataset["categories"]]
        evaluation.evaluate()
    return evaluation


def _gathered(images: list[Any]) -> _Class:
    """Return one class from what pycocotools says of each picture; None: nothing of it there."""
    scores, correct, counted, where, objects = [], [], [], [], []
    for index, one in enumerate(images):
        if one is None:
            objects.append(0)
            continue
        scores.append(np.asarray(one["dtScores"], np.float64))
        correct.append(np.asarray(one["dtMatches"]) > 0)
        counted.append(~np.asarray(one["dtIgnore"], np.bool_))
        where.append(np.full(len(one["dtScores"]), index))
        objects.append(int((np.asarray(one["gtIgnore"]) == 0).sum()))
    if not scores:
        none = np.zeros((10, 0), np.bool_)
        return _Class(none, none, np.zeros(0, np.int64), np.array(objects))
    order = np.argsort(-np.concatenate(scores), kind="mergesort")  # stable, as COCO sorts
    return _Class(
        np.concatenate(correct, axis=1)[:, order],
        np.concatenate(counted, axis=1)[:, order],
        np.concatenate(where)[order],
        np.array(objects),
    )


def _first_threshold(one: _Class) -> _Class:
    return _Class(one.correct[:1], one.counted[:1], one.picture, one.objects)


def _mean_precision(classes: dict[int, _Class], weights: Ints) -> float:
    each = np.array([one.precision(weights) for one in classes.values()])
    known = each[~np.isnan(each)]
    return float(known.mean()) if len(known) else float("nan")


def _xywh(box: Floats) -> list[float]:
    return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]


def average_precision(rows: Sequence[tuple[float, bool]], objects: int) -> float:
    """Return COCO's average precision of one class from score and correctness of each box."""
    order = sorted(range(len(rows)), key=lambda index: -rows[index][0])
    correct = np.array([[rows[index][1] for index in order]], np.bool_).reshape(1, -1)
    one = _Class(
        correct, np.ones_like(correct), np.zeros(correct.shape[1], np.int64), np.array([objects])
    )
    return one.precision(np.ones(1, np.int64))


def matched(found: Boxes, truth: Boxes, iou: float = 0.5) -> tuple[Booleans, Booleans]:
    """Return which boxes found an object, and which objects were found; same class, best first."""
    overlaps = overlap(found.xyxy, truth.xyxy)
    overlaps[found.class_ids[:, None] != truth.class_ids[None, :]] = 0
    right, seen = np.zeros(len(found.scores), np.bool_), np.zeros(len(truth.scores), np.bool_)
    for index in np.argsort(-found.scores, kind="stable"):
        free = np.where(seen, 0.0, overlaps[index])
        if len(free) and free.max() >= iou:
            seen[int(free.argmax())] = right[index] = True
    return right, seen


def overlap(one: Floats, other: Floats) -> Floats:
    """Return the intersection over union of boxes [n, 4] with boxes [m, 4]: [n, m]."""
    top_left = np.maximum(one[:, None, :2], other[None, :, :2])
    bottom_right = np.minimum(one[:, None, 2:], other[None, :, 2:])
    inside = np.clip(bottom_right - top_left, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None, :] - inside
    shared: Floats = inside / np.maximum(union, np.spacing(1))
    return shared
