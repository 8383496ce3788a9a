"""YOLOv5's heads, decoded for the cells above a threshold, or for all cells as one tensor."""

import numpy as np

from visavis_server.arrays import Tensor
from visavis_server.card import ModelInput, Yolov5Heads
from visavis_server.runtime.buffers import Buffers
from visavis_server.vision.families.finite import require_finite
from visavis_server.vision.families.sigmoid import logit, sigmoid

# Cells of all anchors computed at a time: with 80 classes they take 1 MiB, about an L2 cache.
_CELLS_AT_ONCE = 3200


class Heads:
    """The heads of one detector.

    A score is objectness times class probability, so objectness, which the graph outputs for all
    cells, rules out nearly all of them before the rest is computed.
    """

    def __init__(self, heads: Yolov5Heads, model_input: ModelInput, classes: int) -> None:
        self._scales = len(heads.strides)
        self._outputs = 5 + classes
        # One block of cells for each scale and anchor, in the order of the maps. A cell's row has
        # the numbers for its box: column, row, stride, and the anchor's sides.
        blocks = []
        self._blocks: list[tuple[int, int]] = []  # scale, anchor
        for scale, (anchors, stride) in enumerate(zip(heads.anchors, heads.strides, strict=True)):
            shape = (model_input.height // stride, model_input.width // stride)
            row, column = np.indices(shape, np.float32).reshape(2, -1)
            for anchor, sides in enumerate(anchors):
                columns = (column, row, *(np.full_like(row, n) for n in (stride, *sides)))
                blocks.append(np.stack(columns, axis=1))
                self._blocks.append((scale, anchor))
        self._cells = np.concatenate(blocks)  # [n, 5]
        self._ends = np.cumsum([len(block) for block in blocks])
        # Of decode_all: 8 MiB for 640x640 pixels and 80 classes.
        self._buffers = Buffers(kept=1)

    def decode(self, outputs: list[Tensor], threshold: float) -> tuple[Tensor, Tensor]:
        """Return boxes cxcywh [n, 4] in pixels of the input, and class scores [n, classes].

        Only cells whose objectness is above the threshold are decoded. outputs: the graph's, in
        the document's order, for a batch of 1. Raises ModelFailed if a number is not finite.
        """
        objectness = np.concatenate([o.ravel() for o in outputs[: self._scales]])
        require_finite(objectness)
        cells = np.flatnonzero(objectness > logit(threshold))
        logits = self._logits(cells, outputs[self._scales :])
        raw, cell = sigmoid(logits), self._cells[cells]
        require_finite(logits)
        keep = raw[:, 4] > threshold
        raw, cell = raw[keep], cell[keep]
        boxes = _boxes(raw[:, :4].T, cell.T).T
        return boxes, raw[:, 5:] * raw[:, 4:5]

    def class_maps(self, outputs: list[Tensor], class_id: int) -> list[Tensor]:
        """Return for each scale the best score of a class among each cell's anchors: [h, w].

        outputs: as for decode. Numbers that are not finite are passed on.
        """
        maps = []
        scales = self._scales
        objectness_of, features_of = outputs[:scales], outputs[scales : 2 * scales]
        weights_of = outputs[2 * scales : 3 * scales]
        with np.errstate(all="ignore"):
            for (objectness,), (features,), (weights,) in zip(
                objectness_of, features_of, weights_of, strict=True
            ):
                rows = weights[5 + class_id :: self._outputs]  # one for each anchor
                logits = features @ rows[:, :-1].T + rows[:, -1]  # [h, w, anchors]
                scores = sigmoid(objectness.transpose(1, 2, 0)) * sigmoid(logits)
                maps.append(scores.max(axis=2))
        return maps

    def decode_all(self, outputs: list[Tensor]) -> Tensor:
        """Return every cell [4 + classes, n]: boxes cxcywh in pixels of the input, class scores.

        outputs: as for decode. Numbers that are not finite are passed on.
        """
        decoded = self._buffers.empty(self._outputs - 1, len(self._cells))
        scratch = np.empty(self._outputs * _CELLS_AT_ONCE, np.float32)
        features_of, weights_of = outputs[self._scales : -self._scales], outputs[-self._scales :]
        start = 0
        with np.errstate(all="ignore"):
            for (features,), (weights,) in zip(features_of, weights_of, strict=True):
                kernel, bias = np.ascontiguousarray(-weights[:, :-1]), -weights[:, -1:]
                anchors = len(weights) // self._outputs
                rows = features.reshape(-1, features.shape[-1])
                at_once = _CELLS_AT_ONCE // anchors
                for first in range(0, len(rows), at_once):
                    read = rows[first : first + at_once]
                    # 1 + exp(-logit), the sigmoid's denominator. [anchors * (5 + classes), cells]
                    below = scratch[: len(weights) * len(read)].reshape(len(weights), -1)
                    np.matmul(kernel, read.T, out=below)
                    below += bias
                    np.exp(below, out=below)
                    below += 1
                    for anchor, of_anchor in enumerate(np.split(below, anchors)):
                        begin = start + anchor * len(rows) + first
                        at = slice(begin, begin + len(read))
                        decoded[:4, at] = _boxes(np.reciprocal(of_anchor[:4]), self._cells[at].T)
                        np.divide(np.reciprocal(of_anchor[4]), of_anchor[5:], out=decoded[4:, at])
                start += anchors * len(rows)
        return decoded

    def _logits(self, cells: np.ndarray, outputs: list[Tensor]) -> Tensor:
        """Return the logits of some cells, given in ascending order: [n, 5 + classes].

        outputs: the features of each scale, then the weights of each.
        """
        logits = []
        start = first = 0
        ends = np.searchsorted(cells, self._ends)
        with np.errstate(all="ignore"):  # the caller checks for NaN and infinity
            for (scale, anchor), end, next_first in zip(
                self._blocks, ends, self._ends, strict=True
            ):
                (features,), (weights,) = outputs[scale], outputs[self._scales + scale]
                head = weights[anchor * self._outputs : (anchor + 1) * self._outputs]
                read = features.reshape(-1, features.shape[-1])[cells[start:end] - first]
                logits.append(read @ head[:, :-1].T + head[:, -1])
                start, first = end, next_first
        return np.concatenate(logits)


def _boxes(raw: Tensor, cells: Tensor) -> Tensor:
    """Return boxes cxcywh [4, n] from the heads' sigmoids [4, n] and the cells [5, n]."""
    # Each cell's centre moves by -0.5 to 1.5 cells; sides grow to at most 4 anchors.
    center = (raw[:2] * 2 + (cells[:2] - np.float32(0.5))) * cells[2]
    return np.concatenate((center, (raw[2:] * 2) ** 2 * cells[3:]))
