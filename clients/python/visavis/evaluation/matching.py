"""Boxes matched with the truth by COCO's rules, in bounded memory."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from visavis.evaluation.boxes import Booleans, Boxes, Ints
from visavis.evaluation.statistics import Floats

MAX_DETECTIONS: Final = 100
"""Boxes of a picture that count, as COCO has it."""

SIZES: Final = ("small", "medium", "large")
"""Objects of up to 32² and 96² pixels, and above; COCO's words."""

MATCHED_SIZES: Final = ("all", *SIZES)
# COCO's areas in pixels, in this order.
_AREAS: Final = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
_THRESHOLDS: Final = 10
# pycocotools holds a dictionary for each box: of more pictures it would take gigabytes.
_PICTURES_AT_ONCE: Final = 200


@dataclass(frozen=True, slots=True)
class Matches:
    """All boxes of one class on all pictures, highest score first.

    correct, counted [thresholds, n]: whether a box found an object, and whether it counts.
    picture [n]: where it is. objects [pictures]: how many there are to find.
    """

    correct: Booleans
    counted: Booleans
    picture: Ints
    objects: Ints

    def on(self, chosen: Booleans) -> "Matches":
        """Return those on some of the pictures."""
        kept = chosen[self.picture]
        number = np.cumsum(chosen) - 1  # of a picture among the chosen ones
        return Matches(
            self.correct[:, kept],
            self.counted[:, kept],
            number[self.picture[kept]],
            self.objects[chosen],
        )


@dataclass(slots=True)
class _Pile:
    """Boxes of one class as they are matched, in any order."""

    objects: Ints
    scores: list[Floats] = field(default_factory=list)
    correct: list[Booleans] = field(default_factory=list)
    counted: list[Booleans] = field(default_factory=list)
    picture: list[Ints] = field(default_factory=list)

    def add(self, scores: Floats, correct: Booleans, counted: Booleans, picture: Ints) -> None:
        self.scores.append(scores)
        self.correct.append(correct)
        self.counted.append(counted)
        self.picture.append(picture)

    def sorted(self) -> Matches:
        if not self.scores:
            none = np.zeros((_THRESHOLDS, 0), np.bool_)
            return Matches(none, none, np.zeros(0, np.int64), self.objects)
        scores, picture = np.concatenate(self.scores), np.concatenate(self.picture)
        # Of equal scores the first picture's comes first, as COCO sorts them.
        order = np.lexsort((picture, -scores))
        correct = np.concatenate(self.correct, axis=1)[:, order]
        counted = np.concatenate(self.counted, axis=1)[:, order]
        return Matches(correct, counted, picture[order], self.objects)


def matches(
    found: Sequence[Boxes], truth: Sequence[Boxes], sizes: Sequence[tuple[int, int]]
) -> dict[str, dict[int, Matches]]:
    """Return the matches of each class that the truth has, for each of MATCHED_SIZES.

    The matching is pycocotools' own. Boxes on pictures without an object of their class are wrong
    whatever else is there, so that they need no matching.
    """
    pictures = len(sizes)
    classes = sorted({int(k) for one in truth for k in one.class_ids})
    piles = {
        area: {k: _Pile(np.zeros(pictures, np.int64)) for k in classes} for area in MATCHED_SIZES
    }
    for start in range(0, pictures, _PICTURES_AT_ONCE):
        part = slice(start, start + _PICTURES_AT_ONCE)
        near = [_near(boxes, known) for boxes, known in zip(found[part], truth[part], strict=True)]
        evaluated = _evaluated(near, truth[part], sizes[part])
        for area, class_id, picture, one in _each(evaluated):
            pile = piles[area][class_id]
            scores = np.asarray(one["dtScores"], np.float64)
            pile.objects[start + picture] = int((np.asarray(one["gtIgnore"]) == 0).sum())
            pile.add(
                scores,
                np.asarray(one["dtMatches"]).reshape(_THRESHOLDS, -1) > 0,
                ~np.asarray(one["dtIgnore"], np.bool_).reshape(_THRESHOLDS, -1),
                np.full(len(scores), start + picture),
            )
    _add_far(found, truth, classes, piles)
    return {
        area: {k: pile.sorted() for k, pile in of_area.items()} for area, of_area in piles.items()
    }


def _near(boxes: Boxes, known: Boxes) -> Boxes:
    return boxes.where(np.isin(boxes.class_ids, known.class_ids))


def _add_far(
    found: Sequence[Boxes],
    truth: Sequence[Boxes],
    classes: Sequence[int],
    piles: Mapping[str, Mapping[int, _Pile]],
) -> None:
    """Add the boxes on pictures without an object of their class."""
    far = [
        boxes.where(~np.isin(boxes.class_ids, known.class_ids))
        for boxes, known in zip(found, truth, strict=True)
    ]
    if not far:
        return
    ids = np.concatenate([one.class_ids for one in far])
    scores = np.concatenate([one.scores for one in far])
    sides = np.concatenate([one.xyxy[:, 2:] - one.xyxy[:, :2] for one in far])
    areas = sides.prod(axis=1)
    picture = np.repeat(np.arange(len(far)), [len(one.scores) for one in far])
    for class_id in classes:
        own = ids == class_id
        wrong = np.zeros((_THRESHOLDS, int(own.sum())), np.bool_)
        for area, (least, most) in zip(MATCHED_SIZES, _AREAS, strict=True):
            inside = (areas[own] >= least) & (areas[own] <= most)
            piles[area][class_id].add(
                scores[own], wrong, np.tile(inside, (_THRESHOLDS, 1)), picture[own]
            )


def _each(evaluated: Any) -> Iterator[tuple[str, int, int, Any]]:
    """Yield size, class, picture and what pycocotools says of it, where it says anything."""
    pictures = len(evaluated.params.imgIds)
    each = iter(evaluated.evalImgs)
    for class_id in evaluated.params.catIds:
        for area in MATCHED_SIZES:
            for picture in range(pictures):
                one = next(each)
                if one is not None:
                    yield area, int(class_id), picture, one


def _evaluated(
    found: Sequence[Boxes], truth: Sequence[Boxes], sizes: Sequence[tuple[int, int]]
) -> Any:
    objects: list[dict[str, Any]] = [
        {"image_id": index, "category_id": int(k), "bbox": _xywh(box), "iscrowd": int(crowd)}
        for index, one in enumerate(truth)
        for box, k, crowd in zip(one.xyxy, one.class_ids, one.crowds, strict=True)
    ]
    for number, one in enumerate(objects, 1):
        one |= {"id": number, "area": one["bbox"][2] * one["bbox"][3]}
    results = [
        {"image_id": index, "category_id": int(k), "bbox": _xywh(box), "score": float(score)}
        for index, one in enumerate(found)
        for box, k, score in zip(one.xyxy, one.class_ids, one.scores, strict=True)
    ]
    known = COCO()
    known.dataset = {
        "info": {},
        "images": [{"id": i, "width": w, "height": h} for i, (w, h) in enumerate(sizes)],
        "annotations": objects,
        "categories": [{"id": k} for k in sorted({one["category_id"] for one in objects})],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its timings
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(results) if results else COCO(), "bbox")
        evaluation.params.imgIds = list(range(len(sizes)))
        evaluation.params.catIds = [one["id"] for one in known.dataset["categories"]]
        evaluation.evaluate()
    return evaluation


def _xywh(box: Floats) -> list[float]:
    return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]
