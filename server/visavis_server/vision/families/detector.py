"""YOLO's detection: letterbox before, decode and non-maximum suppression after."""

import cv2
import numpy as np

from visavis_server.arrays import Image, Tensor
from visavis_server.card import CandidateRows, Letterbox, ModelDocument, Yolov5Heads
from visavis_server.errors import InvalidRequest
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
from visavis_server.vision.heat_maps import Area, Explain, Grid, HeatMap, grid_of
from visavis_server.vision.results import Detected, DetectOptions

# YOLOv5 considers at most this many candidates, highest scores first.
_MAX_CANDIDATES = 30_000
# Score thresholds at which the best candidate is looked for; most pictures have one at the first.
_THRESHOLDS = (0.1, 0.01, 0.001, -1.0)


class Detector:
    """Pre- and post-processing of one detector of the YOLO family."""

    def __init__(self, document: ModelDocument) -> None:
        assert isinstance(document.input.resize, Letterbox)
        assert isinstance(document.output, Yolov5Heads | CandidateRows)
        assert document.detection_defaults is not None
        self._name = document.name
        self._input = document.input
        self._letterbox = document.input.resize
        self._layout = document.output.layout
        self._heads: Heads | None = None
        self._grid: Grid | None = None
        if isinstance(document.output, Yolov5Heads):
            strides = document.output.strides
            self._grid = Grid(document.input.width, document.input.height, strides)
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

    def require_explainable(self, explain: Explain) -> None:
        """Raise InvalidRequest if the outputs have no cells, or the model not this label."""
        if self._layout == "end_to_end":
            raise self._no_cells("its graph returns only the boxes that are left after suppression")
        explain.require_label(self._name, self._labels)

    def explain(
        self,
        outputs: list[Tensor],
        geometry: boxes.LetterboxPlacement,
        answer: Detected,
        options: DetectOptions,
    ) -> HeatMap:
        """Return the best score of a class in each cell: objectness times class, of all anchors.

        Scales are combined by their maximum. outputs: as for postprocess. Raises InvalidRequest if
        the cells of the candidates are unknown, ModelFailed if a score is not finite.
        """
        assert options.explain is not None
        if options.explain.label is None:
            class_ids = [self._top_class(outputs, answer, options)]
        else:
            class_ids = options.explain.class_ids(self._labels)
        grid, maps = self._class_maps(outputs, class_ids)
        values = grid.combine(maps)
        require_finite(values)
        # Only the cells that show some of the picture; the others are padding.
        side = grid.finest
        left, top, right, bottom = geometry.content
        left, top, right, bottom = left // side, top // side, -(-right // side), -(-bottom // side)
        corners = np.array([[left, top, right, bottom]], np.float32) * side
        (area,) = geometry.unclipped(corners, self._letterbox.unpad).tolist()
        return HeatMap(
            class_ids[0], self._labels[class_ids[0]], values[top:bottom, left:right], Area(*area)
        )

    def _top_class(self, outputs: list[Tensor], answer: Detected, options: DetectOptions) -> int:
        """Return the class of the best detection, or of the best candidate if there is none."""
        if answer.detections:
            return answer.detections[0].class_id
        for threshold in _THRESHOLDS:
            rows = wanted(self.candidates(outputs, threshold), self._labels, options)
            if rows.scores.size:
                return int(rows.class_ids[rows.scores.argmax()])
        return self._labels.index(options.labels[0]) if options.labels else 0

    def _class_maps(self, outputs: list[Tensor], class_ids: list[int]) -> tuple[Grid, list[Tensor]]:
        """Return the grid, and for each of its scales the best score of the classes: [h, w]."""
        if self._heads and self._grid:
            of_each = [self._heads.class_maps(outputs, class_id) for class_id in class_ids]
            return self._grid, [np.maximum.reduce(maps) for maps in zip(*of_each, strict=True)]
        (rows,) = outputs[0].astype(np.float32, copy=False)
        if self._layout == "yolov5_rows":  # [n, 5 + classes], anchor by anchor in each scale
            scores, anchors = rows[:, [5 + i for i in class_ids]].max(axis=1) * rows[:, 4], 3
        else:  # [4 + classes, n]
            scores, anchors = rows[[4 + i for i in class_ids]].max(axis=0), 1
        grid = grid_of(self._input.width, self._input.height, len(scores) // anchors)
        if grid is None or len(scores) % anchors:
            raise self._no_cells(
                f"its {len(scores)} candidates are not those of YOLO's cells at "
                f"{self._input.width}x{self._input.height}"
            )
        ends = np.cumsum([anchors * lines * columns for lines, columns in grid.cells])
        parts = np.split(scores, ends[:-1])
        shaped = zip(parts, grid.cells, strict=True)
        return grid, [part.reshape(anchors, *cells).max(axis=0) for part, cells in shaped]

    def _no_cells(self, why: str) -> InvalidRequest:
        return InvalidRequest(
            "explain",
            f"model {self._name} has no heat maps: {why}; export its weights with `visavis export`",
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
