"""Explains answers that other code gave for a picture: the original, with a mistake, gives them.

The original runs with every known mistake in its pre-processing, and its own boxes are written
with every known mistake in theirs, until the given answers are found.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from visavis.dataset.names import ClassNames

from visavis_export.errors import ExportError
from visavis_export.families.original import Floats, Found
from visavis_export.verification.cases import Case
from visavis_export.verification.inputs import geometry_variants, value_variants
from visavis_export.verification.mistakes import finding
from visavis_export.verification.originals import Original, Seen, probabilities
from visavis_export.verification.outcome import Finding
from visavis_export.verification.pipelines import Geometry, Pipeline
from visavis_server.card import Task

# Answers are the same if scores and edges differ by no more; they are often rounded in JSON.
_SCORE, _BOX_PX = 6e-3, 1.5
_MOST = 10_000
_STEP = 32


@dataclass(frozen=True, slots=True)
class Given:
    """Answers from a file: labels as written, scores, and boxes xyxy [n, 4]; None: no boxes."""

    labels: tuple[str | int, ...]
    scores: Floats
    boxes: Floats | None

    def found(self, names: tuple[str, ...]) -> Found:
        """Return the answers with class ids. Raises ExportError for an unknown label."""
        known = ClassNames(names)
        ids = []
        for label in self.labels:
            class_id = label if isinstance(label, int) else known.find(label)
            if class_id is None:
                raise ExportError(
                    f"--answers: {label!r} is no class of the original; it has {len(names)}, such "
                    f"as {', '.join(map(repr, names[:3]))}"
                )
            ids.append(class_id)
        boxes = np.zeros((len(ids), 4), np.float32) if self.boxes is None else self.boxes
        return Found(boxes, self.scores, np.array(ids, np.int64))


def read_answers(path: Path) -> Given:
    """Return the answers in a JSON file. Raises ExportError, naming the entry, for other content.

    A list with an object per label or box: `class_id`, `class` or `label`, `name`; `score` or
    `confidence`; and for boxes `box`, as [x_min, y_min, x_max, y_max] or with x1, y1, x2, y2. So
    ultralytics' `results[0].to_json()` writes it.
    """
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ExportError(f"--answers {path} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise ExportError(f"--answers {path} is not JSON: {error}") from None
    if isinstance(content, dict):
        content = content.get("detections", content.get("classifications"))
    if not isinstance(content, list) or len(content) > _MOST:
        raise ExportError(f"--answers {path} must hold a list of up to {_MOST} labels or boxes")
    rows = [_entry(one, f"--answers {path}, entry {i}") for i, one in enumerate(content)]
    boxes = [box for _, _, box in rows if box is not None]
    if boxes and len(boxes) < len(rows):
        raise ExportError(f"--answers {path}: some entries have a box, others none")
    return Given(
        tuple(label for label, _, _ in rows),
        np.array([score for _, score, _ in rows], np.float32),
        np.array(boxes, np.float32).reshape(-1, 4) if boxes or not rows else None,
    )


def explain(given: Given, case: Case, original: Original) -> tuple[Finding, ...]:
    """Return what is wrong with the answers for a picture; empty if they are the original's."""
    if original.task is Task.CLASSIFICATION:
        return _explain_labels(given, case, original)
    if given.boxes is None:
        raise ExportError("--answers has no boxes, and the original is a detector")
    theirs = given.found(original.labels)
    height, width = case.image.shape[:2]
    both = 0
    for mistakes, pipeline in _pipelines(case, original):
        tensor = pipeline.tensor(case.encoded)
        raw = original.network(tensor) if mistakes else case.raw
        geometry = pipeline.geometry if mistakes else case.fitted
        seen = original.seen(raw, geometry, width, height)
        for written, found in _written(theirs, seen):
            same, findings = _compared(found, seen, original)
            everything = (*_of_pipeline(mistakes, pipeline, original), *written, *findings)
            if same:
                return everything
        if not mistakes:
            both = len(_matches(theirs, seen.detect(*original.thresholds)))
    wanted = case.seen(original).detect(*original.thresholds)
    return (
        finding(
            "other answers",
            both=both,
            here=len(theirs.scores) - both,
            there=len(wanted.scores) - both,
        ),
    )


def _entry(one: Any, where: str) -> tuple[str | int, float, Any]:
    """Return the label, the score and the box of an entry; the box is None or four numbers."""
    if not isinstance(one, dict):
        raise ExportError(f"{where} is not an object with a label, a score and a box")
    label = next(
        (one[k] for k in ("class_id", "classId", "class", "cls", "label", "name") if k in one), None
    )
    score = next((one[k] for k in ("score", "confidence", "conf") if k in one), None)
    box = one.get("box", one.get("bbox"))
    if isinstance(box, dict):
        keys = next((k for k in _BOX_KEYS if all(name in box for name in k)), None)
        box = [box[name] for name in keys] if keys else box
    numbers = isinstance(box, list) and len(box) == 4 and all(_is_number(x) for x in box)
    if not isinstance(label, str | int) or not _is_number(score) or not (box is None or numbers):
        raise ExportError(
            f"{where} needs a label (class_id, class, label or name), a score (score or "
            "confidence) and, of a detector, a box [x_min, y_min, x_max, y_max]"
        )
    assert score is not None
    return label, float(score), box


_BOX_KEYS = (
    ("x1", "y1", "x2", "y2"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("xMin", "yMin", "xMax", "yMax"),
)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _explain_labels(given: Given, case: Case, original: Original) -> tuple[Finding, ...]:
    """Explain a classifier's labels: each given score must be the original's of that class."""
    theirs = given.found(original.labels)
    if (unknown := theirs.class_ids >= len(original.labels)).any():
        raise ExportError(f"--answers: class {theirs.class_ids[unknown][0]} is not the original's")
    for mistakes, pipeline in _pipelines(case, original):
        raw = original.network(pipeline.tensor(case.encoded)) if mistakes else case.raw
        scores = probabilities(raw)
        for words, read in (
            ((), scores),
            (("softmax twice",), probabilities(scores)),
            (("softmax missing",), raw),
        ):
            if np.abs(read[theirs.class_ids] - theirs.scores).max(initial=0) <= _SCORE:
                more = tuple(finding(word) for word in words)
                return (*_of_pipeline(mistakes, pipeline, original), *more)
    top = probabilities(case.raw).argsort()[::-1][: len(theirs.scores)]
    both = len(set(top.tolist()) & set(theirs.class_ids.tolist()))
    missing = len(top) - both
    return (finding("other answers", both=both, here=missing, there=missing),)


def _pipelines(case: Case, original: Original) -> Iterator[tuple[tuple[str, ...], Pipeline]]:
    """Yield the original's pipeline and those with known mistakes, the simplest first."""
    own = Pipeline(case.fitted, original.pipeline.values)
    yield (), own
    if rectangle := _rectangle(case, original):
        yield ("rectangle",), Pipeline(rectangle, own.values)
    values = list(value_variants(own.values))[1:]
    geometries = list(geometry_variants(case.fitted))
    for mistakes, numbers in values:
        yield mistakes, Pipeline(case.fitted, numbers)
    for mistakes, geometry in geometries:
        yield mistakes, Pipeline(geometry, own.values)


def _rectangle(case: Case, original: Original) -> Geometry | None:
    """Return the smallest rectangle around the picture, as rectangular inference has it."""
    own = original.pipeline.geometry
    if own.rule != "letterbox":
        return None
    height, width = case.image.shape[:2]
    _, content_width, content_height, _, _ = own.placement(width, height)
    sides = (-(-content_width // _STEP) * _STEP, -(-content_height // _STEP) * _STEP)
    if sides == (own.width, own.height):
        return None
    return replace(own, width=sides[0], height=sides[1])


def _of_pipeline(
    mistakes: tuple[str, ...], pipeline: Pipeline, original: Original
) -> tuple[Finding, ...]:
    own, geometry = original.pipeline.geometry, pipeline.geometry
    facts = {
        "size": f"{geometry.width} × {geometry.height}",
        "own": f"{own.width} × {own.height}",
        "side": geometry.shorter_side or own.width,
        "own_side": own.shorter_side,
        "pad": geometry.pad,
        "filter": geometry.filter,
        "own_filter": own.filter,
        "mean": original.pipeline.values.mean,
        "std": original.pipeline.values.std,
    }
    return tuple(finding(mistake, **facts) for mistake in mistakes)


def _written(theirs: Found, seen: Seen) -> Iterator[tuple[tuple[Finding, ...], Found]]:
    """Yield the answers as the picture's corners, for each way in which they may be written."""
    width, height = seen.width, seen.height
    boxes = theirs.boxes
    size = np.array((width, height) * 2, np.float32)

    def clipped(given: Floats) -> Found:
        return replace(theirs, boxes=np.clip(given, 0, size).astype(np.float32))

    yield (), clipped(boxes)
    scale, _, _, left, top = seen.geometry.placement(width, height)

    def padded(given: Floats) -> Floats:
        return given - np.array((left, top) * 2, np.float32) / np.float32(scale)

    def corners(given: Floats) -> Floats:
        return np.concatenate((given[:, :2] - given[:, 2:] / 2, given[:, :2] + given[:, 2:] / 2), 1)

    readings: dict[str, Callable[[Floats], Floats]] = {
        "boxes of the input": seen.in_picture,
        "boxes as fractions": lambda given: given * size,
        "centre and size": corners,
        "padding kept": padded,
    }
    for mistake, read in readings.items():
        yield (finding(mistake),), clipped(read(boxes))
    for shift in (1, -1):
        moved = replace(clipped(boxes), class_ids=theirs.class_ids - shift)
        yield (finding("class ids", shift=shift),), moved


def _compared(theirs: Found, seen: Seen, original: Original) -> tuple[bool, tuple[Finding, ...]]:
    """Return whether answers are the original's, perhaps at other thresholds."""
    score, iou = original.thresholds
    wanted = seen.detect(score, iou)
    pairs = _matches(theirs, wanted)
    here = [i for i in range(len(theirs.scores)) if i not in pairs]
    there = [j for j in range(len(wanted.scores)) if j not in pairs.values()]
    # Of boxes that nearly tie, suppression may keep another one.
    ties = len(wanted.scores) // 30
    if len(here) <= ties and len(there) <= ties:
        return bool(pairs) or not len(wanted.scores), ()
    if not pairs:
        return False, ()
    least, missing = float(theirs.scores.min()), wanted.scores[there]
    if not here and missing.max() <= least + _SCORE:
        return True, (finding("score threshold", score=float(missing.max()), own=score),)
    if not there:
        every = seen.detect(min(least - _SCORE, score), 1.0)
        if len(_matches(theirs, every)) == len(theirs.scores):
            if least < score - _SCORE:
                return True, (finding("lower score threshold", score=least, own=score),)
            return True, (finding("no suppression", own=iou),)
    return False, ()


def _matches(theirs: Found, wanted: Found) -> dict[int, int]:
    """Return the index of the wanted answer that each given one is, one to one."""
    if not (len(theirs.scores) and len(wanted.scores)):
        return {}
    near = (
        (np.abs(theirs.boxes[:, None] - wanted.boxes[None]).max(2) <= _BOX_PX)
        & (np.abs(theirs.scores[:, None] - wanted.scores[None]) <= _SCORE)
        & (theirs.class_ids[:, None] == wanted.class_ids[None])
    )
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for index, row in enumerate(near):
        free = next((int(j) for j in np.flatnonzero(row) if int(j) not in taken), None)
        if free is not None:
            pairs[index] = free
            taken.add(free)
    return pairs
