"""Geometry of boxes: letterbox and back, overlap, non-maximum suppression."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float32]
"""Boxes xyxy, float32 [n, 4]."""

# YOLOv5 separates labels in NMS by shifting the boxes of each by a multiple of this offset.
_LABEL_OFFSET = np.float32(7680)

# Boxes compared at a time in suppression: more take memory, fewer take calls.
_FEW = 32


@dataclass(frozen=True, slots=True)
class LetterboxPlacement:
    """The position of a picture inside a padded input, all in pixels.

    content_width, content_height: of the scaled picture; left, top: of its corner.
    """

    width: int
    height: int
    content_width: int
    content_height: int
    left: int
    top: int
    input_width: int
    input_height: int

    @property
    def content(self) -> tuple[int, int, int, int]:
        """The picture inside the input: left, top, right, bottom."""
        return (
            self.left,
            self.top,
            self.left + self.content_width,
            self.top + self.content_height,
        )

    def to_original(self, boxes: Boxes, unpad: Literal["exact", "rounded"]) -> Boxes:
        """Return boxes [n, 4] of the input in pixels of the original picture, clipped to it."""
        limit = np.array([self.width, self.height, self.width, self.height], np.float32)
        return np.clip(self.unclipped(boxes, unpad), np.float32(0), limit)

    def unclipped(self, boxes: Boxes, unpad: Literal["exact", "rounded"]) -> Boxes:
        """Return boxes [n, 4] of the input in pixels of the original picture, also beyond it."""
        if unpad == "exact":
            scale = min(self.input_height / self.height, self.input_width / self.width)
            scale_x = scale_y = scale
            pad_x = (self.input_width - self.width * scale) / 2
            pad_y = (self.input_height - self.height * scale) / 2
        else:
            scale_x = self.content_width / self.width
            scale_y = self.content_height / self.height
            pad_x, pad_y = self.left, self.top
        pad = np.array([pad_x, pad_y, pad_x, pad_y], np.float32)
        scales = np.array([scale_x, scale_y, scale_x, scale_y], np.float32)
        moved: Boxes = (boxes - pad) / scales
        return moved


def letterbox(width: int, height: int, input_width: int, input_height: int) -> LetterboxPlacement:
    """Return the position of a picture in the input, scaled to fit and centred."""
    scale = min(input_height / height, input_width / width)
    # A picture thinner than half a pixel keeps one, as in ultralytics.
    content_width = max(round(width * scale), 1)
    content_height = max(round(height * scale), 1)
    # The 0.1 puts an odd pixel of padding at the right and bottom, as in YOLOv5.
    left = round((input_width - content_width) / 2 - 0.1)
    top = round((input_height - content_height) / 2 - 0.1)
    return LetterboxPlacement(
        width,
        height,
        content_width,
        content_height,
        left,
        top,
        input_width,
        input_height,
    )


def xyxy_to_cxcywh(boxes: Boxes) -> Boxes:
    """Convert boxes [n, 4] from corners to centre and size."""
    corners = boxes.reshape(-1, 2, 2)
    return np.concatenate((corners.mean(axis=1), corners[:, 1] - corners[:, 0]), axis=1)


def cxcywh_to_xyxy(boxes: Boxes) -> Boxes:
    """Convert boxes [n, 4] from centre and size to corners."""
    half = boxes[:, 2:4] / 2
    return np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)


def iou(one: npt.NDArray[Any], many: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the intersection over union of each box in `one` [n, 4] and `many` [m, 4]: [n, m].

    Computed in their own precision. Boxes without area overlap nothing.
    """
    # Edge by edge: NumPy is slow along an axis of two.
    x_min, y_min, x_max, y_max = one.T[:, :, None]
    width = np.minimum(x_max, many[:, 2]) - np.maximum(x_min, many[:, 0])
    height = np.minimum(y_max, many[:, 3]) - np.maximum(y_min, many[:, 1])
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    union = _area(one)[:, None] + _area(many)[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def non_maximum_suppression(
    boxes: Boxes | npt.NDArray[np.float64],
    scores: npt.NDArray[np.float32],
    class_ids: npt.NDArray[np.intp],
    iou_threshold: float,
    max_detections: int,
    class_agnostic: bool,
) -> npt.NDArray[np.intp]:
    """Return the indices of the boxes kept, highest score first.

    boxes: xyxy [n, 4]; scores, class_ids: [n]. Of two boxes of one label whose IoU exceeds
    iou_threshold, the one with the lower score is dropped; ties keep the first.
    """
    order = np.argsort(-scores, kind="stable")
    if not class_agnostic:
        # In float32, as in YOLOv5, the offset costs precision, which decides overlaps close to
        # the threshold.
        boxes = boxes + class_ids[:, None].astype(np.float32) * _LABEL_OFFSET
    boxes = boxes[order]
    kept: list[np.intp] = []
    while order.size and len(kept) < max_detections:
        # Compare the best few with each other, then those kept with the rest.
        few, rest = boxes[:_FEW], boxes[_FEW:]
        apart = iou(few, few) <= iou_threshold
        stays = np.ones(len(few), bool)
        for i in range(len(few)):
            if stays[i]:
                stays[i + 1 :] &= apart[i, i + 1 :]
        kept.extend(order[:_FEW][stays])
        left = (iou(few[stays], rest) <= iou_threshold).all(axis=0)
        order, boxes = order[_FEW:][left], rest[left]
    return np.array(kept[:max_detections], np.intp)


def _area(boxes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
