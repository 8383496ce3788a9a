"""RetinaNet's heads: candidates from the logits and deltas of each level, as in torchvision."""

import numpy as np
import numpy.typing as npt

from visavis_server.arrays import Tensor
from visavis_server.card import RetinanetHeads
from visavis_server.vision.boxes import Boxes
from visavis_server.vision.families.box_coding import clip, decode
from visavis_server.vision.families.candidates import Rows
from visavis_server.vision.families.finite import require_finite
from visavis_server.vision.families.sigmoid import logit, sigmoid

# torchvision's topk_candidates: the most pairs of anchor and class that a level contributes.
_MOST_PER_LEVEL = 1000
# Pixels per cell of the first level. torchvision pads the input to a multiple of 32.
_FIRST_STRIDE = 8


class RetinanetDecoder:
    """Decodes the heads of one RetinaNet. A candidate is a pair of an anchor and a class."""

    def __init__(self, heads: RetinanetHeads, classes: int) -> None:
        self._levels = len(heads.logits)
        self._classes = classes
        self._anchors = [np.array(anchors, np.float32) for anchors in heads.anchors]
        self.most_candidates = _MOST_PER_LEVEL * self._levels

    def proposals(self, outputs: list[Tensor]) -> Boxes:
        """Return none: there is one stage."""
        return np.empty((0, 4), np.float32)

    def candidates(self, outputs: list[Tensor], size: tuple[int, int], threshold: float) -> Rows:
        """Return the pairs that score above a threshold, the best of each level.

        size: width and height to which boxes are cut off. Raises ModelFailed if a number is not
        finite.
        """
        found = []
        for logits, deltas, grid in self._maps(outputs):
            require_finite(logits)
            flat = logits.astype(np.float32, copy=False).ravel()  # anchor, class, cell
            pairs = _highest(flat, logit(threshold))
            scores = sigmoid(flat[pairs])
            pairs, scores = pairs[scores > threshold], scores[scores > threshold]
            best = np.argsort(-scores, kind="stable")[:_MOST_PER_LEVEL]
            channel, cell = np.divmod(pairs[best], grid.cells)
            anchor, class_ids = np.divmod(channel, self._classes)
            found.append(
                Rows(self._boxes(deltas, grid, anchor, cell, size), scores[best], class_ids)
            )
        return _joined(found)

    def rows(self, outputs: list[Tensor], size: tuple[int, int]) -> Rows:
        """Return every anchor with its best class, in torchvision's order: level, cell, anchor."""
        found = []
        for logits, deltas, grid in self._maps(outputs):
            scores = sigmoid(logits.reshape(len(grid.anchors), self._classes, -1))
            cell, anchor = np.divmod(np.arange(grid.cells * len(grid.anchors)), len(grid.anchors))
            class_ids = scores.argmax(axis=1)[anchor, cell]
            found.append(
                Rows(
                    self._boxes(deltas, grid, anchor, cell, size),
                    scores[anchor, class_ids, cell],
                    class_ids,
                )
            )
        return _joined(found)

    def _maps(self, outputs: list[Tensor]) -> list[tuple[Tensor, Tensor, "_Grid"]]:
        """Return each level's logits and deltas, without the batch, and its grid."""
        height, width = outputs[0].shape[2:]
        size = height * _FIRST_STRIDE, width * _FIRST_STRIDE
        maps = []
        for level, anchors in enumerate(self._anchors):
            logits, deltas = outputs[level][0], outputs[self._levels + level][0]
            maps.append((logits, deltas, _Grid(anchors, logits.shape, size)))
        return maps

    @staticmethod
    def _boxes(
        deltas: Tensor,
        grid: "_Grid",
        anchor: npt.NDArray[np.intp],
        cell: npt.NDArray[np.intp],
        size: tuple[int, int],
    ) -> Boxes:
        coded = deltas.reshape(len(grid.anchors), 4, -1)[anchor, :, cell].astype(np.float32)
        require_finite(coded)
        return clip(decode(coded, grid.boxes(anchor, cell)), *size)


class _Grid:
    """The anchors of one level.

    anchors: width and height, [anchors, 2]. shape: of the level's map, [channels, rows, columns].
    size: height and width of the padded input.
    """

    def __init__(self, anchors: Tensor, shape: tuple[int, ...], size: tuple[int, ...]) -> None:
        (_, rows, columns), (height, width) = shape, size
        self.anchors = anchors
        self.cells = rows * columns
        self._columns = columns
        # torchvision divides without remainder: where the grid does not fit, cells lie closer.
        self._step = np.array([width // columns, height // rows], np.float32)

    def boxes(self, anchor: npt.NDArray[np.intp], cell: npt.NDArray[np.intp]) -> Boxes:
        """Return the anchors xyxy [n, 4] of some cells."""
        row, column = np.divmod(cell, self._columns)
        center = np.stack((column, row), axis=1).astype(np.float32) * self._step
        half = self.anchors[anchor] / 2
        return np.concatenate((center - half, center + half), axis=1)


def _highest(logits: Tensor, floor: float) -> npt.NDArray[np.intp]:
    """Return the indices of the logits above a floor: at most _MOST_PER_LEVEL, and ties."""
    if np.count_nonzero(logits > floor) <= _MOST_PER_LEVEL:
        return np.flatnonzero(logits > floor)
    return np.flatnonzero(logits >= np.partition(logits, -_MOST_PER_LEVEL)[-_MOST_PER_LEVEL])


def _joined(parts: list[Rows]) -> Rows:
    return Rows(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.class_ids for part in parts]),
    )
