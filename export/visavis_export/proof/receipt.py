"""The receipt: compares an exported file with its PyTorch original, from encoded image to answer.

One side is the original's pipeline, the other the server's code.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from visavis_export.errors import ReceiptFailed
from visavis_export.families.original import (
    ClassifierReference,
    DetectorReference,
    Floats,
    Found,
    MapReference,
    Seen,
)
from visavis_export.pictures.files import read_image
from visavis_export.proof.served import ServedFile, found
from visavis_export.proof.suppression import find_difference
from visavis_server.arrays import Image
from visavis_server.card import Receipt, ReceiptPicture, RowComparison
from visavis_server.vision.comparison import detection_agreement
from visavis_server.vision.families import detector_of
from visavis_server.vision.families.candidates import Rows
from visavis_server.vision.results import (
    Box,
    Classified,
    Detected,
    Detection,
    DetectOptions,
    Options,
)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest allowed difference of a score and of a box's edge, in pixels of the picture.

    candidate_box_px: for boxes before suppression, in pixels of the input. heat_map: of two values,
    divided by the largest magnitude in the original's map if that is more than 1.
    """

    score: float
    box_px: float
    candidate_box_px: float
    heat_map: float


EXACT = Tolerance(score=1e-3, box_px=1.0, candidate_box_px=1.0, heat_map=1e-3)
# By precision. fp16 has eleven bits: 0.002 and 1.3 px were measured, and 5.8 px among candidates,
# most of which are background. int8 has no tolerance: its accuracy is limited instead.
TOLERANCES = {
    "fp32": EXACT,
    "fp16": Tolerance(score=5e-3, box_px=2.0, candidate_box_px=10.0, heat_map=2e-2),
}
# The share of proposals that near ties may decide differently; of 11,794 measured, none did.
_OTHER_PROPOSALS = 0.01
# Score thresholds to try after the model's default, until a picture has enough candidates.
_ENOUGH_CANDIDATES = 10
_THRESHOLDS = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 1e-4, 1e-5, 1e-6)


Advance = Callable[[], None]


def prove(
    reference: ClassifierReference | DetectorReference,
    file: ServedFile,
    pictures: Mapping[str, bytes],
    advance: Advance = lambda: None,
) -> Receipt:
    """Return the receipt; advance is called after each picture.

    file: its precision decides the tolerance. pictures: encoded, by name. Raises ReceiptFailed,
    with the figures, if labels differ, or scores or box edges differ by more than the tolerance,
    unless the original is that close to a tie or a threshold. For a detector, all candidates are
    compared, and `suppression` checks the boxes after suppression. Heat maps are compared, too, if
    the original has them. Without a tolerance, differences are only recorded. Pictures that the
    original refuses are left out.
    """
    document = file.document
    tolerance = TOLERANCES.get(document.precision)
    if document.precision != "fp32" and document.provenance.random_weights:
        tolerance = None  # Untrained networks are not robust: fp16 moves their scores by 0.03.
    made = []
    rows: list[RowComparison] = []
    for name, encoded in pictures.items():
        image = read_image(name, encoded)
        if isinstance(reference, ClassifierReference):
            picture = _classify(reference, file, tolerance, name, encoded, image)
        elif (original := reference.look(encoded)) is None:
            advance()
            continue
        else:
            _require_finite(original.candidates.scores, name)
            _require_finite(original.candidates.boxes, name)
            if tolerance is None:
                picture = _record_boxes(original, file, name, image)
            else:
                picture, compared = _detect(original, file, tolerance, name, image)
                rows.append(compared)
        if isinstance(reference, MapReference):
            difference = _compare_maps(reference, file, tolerance, name, encoded, image)
            picture = picture.model_copy(update={"max_heat_map_difference": difference})
        made.append(picture)
        advance()
    if not made:
        raise ReceiptFailed("PyTorch answers none of the pictures; give others with --images")
    return Receipt(
        made_at=datetime.now(UTC).replace(microsecond=0),
        score_tolerance=tolerance.score if tolerance else None,
        box_tolerance_px=tolerance.box_px if tolerance else None,
        heat_map_tolerance=(
            tolerance.heat_map if tolerance and isinstance(reference, MapReference) else None
        ),
        rows=_summed(rows) if rows else None,
        pictures=tuple(made),
    )


def _classify(
    reference: ClassifierReference,
    file: ServedFile,
    tolerance: Tolerance | None,
    name: str,
    encoded: bytes,
    image: Image,
) -> ReceiptPicture:
    theirs = reference.probabilities(encoded)
    _require_finite(theirs, name)
    ours = file.answer(image, Options())
    assert isinstance(ours, Classified)
    difference = float(np.abs(ours.probabilities - theirs).max())
    ranked = np.argsort(-theirs, kind="stable")
    swapped = 0
    if tolerance:
        if not difference <= tolerance.score:
            raise _failure(
                name, f"scores differ by {difference:.2g}; the limit is {tolerance.score:g}"
            )
        for rank, label in enumerate(ours.classifications):
            if label.class_id != ranked[rank]:
                # Two labels may swap ranks only if they nearly tie in the original.
                gap = abs(float(theirs[ranked[rank]] - theirs[label.class_id]))
                if gap > tolerance.score:
                    raise _failure(
                        name,
                        f"rank {rank + 1} is another label, whose score is {gap:.2g} away in "
                        "PyTorch",
                    )
                swapped += 1
    picture = _picture(name, image, len(ours.classifications), swapped, difference)
    same = ours.classifications[0].class_id == ranked[0]
    return picture.model_copy(update={"same_top1": bool(same)})


def _detect(
    original: Seen, file: ServedFile, tolerance: Tolerance, name: str, image: Image
) -> tuple[ReceiptPicture, RowComparison]:
    family = detector_of(file.document)
    outputs, geometry = file.run(image)
    untouched, original = original, _following(original, family.proposals(outputs), name)
    rows, moved = _compare_rows(family.rows(outputs, geometry), original, tolerance, name)
    assert file.document.detection_defaults is not None
    defaults = file.document.detection_defaults
    score_threshold = _threshold(original, defaults.score_threshold, name)
    options = DetectOptions(score_threshold=score_threshold)
    answer = family.postprocess(outputs, geometry, options)
    assert isinstance(answer, Detected)
    ours = found(answer)
    inside = family.kept(outputs, geometry, options).boxes
    thresholds = score_threshold, defaults.iou_threshold
    steps = tolerance.score, tolerance.candidate_box_px, tolerance.box_px
    most = defaults.max_detections
    if difference := find_difference(ours, inside, original, thresholds, steps, moved, most):
        raise _failure(name, difference)
    theirs = untouched.detect(*thresholds, most)
    matched = match(ours, theirs, tolerance)
    only_here, only_there = len(ours.scores) - len(matched), len(theirs.scores) - len(matched)
    score_difference, box_difference = 0.0, 0.0
    for one, other in matched:
        score_difference = max(
            score_difference, abs(float(ours.scores[one] - theirs.scores[other]))
        )
        box_difference = max(
            box_difference, float(np.abs(ours.boxes[one] - theirs.boxes[other]).max())
        )
    picture = _picture(name, image, len(matched), only_here + only_there, score_difference)
    return (
        picture.model_copy(
            update={
                "score_threshold": score_threshold,
                "max_box_difference_px": box_difference,
                "only_here": only_here,
                "only_in_original": only_there,
            }
        ),
        rows,
    )


def _following(original: Seen, proposals: Floats, name: str) -> Seen:
    """Return what the original computes from a file's proposals.

    Raises ReceiptFailed if more of them than near ties explain differ from the original's.
    """
    differ = original.other_proposals(proposals)
    if differ > _OTHER_PROPOSALS * len(proposals):
        raise _failure(
            name, f"{differ} of its {len(proposals)} proposals are not among PyTorch's, or missing"
        )
    return original.follow(proposals)


def _record_boxes(original: Seen, file: ServedFile, name: str, image: Image) -> ReceiptPicture:
    """Compare boxes with an IoU of at least 0.5 and the same label; count the others."""
    defaults = file.document.detection_defaults
    assert defaults is not None
    score_threshold = _threshold(original, defaults.score_threshold, name)
    ours = file.answer(image, Options(detect=DetectOptions(score_threshold=score_threshold)))
    assert isinstance(ours, Detected)
    theirs = _detected(
        original.detect(score_threshold, defaults.iou_threshold, defaults.max_detections)
    )
    agreement = detection_agreement(ours, theirs)
    one, other = found(ours), found(theirs)
    here = [pair.index for pair in agreement.matches]
    there = [pair.baseline_index for pair in agreement.matches]
    score_difference = np.abs(one.scores[here] - other.scores[there]).max(initial=0)
    box_difference = np.abs(one.boxes[here] - other.boxes[there]).max(initial=0)
    picture = _picture(name, image, len(here), 0, float(score_difference))
    return picture.model_copy(
        update={
            "score_threshold": score_threshold,
            "max_box_difference_px": float(box_difference),
            "only_here": agreement.only_here,
            "only_in_original": agreement.only_in_baseline,
        }
    )


def _compare_maps(
    reference: MapReference,
    file: ServedFile,
    tolerance: Tolerance | None,
    name: str,
    encoded: bytes,
    image: Image,
) -> float:
    """Return the largest difference of the heat maps for the file's best label."""
    ours = file.explain(image)
    theirs = reference.heat_map(encoded, ours.class_id)
    if ours.values.shape != theirs.shape:
        raise _failure(
            name, f"its heat map has the shape {ours.values.shape}, PyTorch's {theirs.shape}"
        )
    difference = float(np.abs(ours.values - theirs).max() / max(1.0, np.abs(theirs).max()))
    if tolerance and not difference <= tolerance.heat_map:
        raise _failure(
            name, f"heat maps differ by {difference:.2g}; the limit is {tolerance.heat_map:g}"
        )
    return difference


def _require_finite(theirs: Floats, name: str) -> None:
    """Raise ReceiptFailed if the original's answer contains NaN or infinity."""
    if invalid := int(np.count_nonzero(~np.isfinite(theirs))):
        raise ReceiptFailed(
            f"PyTorch itself gives NaN or infinity on {name!r}, for {invalid} of {theirs.size} "
            "numbers; the weights are unusable: give an earlier checkpoint"
        )


def _detected(found: Found) -> Detected:
    """Return an original's detections in the server's form, without label names."""
    return Detected(
        tuple(
            Detection(Box(*map(float, box)), int(class_id), "", float(score))
            for box, class_id, score in zip(found.boxes, found.class_ids, found.scores, strict=True)
        )
    )


def _threshold(original: Seen, model_threshold: float, name: str) -> float:
    """Return the highest threshold with enough candidates to compare, none of them cut off."""
    scores = original.candidates.scores
    floor = original.floor
    for enough in (_ENOUGH_CANDIDATES, 1):
        for threshold in (max(one, floor) for one in (model_threshold, *_THRESHOLDS)):
            if np.count_nonzero(scores > threshold) >= enough:
                return threshold
    raise _failure(name, "the original has no candidates at any threshold")


def _compare_rows(
    ours: Rows, original: Seen, tolerance: Tolerance, name: str
) -> tuple[RowComparison, Floats]:
    """Compare all candidates before suppression; also return each one's largest edge difference.

    Boxes are in pixels of the input.
    """
    theirs = original.candidates
    if len(ours.scores) != len(theirs.scores):
        raise _failure(
            name, f"it has {len(ours.scores)} candidates, PyTorch has {len(theirs.scores)}"
        )
    score_difference = float(np.abs(ours.scores - theirs.scores).max())
    moved = np.abs(ours.boxes - theirs.boxes).max(1)
    box_difference = float(moved.max())
    if not (score_difference <= tolerance.score and box_difference <= tolerance.candidate_box_px):
        raise _failure(
            name,
            f"candidates differ by {score_difference:.2g} in score and {box_difference:.2g} px; "
            f"the limits are {tolerance.score:g} and {tolerance.candidate_box_px:g} px",
        )
    # If the two best labels nearly tie, either may be the best.
    clear = theirs.scores - theirs.second_scores > 2 * tolerance.score
    if (others := np.flatnonzero(clear & (ours.class_ids != theirs.class_ids))).size:
        raise _failure(
            name,
            f"{others.size} candidates have other labels, such as {ours.class_ids[others[0]]} "
            f"instead of {theirs.class_ids[others[0]]}",
        )
    compared = RowComparison(
        count=len(ours.scores),
        max_score_difference=score_difference,
        max_box_difference_px=box_difference,
    )
    return compared, moved


def match(ours: Found, theirs: Found, tolerance: Tolerance) -> list[tuple[int, int]]:
    """Return pairs of indices, one to one: same class, within the tolerance, nearest first."""
    if not (len(ours.scores) and len(theirs.scores)):
        return []
    box_difference = np.abs(ours.boxes[:, None] - theirs.boxes[None]).max(2)
    score_difference = np.abs(ours.scores[:, None] - theirs.scores[None])
    allowed = (
        (ours.class_ids[:, None] == theirs.class_ids[None])
        & (box_difference <= tolerance.box_px)
        & (score_difference <= tolerance.score)
    )
    candidates = np.argwhere(allowed)
    order = np.argsort(box_difference[allowed], kind="stable")
    pairs: dict[int, int] = {}
    for one, other in candidates[order].tolist():
        if one not in pairs and other not in pairs.values():
            pairs[one] = other
    return list(pairs.items())


def _picture(
    name: str, image: Image, compared: int, excused: int, score_difference: float
) -> ReceiptPicture:
    return ReceiptPicture(
        name=name,
        width=image.shape[1],
        height=image.shape[0],
        compared=compared,
        excused=excused,
        max_score_difference=score_difference,
    )


def _summed(rows: list[RowComparison]) -> RowComparison:
    return RowComparison(
        count=sum(row.count for row in rows),
        max_score_difference=max(row.max_score_difference for row in rows),
        max_box_difference_px=max(row.max_box_difference_px for row in rows),
    )


def _failure(name: str, text: str) -> ReceiptFailed:
    return ReceiptFailed(f"the exported file's answer on {name!r} differs from PyTorch's: {text}")
