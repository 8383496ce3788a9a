"""The receipt: the exported file against its PyTorch original, from encoded image to answer.

One side is the original's own pipeline, the other the very code that serves.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from export.errors import ReceiptFailed
from export.original import (
    ClassifierReference,
    DetectorReference,
    Found,
    Seen,
)
from server.card import ModelDocument, Receipt, ReceiptPicture, RowComparison
from server.errors import InvalidRequest
from server.families.classifier import Classifier
from server.families.detector import Detector
from server.image import decode
from server.results import Detected, Image, Options, Tensor
from server.served_model import output_names
from server.session import Session
from server.settings import ImageLimits

SCORE_TOLERANCE = 1e-3
BOX_TOLERANCE_PX = 1.0
# Lowered in these steps, from the model's own, until a picture has enough candidates.
_ENOUGH_CANDIDATES = 10
_THRESHOLDS = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 1e-4, 1e-5, 1e-6)
# What is exported may be of any size; the server's limits are for strangers.
_LIMITS = ImageLimits(encoded_bytes=1 << 30, decoded_bytes=1 << 31)

Advance = Callable[[], None]


def prove(
    reference: ClassifierReference | DetectorReference,
    document: ModelDocument,
    session: Session,
    pictures: Mapping[str, bytes],
    advance: Advance = lambda: None,
) -> Receipt:
    """Return the receipt; advance is called after each picture.

    document: as written. session: of the written file. pictures: encoded, by name. Raises
    ReceiptFailed, with the figures, where labels differ, scores by more than 1e-3 or box
    edges by more than a pixel, unless the original itself is that close to a tie or a threshold.
    """
    made = []
    rows: list[RowComparison] = []
    for name, encoded in pictures.items():
        try:
            image = decode(encoded, _LIMITS)
        except InvalidRequest as error:
            raise ReceiptFailed(f"the picture {name!r}: {error}") from None
        if isinstance(reference, ClassifierReference):
            made.append(_classify(reference, document, session, name, encoded, image))
        else:
            picture, compared = _detect(reference, document, session, name, encoded, image)
            made.append(picture)
            rows.append(compared)
        advance()
    return Receipt(
        made_at=datetime.now(UTC).replace(microsecond=0),
        score_tolerance=SCORE_TOLERANCE,
        box_tolerance_px=BOX_TOLERANCE_PX,
        rows=_summed(rows) if rows else None,
        pictures=tuple(made),
    )


def _classify(
    reference: ClassifierReference,
    document: ModelDocument,
    session: Session,
    name: str,
    encoded: bytes,
    image: Image,
) -> ReceiptPicture:
    theirs = reference.probabilities(encoded)
    family = Classifier(document)
    tensor, geometry = family.preprocess(image)
    ours = family.postprocess(_run(session, document, tensor), geometry, Options())
    difference = float(np.abs(ours.probabilities - theirs).max())
    if not difference <= SCORE_TOLERANCE:
        raise _failure(name, f"scores differ by {difference:.2g}, {SCORE_TOLERANCE:g} is allowed")
    ranked = np.argsort(-theirs, kind="stable")
    swapped = 0
    for rank, label in enumerate(ours.classifications):
        if label.class_id != ranked[rank]:
            # Two labels may change places only where the original nearly ties them.
            gap = abs(float(theirs[ranked[rank]] - theirs[label.class_id]))
            if gap > SCORE_TOLERANCE:
                raise _failure(name, f"rank {rank + 1} is another label, {gap:.2g} from a tie")
            swapped += 1
    return _picture(name, image, len(ours.classifications), swapped, difference)


def _detect(
    reference: DetectorReference,
    document: ModelDocument,
    session: Session,
    name: str,
    encoded: bytes,
    image: Image,
) -> tuple[ReceiptPicture, RowComparison]:
    seen = reference.look(encoded)
    family = Detector(document)
    tensor, geometry = family.preprocess(image)
    outputs = _run(session, document, tensor)
    rows = _compare_rows(family, outputs, seen, name)
    assert document.detection_defaults is not None
    defaults = document.detection_defaults
    score_threshold = _threshold(seen, defaults.score_threshold, name)
    options = Options(score_threshold=score_threshold)
    ours = _found(family.postprocess(outputs, geometry, options))
    edge = _Edge(seen, score_threshold, defaults.iou_threshold)
    matched, excused = edge.compare(ours, name)
    theirs = edge.theirs
    score_difference, box_difference = 0.0, 0.0
    for mine, other in matched:
        score_difference = max(
            score_difference, abs(float(ours.scores[mine] - theirs.scores[other]))
        )
        box_difference = max(
            box_difference, float(np.abs(ours.boxes[mine] - theirs.boxes[other]).max())
        )
    picture = _picture(name, image, len(matched), excused, score_difference)
    return (
        picture.model_copy(
            update={
                "score_threshold": score_threshold,
                "max_box_difference_px": box_difference,
            }
        ),
        rows,
    )


def _threshold(seen: Seen, model_threshold: float, name: str) -> float:
    """Return the highest threshold that leaves a picture enough candidates to compare."""
    scores = seen.candidates.scores
    for enough in (_ENOUGH_CANDIDATES, 1):
        for threshold in (model_threshold, *_THRESHOLDS):
            if np.count_nonzero(scores > threshold) >= enough:
                return threshold
    raise _failure(name, "the original sees nothing at all, at any threshold")


def _compare_rows(family: Detector, outputs: list[Tensor], seen: Seen, name: str) -> RowComparison:
    """Compare all candidates before suppression, in pixels of the input."""
    ours, theirs = family.candidates(outputs, -1.0), seen.candidates
    if len(ours.scores) != len(theirs.scores):
        raise _failure(name, f"{len(ours.scores)} candidates, PyTorch has {len(theirs.scores)}")
    score_difference = float(np.abs(ours.scores - theirs.scores).max())
    box_difference = float(np.abs(ours.boxes - theirs.boxes).max())
    if not (score_difference <= SCORE_TOLERANCE and box_difference <= BOX_TOLERANCE_PX):
        raise _failure(
            name,
            f"candidates differ by {score_difference:.2g} in score and {box_difference:.2g} px; "
            f"{SCORE_TOLERANCE:g} and {BOX_TOLERANCE_PX:g} px are allowed",
        )
    return RowComparison(
        count=len(ours.scores),
        max_score_difference=score_difference,
        max_box_difference_px=box_difference,
    )


class _Edge:
    """Tells a real difference from one that the original would make too, a hair further on."""

    def __init__(self, seen: Seen, score_threshold: float, iou_threshold: float) -> None:
        self._seen = seen
        self.theirs = seen.detect(score_threshold, iou_threshold)
        self._thresholds = (score_threshold, iou_threshold)

    def compare(self, ours: Found, name: str) -> tuple[list[tuple[int, int]], int]:
        """Return the pairs of (our, their) index that match, and how many were excused."""
        theirs = self.theirs
        pairs = match(ours, theirs)
        alone = sorted(set(range(len(ours.scores))) - {mine for mine, _ in pairs})
        missing = sorted(set(range(len(theirs.scores))) - {other for _, other in pairs})
        neighbours = self._neighbours() if alone or missing else []
        for side, found, indices in (
            ("here", ours, alone),
            ("in PyTorch", theirs, missing),
        ):
            for index in indices:
                one = _only(found, index)
                # Excused if a slightly different threshold changes the original's mind on it.
                known = [bool(match(one, other)) for other in neighbours]
                if all(known) or not any(known):
                    raise _failure(
                        name,
                        f"class {one.class_ids[0]} with score {one.scores[0]:.4f} at "
                        f"{np.round(one.boxes[0], 1).tolist()} is only found {side}",
                    )
        return pairs, len(alone) + len(missing)

    def _neighbours(self) -> list[Found]:
        """Return what the original answers around the thresholds, and with its near ties turned."""
        score, iou = self._thresholds
        step = SCORE_TOLERANCE
        answers = [
            self._seen.detect(max(score + ds, 0.0), min(max(iou + di, 0.0), 1.0))
            for ds in (-step, 0, step)
            for di in (-step, 0, step)
        ]
        return answers + [_turned(self._seen, score, iou, seed) for seed in range(8)]


def _turned(seen: Seen, score: float, iou: float, seed: int) -> Found:
    """Return the original's answer with every score moved by less than the tolerance.

    Where the two best classes of a candidate nearly tie, the second may win.
    """
    own = seen.candidates
    random = np.random.default_rng(seed)
    moved = random.uniform(-0.5, 0.5, own.scores.shape) * SCORE_TOLERANCE
    ties = own.scores - own.second_scores <= SCORE_TOLERANCE
    second = ties & (random.random(own.scores.shape) < 0.5)
    other = replace(
        own,
        scores=own.scores + moved.astype(np.float32),
        class_ids=np.where(second, own.second_ids, own.class_ids),
    )
    return seen.detect(score, iou, other)


def match(ours: Found, theirs: Found) -> list[tuple[int, int]]:
    """Return pairs of indices, one to one: same class, within the tolerances, nearest first."""
    if not (len(ours.scores) and len(theirs.scores)):
        return []
    box_difference = np.abs(ours.boxes[:, None] - theirs.boxes[None]).max(2)
    score_difference = np.abs(ours.scores[:, None] - theirs.scores[None])
    allowed = (
        (ours.class_ids[:, None] == theirs.class_ids[None])
        & (box_difference <= BOX_TOLERANCE_PX)
        & (score_difference <= SCORE_TOLERANCE)
    )
    candidates = np.argwhere(allowed)
    order = np.argsort(box_difference[allowed], kind="stable")
    pairs: dict[int, int] = {}
    for mine, other in candidates[order].tolist():
        if mine not in pairs and other not in pairs.values():
            pairs[mine] = other
    return list(pairs.items())


def _only(found: Found, index: int) -> Found:
    one = slice(index, index + 1)
    return Found(found.boxes[one], found.scores[one], found.class_ids[one])


def _found(answer: Detected) -> Found:
    boxes = [(d.box.x_min, d.box.y_min, d.box.x_max, d.box.y_max) for d in answer.detections]
    return Found(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([d.score for d in answer.detections], np.float32),
        np.array([d.class_id for d in answer.detections], np.int64),
    )


def _run(session: Session, document: ModelDocument, tensor: Tensor) -> list[Tensor]:
    return session.run(tensor, output_names(document))


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
    return ReceiptFailed(f"the exported file does not give what PyTorch gives on {name!r}: {text}")
