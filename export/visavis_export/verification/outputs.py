"""Compares a graph's outputs with the original's, for one input."""

import math

import numpy as np

from visavis_export.families.original import Floats, Found
from visavis_export.proof.receipt import EXACT, Tolerance
from visavis_export.proof.served import found
from visavis_export.verification.cases import Case, detected, threshold_of
from visavis_export.verification.foreign_file import ForeignFile
from visavis_export.verification.originals import Original, probabilities
from visavis_export.verification.outcome import Difference
from visavis_server.card import CandidateRows, Task
from visavis_server.vision.comparison import detection_agreement
from visavis_server.vision.families import family_of, preprocess_one
from visavis_server.vision.families.detector import Detector
from visavis_server.vision.results import DetectOptions

# ultralytics' half files decode boxes in fp16 too; 0.0051 and 1.3 px were measured. Heat maps are
# not compared.
_HALF = Tolerance(score=1e-2, box_px=3.0, candidate_box_px=20.0, heat_map=math.inf)
# int8 has no exact tolerance; a graph counts as the same where its answers are this close.
_INT8 = Tolerance(score=0.15, box_px=8.0, candidate_box_px=1e9, heat_map=math.inf)
_INT8_F1 = 0.7


def tolerance_of(precision: str) -> Tolerance:
    """Return the differences that a precision explains."""
    return {"fp32": EXACT, "fp16": _HALF, "int8": _INT8}.get(precision, _INT8)


def graph_difference(
    case: Case,
    file: ForeignFile,
    original: Original,
    outputs: list[Floats],
    raw: Floats | None = None,
) -> Difference:
    """Compare a graph's outputs for the original's input with the original's.

    raw: the original's output to compare with; None: that for its own input.
    """
    raw = case.raw if raw is None else raw
    if not all(np.isfinite(one).all() for one in outputs):
        return Difference(False, np.inf, why="the file computes NaN or infinity")
    tolerance = tolerance_of(file.precision)
    if original.task is Task.CLASSIFICATION:
        ours = as_probabilities(outputs[0][0].astype(np.float32))
        theirs = probabilities(raw)
        if ours.shape != theirs.shape:
            return Difference(False, 1.0, why=_counts(len(ours), len(theirs), "classes"))
        apart = float(np.abs(ours - theirs).max())
        same = apart <= tolerance.score or (
            file.precision == "int8" and ours.argmax() == theirs.argmax()
        )
        return Difference(bool(same), apart)
    if isinstance(file.document.output, CandidateRows) and (
        file.document.output.layout == "end_to_end"
    ):
        return _after_suppression(case, file, original, outputs, raw)
    ours, theirs = file.scores(outputs), original.scores(raw)
    if ours.shape != theirs.shape:
        what = "classes" if ours.shape[1:] == theirs.shape[1:] else "candidates"
        axis = 0 if what == "classes" else 1
        less = 4 if what == "classes" else 0
        return Difference(
            False, 1.0, why=_counts(ours.shape[axis] - less, theirs.shape[axis] - less, what)
        )
    score = float(np.abs(ours[4:] - theirs[4:]).max())
    if file.precision == "int8":
        return _by_answers(case, file, original, outputs, score)
    box = float(np.abs(_edges(ours[:4]) - _edges(theirs[:4])).max())
    same = score <= tolerance.score and box <= tolerance.candidate_box_px
    return Difference(same, score, box)


def as_probabilities(scores: Floats) -> Floats:
    """Return a classifier's output as probabilities, whether it is that or logits."""
    if scores.min() >= 0 and abs(float(scores.sum()) - 1) < 1e-2:
        return scores
    return probabilities(scores)


def _counts(ours: int, theirs: int, what: str) -> str:
    return f"the file has {ours} {what}, the original {theirs}"


def _edges(cxcywh: Floats) -> Floats:
    half = cxcywh[2:] / 2
    return np.concatenate((cxcywh[:2] - half, cxcywh[:2] + half))


def _after_suppression(
    case: Case, file: ForeignFile, original: Original, outputs: list[Floats], raw: Floats
) -> Difference:
    """Compare boxes of a graph that suppresses on its own; in pixels of the input."""
    height, width = case.image.shape[:2]
    seen = original.seen(raw, case.fitted, width, height)
    threshold = max(threshold_of(seen, original.thresholds[0]), 0.25)
    family = Detector(file.document)
    rows = family.candidates(outputs, threshold)
    theirs = seen.detect(threshold, original.thresholds[1])
    ours = Found(seen.in_picture(rows.boxes), rows.scores, rows.class_ids.astype(np.int64))
    return _matched(ours, theirs, file)


def _by_answers(
    case: Case, file: ForeignFile, original: Original, outputs: list[Floats], score: float
) -> Difference:
    """Compare the boxes after suppression: of int8, candidates that are background may be off."""
    seen = case.seen(original)
    threshold = threshold_of(seen, original.thresholds[0])
    options = DetectOptions(score_threshold=threshold, iou_threshold=original.thresholds[1])
    place = preprocess_one(family_of(file.document), case.image)[1]
    ours = found(Detector(file.document).postprocess(outputs, place, options))
    theirs = seen.detect(threshold, original.thresholds[1])
    matched = _matched(ours, theirs, file)
    return Difference(matched.same, min(matched.score, score), matched.box_px, matched.why)


def _matched(ours: Found, theirs: Found, file: ForeignFile) -> Difference:
    agreement = detection_agreement(detected(ours, ()), detected(theirs, ()))
    here = [pair.index for pair in agreement.matches]
    there = [pair.baseline_index for pair in agreement.matches]
    score = float(np.abs(ours.scores[here] - theirs.scores[there]).max(initial=0))
    box = float(np.abs(ours.boxes[here] - theirs.boxes[there]).max(initial=0))
    tolerance = tolerance_of(file.precision)
    if file.precision == "int8":
        return Difference(agreement.f1 >= _INT8_F1 or len(theirs.scores) < 4, score, box)
    # A graph with its own suppression may decide a near tie otherwise.
    odd = agreement.only_here + agreement.only_in_baseline
    same = score <= tolerance.score and box <= tolerance.box_px and odd <= 2
    why = f"{odd} boxes are only on one side" if odd > 2 else ""
    return Difference(same, score, box, why)
