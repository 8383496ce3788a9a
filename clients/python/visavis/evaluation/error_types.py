"""Why a detector's boxes are wrong, and how much mAP50 each kind of error costs.

Source of the kinds and of how they are repaired: D. Bolya and others, TIDE: A General Toolbox for
Identifying Object Detection Errors, ECCV 2020, https://arxiv.org/abs/2008.08115.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from visavis.evaluation.accuracy import average_precision
from visavis.evaluation.boxes import Booleans, Boxes, matched, overlap
from visavis.evaluation.statistics import Floats

KINDS: Final = ("class", "place", "both", "duplicate", "background", "missed")
"""Wrong class; wrong place; both; an object found twice; no object there; an object missed."""

_FOUND, _NEAR = 0.5, 0.1
RIGHT: Final = "right"
# Kinds whose boxes are of an object, and right once they are repaired.
_REPAIRED: Final = frozenset({"class", "place"})


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """How many errors of a kind there are; lost: the mAP50 that repairing all of them gains."""

    count: int
    lost: float


@dataclass(frozen=True, slots=True)
class JudgedBox:
    """A box and what it is: RIGHT, or one of KINDS.

    becomes: the class that it has once it is repaired; None if it is removed then. truth: the class
    of the object that it touches, if any.
    """

    class_id: int
    score: float
    kind: str
    becomes: int | None = None
    truth: int | None = None


@dataclass(frozen=True, slots=True)
class JudgedPicture:
    """All boxes on a picture, and the classes of its objects: of all, and of those missed."""

    boxes: tuple[JudgedBox, ...]
    objects: tuple[int, ...]
    missed: tuple[int, ...]


def judged(found: Boxes, truth: Boxes) -> JudgedPicture:
    """Return what is right and wrong on a picture; found: those above the score threshold."""
    truth = truth.real
    right, seen = matched(found, truth)
    overlaps = overlap(found.xyxy, truth.xyxy)
    same = found.class_ids[:, None] == truth.class_ids[None, :]
    covered = seen.copy()
    boxes = []
    for index in np.argsort(-found.scores, kind="stable"):
        class_id, score = int(found.class_ids[index]), float(found.scores[index])
        if right[index]:
            boxes.append(JudgedBox(class_id, score, RIGHT, truth=class_id))
            continue
        kind, target = _kind(overlaps[index], same[index])
        becomes = None
        if target is not None and kind in _REPAIRED and not covered[target]:
            # Only the first box of an unfound object becomes right; a second would be a duplicate.
            becomes = int(truth.class_ids[target])
            covered[target] = True
        touched = None if target is None else int(truth.class_ids[target])
        boxes.append(JudgedBox(class_id, score, kind, becomes, touched))
    missed = tuple(int(k) for k in truth.class_ids[~covered])
    return JudgedPicture(tuple(boxes), tuple(int(k) for k in truth.class_ids), missed)


def error_kinds(pictures: Sequence[JudgedPicture]) -> dict[str, ErrorKind]:
    """Return each of KINDS for a detector."""
    boxes = [box for picture in pictures for box in picture.boxes]
    objects = Counter(k for picture in pictures for k in picture.objects)
    missed = Counter(k for picture in pictures for k in picture.missed)
    before = _map50(boxes, objects)
    kinds = {}
    for kind in KINDS:
        if kind == "missed":
            left = {k: n - missed[k] for k, n in objects.items()}
            after, count = _map50(boxes, left), missed.total()
        else:
            after = _map50(boxes, objects, repaired=kind)
            count = sum(box.kind == kind for box in boxes)
        kinds[kind] = ErrorKind(count, max(0.0, after - before))
    return kinds


def _kind(overlaps: Floats, same: Booleans) -> tuple[str, int | None]:
    """Return what is wrong with a box, and the object that it touches."""
    own = np.where(same, overlaps, 0.0)
    others = np.where(same, 0.0, overlaps)
    if own.size and own.max() >= _FOUND:
        return "duplicate", int(own.argmax())
    if others.size and others.max() >= _FOUND:
        return "class", int(others.argmax())
    if own.size and own.max() >= _NEAR:
        return "place", int(own.argmax())
    if others.size and others.max() >= _NEAR:
        return "both", int(others.argmax())
    return "background", None


def _map50(boxes: Sequence[JudgedBox], objects: Mapping[int, int], repaired: str = "") -> float:
    """Return mAP50 over the classes that occur; repaired: a kind of error that is not made."""
    rows: dict[int, list[tuple[float, bool]]] = {}
    for box in boxes:
        class_id, is_right = box.class_id, box.kind == RIGHT
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
