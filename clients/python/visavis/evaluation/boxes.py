"""Boxes on a picture, and which of them are of the same object."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visavis.evaluation.statistics import Floats

Ints = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


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

    @property
    def real(self) -> "Boxes":
        """Those that are single objects."""
        return self.where(~self.crowds)


def matched(found: Boxes, truth: Boxes, iou: float = 0.5) -> tuple[Booleans, Booleans]:
    """Return which boxes found an object, and which objects were found; same class, best first."""
    overlaps = overlap(found.xyxy, truth.xyxy)
    overlaps[found.class_ids[:, None] != truth.class_ids[None, :]] = 0
    right, seen = np.zeros(len(found.scores), np.bool_), np.zeros(len(truth.scores), np.bool_)
    # Only those that overlap an object at all can find one.
    near = np.flatnonzero((overlaps >= iou).any(axis=1))
    for index in near[np.argsort(-found.scores[near], kind="stable")]:
        free = np.where(seen, 0.0, overlaps[index])
        if free.max() >= iou:
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
