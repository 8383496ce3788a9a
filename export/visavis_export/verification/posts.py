"""Explains outputs that are right but read otherwise than the original reads them."""

from collections.abc import Sequence

import numpy as np
from visavis.dataset.names import comparable

from visavis_export.verification.cases import Case
from visavis_export.verification.foreign_file import ForeignFile
from visavis_export.verification.mistakes import finding
from visavis_export.verification.originals import Original
from visavis_export.verification.outcome import Finding, PictureOutcome, Stage
from visavis_server.card import ClassScores

_IMAGENET, _IMAGENET_CLASSES = "imagenet-1k", 1000


def explain(
    case: Case, picture: PictureOutcome, file: ForeignFile, original: Original
) -> tuple[Finding, ...]:
    """Return why the outputs of a picture are read otherwise."""
    output = file.document.output
    if isinstance(output, ClassScores):
        scores = file.run(case.tensor)[0][0]
        sums_to_one = scores.min() >= 0 and abs(float(scores.sum()) - 1) < 1e-2
        return (finding("softmax twice" if sums_to_one else "softmax missing"),)
    defaults = file.document.detection_defaults
    assert defaults is not None
    (score, iou), (own_score, own_iou) = (
        (defaults.score_threshold, defaults.iou_threshold),
        original.thresholds,
    )
    if not np.allclose((score, iou), (own_score, own_iou)):
        return (finding("thresholds", score=score, iou=iou, own_score=own_score, own_iou=own_iou),)
    return (finding("decoding", why=picture.stages[Stage.POSTPROCESSING].why),)


def of_names(file: ForeignFile, original: Original) -> tuple[Finding, ...]:
    """Return the finding for the first class that has another name in the file."""
    ours, theirs = file.document.label_set, original.labels
    # torchvision and ultralytics spell 308 of ImageNet's names differently.
    if ours.name == _IMAGENET and len(ours.labels) == len(theirs) == _IMAGENET_CLASSES:
        return ()
    return _first_other(ours.labels, theirs)


def _first_other(ours: Sequence[str], theirs: Sequence[str]) -> tuple[Finding, ...]:
    for class_id, (name, own) in enumerate(zip(ours, theirs, strict=False)):
        if comparable(name) != comparable(own):
            return (finding("names", class_id=class_id, name=name, own=own),)
    return ()
