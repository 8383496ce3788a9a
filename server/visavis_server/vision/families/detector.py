"""YOLO's detection: letterbox before, decode and non-maximum suppression after."""

import cv2
import numpy as np

from visavis_server.arrays import Image, Tensor
from visavis_server.card import CandidateRows, Letterbox, ModelDocument, Yolov5Heads
from visavis_server.vision import boxes
from visavis_server.vision.families.candidates import (
    Rows,
    best_class,
    detected,
    given,
    suppressed,
    wanted,
)
from visavis_server.vision.families.finite import require_finite
from visavis_server.vision.families.heads import Heads
from visavis_server.vision.families.normalization import normalize, normalized_values
from visavis_server.vision.results import Detected, DetectOptions

# YOLOv5 considers at most this many candidates, highest scores first.
_MAX_CANDIDATES = 30_000


class Detector:
    """Pre- and post-processing of one detector of the YOLO family."""

    def __init__(self, document: ModelDocument) -> None:
        assert isinstance(document.input.resize, Letterbox)
        assert isinstance(document.output, Yolov5Heads | CandidateRows)
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

    def shape_for(self, image: Image) -> tuple[int, int, int]:
        """Return the shape of the input, which is the same for every image."""
        return self.input_shape

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
        kept = self.kept(outputs, geometry, options)
        original = geometry.to_original(kept.boxes, self._letterbox.unpad)
        return detected(kept, original, self._labels)

    def kept(
        self, outputs: list[Tensor], geometry: boxes.LetterboxPlacement, options: DetectOptions
    ) -> Rows:
        """Return what remains after thresholds and suppression, highest score first."""
        threshold = given(options.score_threshold, self._defaults.score_threshold)
        rows = wanted(self.candidates(outputs, threshold), self._labels, options)
        if self._layout == "end_to_end":
            return rows.best(given(options.max_detections, self._defaults.max_detections))
        if rows.scores.size > _MAX_CANDIDATES:
            rows = rows.best(_MAX_CANDIDATES)
        return suppressed(rows, self._defaults, options)

    def proposals(self, outputs: list[Tensor]) -> boxes.Boxes:
        """Return none: there is one stage."""
        return np.empty((0, 4), np.float32)

    def rows(self, outputs: list[Tensor], geometry: boxes.LetterboxPlacement) -> Rows:
        """Return every row with its best class, before any threshold."""
        return self.candidates(outputs, -1.0)

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
            return best_class(boxes.cxcywh_to_xyxy(rows), scores, threshold)
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
        return best_class(boxes.cxcywh_to_xyxy(rows[:, :4]), scores, threshold)
