"""Detection: letterbox before, decode and non-maximum suppression after."""

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from visavis_server.arrays import Image, Tensor
from visavis_server.card import ClassScores, Letterbox, ModelDocument, Yolov5Heads
from visavis_server.vision import boxes
from visavis_server.vision.families.finite import require_finite
from visavis_server.vision.families.heads import Heads
from visavis_server.vision.families.normalization import normalize, normalized_values
from visavis_server.vision.results import Box, Detected, Detection, DetectOptions

# YOLOv5 considers at most this many candidates, highest scores first.
_MAX_CANDIDATES = 30_000


@dataclass(frozen=True, slots=True)
class Rows:
    """Candidates before suppression.

    boxes: xyxy [n, 4] in pixels of the input. scores, class_ids: of the best class, [n].
    """

    boxes: boxes.Boxes
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.intp]


class Detector:
    """Pre- and post-processing of one detector."""

    def __init__(self, document: ModelDocument) -> None:
        assert isinstance(document.input.resize, Letterbox)
        assert not isinstance(document.output, ClassScores)
        assert document.detection_defaults is not None
        self._input = document.input
        self._letterbox = document.input.resize
        self._layout = document.output.layout
        self._heads: Heads | None = None
        if isinstance(document.output, Yolov5Heads):
            self._heads = Heads(document.output, document.input, len(document.label_set.labels))
        self._labels = document.label_set.labels
        self._defaults = document.detection_defaults
        self._values = normalized_values(document.input)
        self.input_shape = (3, document.input.height, document.input.width)

    def preprocess(self, image: Image, out: Tensor) -> boxes.LetterboxPlacement:
        """Write the letterboxed image into `out` [3, height, width]; return its position."""
        height, width = image.shape[:2]
        place = boxes.letterbox(width, height, self._input.width, self._input.height)
        size = (place.content_width, place.content_height)
        if size != (width, height):
            image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        left, top, right, bottom = place.content
        normalize(image, self._values, out[:, top:bottom, left:right])
        grey = self._values[:, self._letterbox.pad_value, None, None]
        out[:, :top] = out[:, bottom:] = grey
        out[:, top:bottom, :left] = out[:, top:bottom, right:] = grey
        return place

    def postprocess(
        self, outputs: list[Tensor], geometry: boxes.LetterboxPlacement, options: DetectOptions
    ) -> Detected:
        """Return the detections; outputs: the graph's, for a batch of 1.

        Raises ModelFailed if a number that they depend on is not finite.
        """
        defaults = self._defaults
        threshold = _given(options.score_threshold, defaults.score_threshold)
        most = _given(options.max_detections, defaults.max_detections)
        rows = self.candidates(outputs, threshold)
        if options.labels:
            names = set(options.labels)
            wanted = [i for i, label in enumerate(self._labels) if label in names]
            rows = _take(rows, np.isin(rows.class_ids, wanted))
        if self._layout == "end_to_end":
            kept = np.argsort(-rows.scores, kind="stable")[:most]
        else:
            if rows.scores.size > _MAX_CANDIDATES:
                rows = _take(rows, np.argsort(-rows.scores, kind="stable")[:_MAX_CANDIDATES])
            kept = boxes.non_maximum_suppression(
                rows.boxes,
                rows.scores,
                rows.class_ids,
                _given(options.iou_threshold, defaults.iou_threshold),
                most,
                options.class_agnostic,
            )
        original = geometry.to_original(rows.boxes[kept], self._letterbox.unpad)
        return Detected(
            tuple(
                Detection(
                    Box(*map(float, box)),
                    int(class_id),
                    self._labels[class_id],
                    min(float(score), 1.0),
                )
                for box, class_id, score in zip(
                    original, rows.class_ids[kept], rows.scores[kept], strict=True
                )
            )
        )

    def as_tensor(self, outputs: list[Tensor]) -> Tensor:
        """Return all candidates [4 + classes, n]: boxes cxcywh in pixels of the input, scores."""
        if self._heads:
            return self._heads.decode_all(outputs)
        rows = outputs[0][0].astype(np.float32, copy=False)
        if self._layout == "ultralytics_rows":
            return rows
        if self._layout == "end_to_end":
            scores = np.zeros((len(rows), len(self._labels)), np.float32)
            scores[np.arange(len(rows)), rows[:, 5].astype(np.intp)] = rows[:, 4]
            return np.vstack((boxes.xyxy_to_cxcywh(rows[:, :4]).T, scores.T))
        return np.vstack((rows[:, :4].T, (rows[:, 5:] * rows[:, 4:5]).T))

    def candidates(self, outputs: list[Tensor], threshold: float) -> Rows:
        """Return the rows whose best class scores above the threshold; -1: all rows."""
        if self._heads:
            rows, scores = self._heads.decode(outputs, threshold)
            return _best_class(boxes.cxcywh_to_xyxy(rows), scores, threshold)
        rows = outputs[0][0].astype(np.float32, copy=False)
        require_finite(rows)
        if self._layout == "end_to_end":  # [n, 6]
            rows = rows[rows[:, 4] > threshold]
            return Rows(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.intp))
        if self._layout == "yolov5_rows":  # [n, 5 + classes]
            rows = rows[rows[:, 4] > threshold]
            scores = rows[:, 5:] * rows[:, 4:5]
        else:  # [4 + classes, n]
            rows = rows[:, rows[4:].max(axis=0) > threshold].T
            scores = rows[:, 4:]
        return _best_class(boxes.cxcywh_to_xyxy(rows[:, :4]), scores, threshold)


def _best_class(xyxy: boxes.Boxes, scores: Tensor, threshold: float) -> Rows:
    """Return each row with its best class, where that scores above the threshold."""
    class_ids = scores.argmax(axis=1)
    best = np.take_along_axis(scores, class_ids[:, None], axis=1)[:, 0]
    return _take(Rows(xyxy, best, class_ids), best > threshold)


def _take(rows: Rows, which: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Rows:
    return Rows(rows.boxes[which], rows.scores[which], rows.class_ids[which])


_T = TypeVar("_T")


def _given(value: _T | None, default: _T) -> _T:
    return default if value is None else value
