"""Candidates of detectors: the best class of each, suppression, and the final detections."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from visavis_server.arrays import Tensor
from visavis_server.card import DetectionDefaults
from visavis_server.vision import boxes
from visavis_server.vision.results import Box, Detected, Detection, DetectOptions


@dataclass(frozen=True, slots=True)
class Rows:
    """Candidates of a detector.

    boxes: xyxy [n, 4] in pixels of the input. scores, class_ids: [n].
    """

    boxes: boxes.Boxes
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.intp]

    def take(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> "Rows":
        """Return some of the candidates, by mask or by index."""
        return Rows(self.boxes[which], self.scores[which], self.class_ids[which])

    def best(self, most: int) -> "Rows":
        """Return the candidates with the highest scores, highest first; equal ones in order."""
        return self.take(np.argsort(-self.scores, kind="stable")[:most])


def best_class(xyxy: boxes.Boxes, scores: Tensor, threshold: float) -> Rows:
    """Return each row with its best class, where that scores above the threshold.

    xyxy: [n, 4]. scores: of every class, [n, classes].
    """
    class_ids = scores.argmax(axis=1)
    best = np.take_along_axis(scores, class_ids[:, None], axis=1)[:, 0]
    return Rows(xyxy, best, class_ids).take(best > threshold)


def wanted(rows: Rows, labels: Sequence[str], options: DetectOptions) -> Rows:
    """Return the candidates whose label the request keeps; labels: the model's, by class id."""
    if not options.labels:
        return rows
    names = set(options.labels)
    return rows.take(np.isin(rows.class_ids, [i for i, one in enumerate(labels) if one in names]))


def suppressed(
    rows: Rows, defaults: DetectionDefaults, options: DetectOptions, *, exact: bool = False
) -> Rows:
    """Return the candidates that non-maximum suppression keeps, highest score first.

    exact: compute overlaps in float64, where keeping labels apart rounds nothing.
    """
    kept = boxes.non_maximum_suppression(
        rows.boxes.astype(np.float64) if exact else rows.boxes,
        rows.scores,
        rows.class_ids,
        given(options.iou_threshold, defaults.iou_threshold),
        given(options.max_detections, defaults.max_detections),
        options.class_agnostic,
    )
    return rows.take(kept)


def detected(rows: Rows, original: boxes.Boxes, labels: Sequence[str]) -> Detected:
    """Return the final candidates as detections; original: their boxes in the picture, [n, 4]."""
    found = zip(original, rows.class_ids, rows.scores, strict=True)
    return Detected(
        tuple(
            Detection(
                Box(*map(float, box)), int(class_id), labels[class_id], min(float(score), 1.0)
            )
            for box, class_id, score in found
        )
    )


_T = TypeVar("_T")


def given(value: _T | None, default: _T) -> _T:
    """Return a request's option, or the model's default if the request does not set it."""
    return default if value is None else value
