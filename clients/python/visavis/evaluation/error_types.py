"""Why a detector's boxes are wrong, and how much mAP50 each kind of error costs.

Source of the kinds and of how they are repaired: D. Bolya and others, TIDE: A General Toolbox for
Identifying Object Detection Errors, ECCV 2020, https://arxiv.org/abs/2008.08115.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from visavis.evaluation.accuracy import Booleans, Boxes, average_precision, matched, overlap
from visavis.evaluation.statistics import Floats

KINDS: Final = ("class", "place", "both", "duplicate", "background", "missed")
"""Wrong class; wrong place; both; an object found twice; no object there; an object missed."""

_FOUND, _NEAR = 0.5, 0.1
_RIGHT: Final = "right"


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """How many errors of a kind there are; lost: the mAP50 that repairing all of them gains."""

    count: int
    lost: float


@dataclass(frozen=True, slots=True)
class _Box:
    """A box; becomes: the class it has once it is repaired, None if it is removed then."""

    class_id: int
    score: float
    kind: str
    becomes: int | None = None


def error_kinds(found: Sequence[Boxes], truth: Sequence[Boxes]) -> dict[str, ErrorKind]:
    """Return each of KINDS for a detector; boxes are those above its score threshold."""
    boxes: list[_Box] = []
    objects: dict[int, int] = {}
    missed: dict[int, int] = {}
    for here, known in zip(found, truth, strict=True):
        real = known.where(~known.crowds)
        judged, unseen = _judged(here, real)
        boxes += judged
        for class_id in real.class_ids.tolist():
            objects[class_id] = objects.get(class_id, 0) + 1
        for class_id in unseen:
            missed[class_id] = missed.get(class_id, 0) + 1
    before = _map50(boxes, objects)
    kinds = {}
    for kind in KINDS:
        if kind == "missed":
            left = {k: n - missed.get(k, 0) for k, n in objects.items()}
            after, count = _map50(boxes, left), sum(missed.values())
        else:
            after = _map50(boxes, objects, repaired=kind)
            count = sum(box.kind == kind for box in boxes)
        kinds[kind] = ErrorKind(count, max(0.0, after - before))
    return kinds


def _judged(found: Boxes, truth: Boxes) -> tuple[list[_Box], list[int]]:
    """Return a picture's boxes with what is wrong with each, and the classes of missed objects."""
    right, seen = matched(found, truth)
    overlaps = overlap(found.xyxy, truth.xyxy)
    same = found.class_ids[:, None] == truth.class_ids[None, :]
    covered = seen.copy()
    judged = []
    for index in np.argsort(-found.scores, kind="stable"):
        class_id, score = int(found.class_ids[index]), float(found.scores[index])
        kind, target = _RIGHT, None
        if not right[index]:
            kind, target = _kind(overlaps[index], same[index])
        becomes = None
        if target is not None:
            # Only the first box of an unfound object becomes right; a second would be a duplicate.
            becomes = None if covered[target] else int(truth.class_ids[target])
            covered[target] = True
        judged.append(_Box(class_id, score, kind, becomes))
    return judged, truth.class_ids[~covered].tolist()


def _kind(overlaps: Floats, same: Booleans) -> tuple[str, int | None]:
    """Return what is wrong with a box, and the object that it should have been."""
    own = np.where(same, overlaps, 0.0)
    others = np.where(same, 0.0, overlaps)
    if own.size and own.max() >= _FOUND:
        return "duplicate", None
    if others.size and others.max() >= _FOUND:
        return "class", int(others.argmax())
    if own.size and own.max() >= _NEAR:
        return "place", int(own.argmax())
    if others.size and others.max() >= _NEAR:
        return "both", None
    return "background", None


def _map50(boxes: Sequence[_Box], objects: dict[int, int], repaired: str = "") -> float:
    """Return mAP50 over the classes that occur; repaired: a kind of error that is not made."""
    rows: dict[int, list[tuple[float, bool]]] = {}
    for box in boxes:
        class_id, is_right = box.class_id, box.kind == _RIGHT
        if box.kind == repaired:
            if box.becomes is None:
                continue
            class_id, is_right = box.becomes, True
        rows.setdefault(class_id, []).append((box.score, is_right))
    figures = [
        average_precision(rows.get(class_id, []), count)
        for class_id, count in objects.items()
        if count > 0
    ]
    return float(np.mean(figures)) if figures else 0.0
