"""Faster R-CNN's second stage: candidates from proposals, logits and deltas, as in torchvision."""

import numpy as np
import numpy.typing as npt

from visavis_server.arrays import Tensor
from visavis_server.vision.boxes import Boxes
from visavis_server.vision.families.box_coding import clip, decode
from visavis_server.vision.families.candidates import Rows
from visavis_server.vision.families.finite import require_finite

# torchvision's weights of the deltas, and the side below which it drops a box.
_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
_LEAST_SIDE = 1e-2


class FasterRcnnDecoder:
    """Decodes the proposals of one Faster R-CNN.

    A candidate is a pair of a proposal and a class other than class 0, the background.
    """

    # A thousand proposals have 90,000 candidates; those with the highest scores suffice.
    most_candidates = 5000

    def proposals(self, outputs: list[Tensor]) -> Boxes:
        """Return the proposals of the picture, without the padding."""
        return _Proposals(outputs).boxes

    def candidates(self, outputs: list[Tensor], size: tuple[int, int], threshold: float) -> Rows:
        """Return the pairs that score above a threshold.

        size: width and height to which boxes are cut off. Raises ModelFailed if a number is not
        finite.
        """
        proposals = _Proposals(outputs)
        which, class_ids = np.nonzero(proposals.scores > threshold)
        rows = proposals.rows(which, class_ids, size)
        sides = rows.boxes[:, 2:] - rows.boxes[:, :2]
        return rows.take(np.flatnonzero((sides >= _LEAST_SIDE).all(axis=1)))

    def rows(self, outputs: list[Tensor], size: tuple[int, int]) -> Rows:
        """Return every proposal with its best class."""
        proposals = _Proposals(outputs)
        class_ids = proposals.scores.argmax(axis=1)
        return proposals.rows(np.arange(len(class_ids)), class_ids, size)


class _Proposals:
    """Proposals xyxy [n, 4] and the scores of their classes but the background [n, classes - 1]."""

    def __init__(self, outputs: list[Tensor]) -> None:
        boxes, logits, deltas = (output[0].astype(np.float32, copy=False) for output in outputs)
        require_finite(logits)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = (exponentials / exponentials.sum(axis=1, keepdims=True))[:, 1:]
        # The graph fills up to a fixed number with proposals that are background for certain.
        real = scores.any(axis=1)
        self.boxes, self.scores = boxes[real], scores[real]
        self._deltas = deltas[real].reshape(len(self.boxes), -1, 4)

    def rows(
        self,
        which: npt.NDArray[np.intp],
        classes: npt.NDArray[np.intp],
        size: tuple[int, int],
    ) -> Rows:
        """Return pairs of a proposal and a class, given as a column of the scores."""
        coded, references = self._deltas[which, classes + 1], self.boxes[which]
        require_finite(coded)
        require_finite(references)
        found = clip(decode(coded, references, _WEIGHTS), *size)
        return Rows(found, self.scores[which, classes], classes + 1)
