"""YOLOv5's heads: computed and decoded for the cells that show something."""

import numpy as np

from server.card import ModelInput, Yolov5Heads
from server.families.finite import require_finite
from server.results import Tensor


class Heads:
    """The heads of one detector.

    A score is objectness times class, so that objectness, which the graph gives for all cells,
    rules out nearly every one of them before the rest of it is computed.
    """

    def __init__(self, heads: Yolov5Heads, model_input: ModelInput, classes: int) -> None:
        self._scales = len(heads.strides)
        self._outputs = 5 + classes
        # One block of cells for each scale and anchor, in the order of the maps; in a cell's row is
        # what its box is made from: column, row, stride, and the anchor's sides.
        blocks = []
        self._blocks: list[tuple[int, int]] = []  # scale, anchor
        for scale, (anchors, stride) in enumerate(zip(heads.anchors, heads.strides, strict=True)):
            shape = (model_input.height // stride, model_input.width // stride)
            row, column = np.indices(shape, np.float32).reshape(2, -1)
            for anchor, sides in enumerate(anchors):
                known = (column, row, *(np.full_like(row, n) for n in (stride, *sides)))
                blocks.append(np.stack(known, axis=1))
                self._blocks.append((scale, anchor))
        self._cells = np.concatenate(blocks)  # [n, 5]
        self._ends = np.cumsum([len(block) for block in blocks])

    def decode(self, outputs: list[Tensor], threshold: float | None) -> tuple[Tensor, Tensor]:
        """Return boxes cxcywh [n, 4] in pixels of the input, and class scores [n, classes].

        Only of cells whose objectness is above the threshold; None: of all, be they numbers or
        not. outputs: the graph's, in the document's order, for a batch of 1. Raises ModelFailed.
        """
        objectness = np.concatenate([o.ravel() for o in outputs[: self._scales]])
        if threshold is None:
            cells = np.arange(objectness.size)
        else:
            require_finite(objectness)
            cells = np.flatnonzero(objectness > _logit(threshold))
        logits = self._logits(cells, outputs[self._scales :])
        raw, cell = _sigmoid(logits), self._cells[cells]
        if threshold is not None:
            require_finite(logits)
            keep = raw[:, 4] > threshold
            raw, cell = raw[keep], cell[keep]
        # Each cell's centre moves by -0.5 to 1.5 cells; sides grow to at most 4 anchors.
        center = (raw[:, :2] * 2 + (cell[:, :2] - np.float32(0.5))) * cell[:, 2:3]
        size = (raw[:, 2:4] * 2) ** 2 * cell[:, 3:]
        return np.concatenate((center, size), axis=1), raw[:, 5:] * raw[:, 4:5]

    def _logits(self, cells: np.ndarray, outputs: list[Tensor]) -> Tensor:
        """Return what the heads give for some cells, in ascending order: [n, 5 + classes].

        outputs: the features of each scale, then the weights of each.
        """
        found = []
        start = first = 0
        ends = np.searchsorted(cells, self._ends)
        with np.errstate(all="ignore"):  # whoever reads them looks for what is no number
            for (scale, anchor), end, next_first in zip(
                self._blocks, ends, self._ends, strict=True
            ):
                (features,), (weights,) = outputs[scale], outputs[self._scales + scale]
                head = weights[anchor * self._outputs : (anchor + 1) * self._outputs]
                read = features.reshape(-1, features.shape[-1])[cells[start:end] - first]
                found.append(read @ head[:, :-1].T + head[:, -1])
                start, first = end, next_first
        return np.concatenate(found)


def _logit(threshold: float) -> float:
    """Return the least logit of cells that may be above a threshold: a margin lower than exact."""
    if not 0 < threshold < 1:
        return -np.inf
    return float(np.log(threshold / (1 - threshold))) - 0.01


def _sigmoid(values: Tensor) -> Tensor:
    with np.errstate(over="ignore"):  # exp of a large number is inf, and 1 / inf is right
        return np.float32(1) / (np.float32(1) + np.exp(-values))
