"""Checks boxes after suppression against the original's candidates, independently of ties.

Suppression is chaotic: of two overlapping candidates whose scores nearly tie, either may be kept,
and the boxes that it covers change with it. Whichever way ties fall, every valid result has three
properties: each kept box is a candidate, no two kept boxes of a class overlap too much, and each
removed candidate is covered by a kept box with a higher score.
"""

import numpy as np
import numpy.typing as npt

from visavis_export.families.original import Candidates, Considered, Floats, Found
from visavis_server.vision.boxes import iou

# Suppression offsets each class by this many pixels, in float32, which rounds edges.
_LABEL_OFFSET = 7680
_MAX_CANDIDATES = 30_000
# The difference of an IoU that rounding alone can cause.
_IOU_STEP = 1e-3


def find_difference(
    ours: Found,
    inside: Floats,
    original: Considered,
    thresholds: tuple[float, float],
    steps: tuple[float, float, float],
    moved: Floats,
    most: int = 300,
) -> str | None:
    """Return how an answer contradicts the original's candidates; None if it does not.

    inside: our boxes in pixels of the input, unclipped: clipping makes boxes at the border equal.
    thresholds: score and IoU. steps: the largest allowed difference of a score, of an edge in
    pixels of the input, and of an edge in pixels of the picture. moved: the largest edge
    difference of each of the original's rows, in pixels of the input. most: the limit of ours.
    """
    (score_threshold, iou_threshold), (step, step_inside_px, step_px) = thresholds, steps
    considered, rows = original.considered(score_threshold - step)
    order = np.argsort(-considered.scores, kind="stable")
    own, moved = considered.take(order), moved[rows[order]]
    floor = score_threshold
    if len(order) > _MAX_CANDIDATES:
        floor = float(own.scores[_MAX_CANDIDATES - 1])
    chosen = _candidates_of(ours, inside, own, step, step_inside_px)
    if (alone := np.flatnonzero(chosen < 0)).size:
        return f"{_text(ours, alone[0])} is not among PyTorch's candidates"
    distance = np.abs(ours.boxes - original.in_picture(own.boxes[chosen])).max(1, initial=0)
    if (off := np.flatnonzero(distance > step_px)).size:
        return f"{_text(ours, off[0])} is {distance[off[0]]:.2g} px off; the limit is {step_px:g}"
    overlap = iou(own.boxes[chosen], own.boxes)  # [ours, candidates]
    slack = _slack(own, chosen, moved)
    same = ours.class_ids[:, None] == ours.class_ids[None]
    twice = np.triu(same & (overlap[:, chosen] > iou_threshold + slack[:, chosen]), 1)
    if twice.any():
        one, other = np.argwhere(twice)[0]
        return (
            f"{_text(ours, one)} and {_text(ours, other)} are both kept, with an IoU of "
            f"{overlap[one, chosen[other]]:.3f}"
        )
    floor = max(floor, float(ours.scores.min())) if len(ours.scores) >= most else floor
    tied = own.scores - own.second_scores <= step
    covered = (
        (ours.class_ids[:, None] == own.class_ids[None])
        | (tied & (ours.class_ids[:, None] == own.second_ids[None]))
    ) & (ours.scores[:, None] >= own.scores[None] - step)
    covered &= overlap > iou_threshold - slack
    gone = (own.scores > floor + step) & ~covered.any(0)
    gone[chosen] = False
    if gone.any():
        lost = Found(original.in_picture(own.boxes[gone]), own.scores[gone], own.class_ids[gone])
        return f"{_text(lost, 0)} is missing: no kept box covers it"
    return None


def _candidates_of(
    ours: Found, inside: Floats, own: Candidates, step: float, step_px: float
) -> npt.NDArray[np.intp]:
    """Return the index of the candidate that each of our boxes is; -1 if it is no candidate."""
    chosen = np.full(len(ours.scores), -1, np.intp)
    distance = np.abs(inside[:, None] - own.boxes[None]).max(2, initial=0)
    tied = own.scores - own.second_scores <= step
    label = (ours.class_ids[:, None] == own.class_ids[None]) | (
        tied & (ours.class_ids[:, None] == own.second_ids[None])
    )
    near = np.abs(ours.scores[:, None] - own.scores[None]) <= step
    pairs = np.argwhere(label & near & (distance <= step_px))
    taken: set[int] = set()
    for one, other in pairs[np.argsort(distance[tuple(pairs.T)], kind="stable")].tolist():
        if chosen[one] < 0 and other not in taken:
            chosen[one] = other
            taken.add(other)
    return chosen


def _slack(own: Candidates, chosen: npt.NDArray[np.intp], moved: Floats) -> Floats:
    """Return the possible error of the IoU of each pair [ours, candidates]."""
    rounded = np.spacing((own.class_ids.max(initial=0) + 1) * np.float32(_LABEL_OFFSET))
    edges = moved + rounded
    sides = np.maximum((own.boxes[:, 2:] - own.boxes[:, :2]).min(1), 1e-6)
    pair = (edges[chosen, None] + edges[None]) / np.minimum(sides[chosen, None], sides[None])
    return np.asarray(_IOU_STEP + 2 * pair, np.float32)


def _text(found: Found, index: int) -> str:
    return (
        f"class {found.class_ids[index]} with score {found.scores[index]:.4f} at "
        f"{np.round(found.boxes[index], 1).tolist()}"
    )
