"""Limits on the accuracy that an exported file may lose against its original."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from visavis_export.errors import AccuracyFailed
from visavis_export.pictures.labelled import Pictures
from visavis_export.proof import accuracy
from visavis_export.proof.served import ServedFile
from visavis_server.card import Accuracy, ModelDocument, Task


@dataclass(frozen=True, slots=True)
class AccuracyLimits:
    """The largest allowed loss of accuracy, in percentage points."""

    top1_drop: float = 0.5
    map_drop: float = 1.0


DEFAULT_LIMITS = AccuracyLimits()


# Labels of another model give less than either of these; so may a handful of hard pictures.
_CHANCE_MAP = 0.01
_FEWEST_FOR_BASELINE = 10
# With 32 pictures the int8 error equals that of 100.
_FEWEST_FOR_RANGES = 32


def measure(
    file: ServedFile, real: Pictures, original: accuracy.Figures, advance: Callable[[], None]
) -> Accuracy:
    """Return a file's accuracy for its card.

    original: the accuracy of the PyTorch original on the same pictures. advance: called after
    each picture.
    """
    document = file.document
    measured = accuracy.measure(accuracy.of_file(file), real.accuracy, document, advance)
    used = "none" if real.held_out else "some"
    return Accuracy(
        metric="mAP50-95" if document.task is Task.OBJECT_DETECTION else "top-1",
        value=measured.value,
        original=original.value,
        error=measured.error_of_difference(original),
        pictures=len(real.accuracy),
        source=f"{len(real.accuracy)} of the {real.total} pictures in {real.name}, {used} of them "
        "used for calibration",
        # Only int8 is calibrated.
        held_out=real.held_out or document.precision != "int8",
    )


def check_baseline(original: accuracy.Figures, real: Pictures, document: ModelDocument) -> str:
    """Return why the original's accuracy on a few pictures is no baseline; "" if it is one.

    Against a baseline no better than chance every file would pass. Raises AccuracyFailed if the
    original is no better than chance on enough pictures to be sure.
    """
    count, value = len(real.accuracy), original.value
    if document.provenance.random_weights:
        return ""
    few = count < _FEWEST_FOR_BASELINE
    if document.task is Task.OBJECT_DETECTION:
        metric, chance = "mAP50-95", _CHANCE_MAP
    else:
        metric, chance = "top-1", 1 / len(document.label_set.labels)
        if not few:  # With few pictures, two standard errors can exceed 100 %.
            chance += 2 * math.sqrt(chance * (1 - chance) / count)
    if value > chance or (value == chance and not few):
        return ""
    reason = (
        f"the PyTorch original itself reaches {value:.2%} {metric} on {count} pictures of "
        f"{real.name}, no more than chance"
    )
    if few:
        return f"{reason}; this is too few pictures for a baseline: give more"
    raise AccuracyFailed(
        f"{reason}: either the labels belong to another model, or the pictures are unlike those "
        "that it was trained on; check the class ids, or export without the labels"
    )


def warnings_for(precision: str, real: Pictures | None, document: ModelDocument) -> tuple[str, ...]:
    """Return a warning for each check that had too few pictures or labels to be reliable.

    document: includes its accuracy, if that was measured.
    """
    warnings = []
    if precision == "int8" and real is not None:
        if (used := len(real.calibration)) < _FEWEST_FOR_RANGES:
            warnings.append(
                f"the int8 ranges come from only {used} of {real.total} pictures; give "
                f"{2 * _FEWEST_FOR_RANGES} or more"
            )
        if not real.accuracy:
            warnings.append(
                f"the accuracy was not measured: the {real.total} pictures have no labels; give "
                "them with --labels"
            )
    if document.accuracy is not None and document.accuracy.pictures < _FEWEST_FOR_BASELINE:
        warnings.append(
            f"the accuracy was measured on only {document.accuracy.pictures} labelled pictures; "
            f"give {_FEWEST_FOR_BASELINE} or more"
        )
    return tuple(warnings)


def enforce(name: str, measured: Accuracy, limits: AccuracyLimits) -> None:
    """Raise AccuracyFailed if the loss minus its standard error exceeds the limit.

    One picture of 168 is 0.6 points, and int8 flips near ties in either direction: without the
    standard error, a limit of 0.5 points would pass or fail by chance.
    """
    detects = measured.metric == "mAP50-95"
    limit = limits.map_drop if detects else limits.top1_drop
    drop, error = (measured.original - measured.value) * 100, measured.error * 100
    if drop - error > limit:
        option = "--max-map-drop" if detects else "--max-top1-drop"
        raise AccuracyFailed(
            f"{name} loses {drop:.2f} ± {error:.2f} points of {measured.metric}; the limit is "
            f"{limit:g}. It reaches {measured.value:.2%}, the original {measured.original:.2%}, on "
            f"{measured.source}. Nothing was written. Calibrate with pictures more like those that "
            f"the model was trained on, or raise the limit with {option}"
        )
