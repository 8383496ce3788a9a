"""Variants of a model: its graph in another precision, and what that costs in accuracy."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from visavis_export import accuracy
from visavis_export.errors import AccuracyFailed
from visavis_export.labelled import Pictures
from visavis_export.precision import write_fp16, write_int8
from visavis_export.served import ServedFile, read_image
from visavis_server.card import Accuracy, ModelDocument, Task
from visavis_server.vision.families import family_of, preprocess_one


@dataclass(frozen=True, slots=True)
class AccuracyLimits:
    """How many points of accuracy a file may lose against its original; 100 points are all."""

    top1_drop: float = 0.5
    map_drop: float = 1.0


DEFAULT_LIMITS = AccuracyLimits()


# Labels of another model give less than either; so may a handful of hard pictures.
_CHANCE_MAP = 0.01
_FEWEST_FOR_SENSE = 10
# With 32 pictures int8's error is that of 100.
_FEWEST_FOR_RANGES = 32


def convert(
    draft: ModelDocument, precision: str, graph: Path, target: Path, real: Pictures | None
) -> ModelDocument:
    """Write the graph in a precision as `target`; returns the draft of its document."""
    if precision == "fp32":
        target.write_bytes(graph.read_bytes())
        return draft
    if precision == "fp16":
        write_fp16(graph, target)
        conversion = "fp16 weights and arithmetic, fp32 input and output"
    else:
        assert real is not None
        family = family_of(draft)
        images = (read_image(path.name, path.read_bytes()) for path in real.calibration)
        inputs = (preprocess_one(family, image)[0] for image in images)
        kept = write_int8(graph, inputs, target)
        conversion = (
            "static QDQ, int8 weights by channel, uint8 activations, calibrated with "
            f"{len(real.calibration)} of the {real.total} pictures in {real.name}"
            + (f"; {kept} convolutions, the first and the last, are fp32" if kept else "")
        )
    provenance = draft.provenance.model_copy(update={"conversion": conversion})
    return draft.model_copy(
        update={
            "name": variant_name(draft.name, precision),
            "precision": precision,
            "variant_of": draft.name,
            "provenance": provenance,
        }
    )


def variant_name(name: str, precision: str) -> str:
    """Return what a model is called in a precision."""
    return name if precision == "fp32" else f"{name}-{precision}"


def measure(
    file: ServedFile, real: Pictures, original: accuracy.Figures, advance: Callable[[], None]
) -> Accuracy:
    """Return the accuracy for a file's card; original: its original's, on the same pictures."""
    document = file.document
    measured = accuracy.measure(accuracy.of_file(file), real.accuracy, document, advance)
    which = "others than" if real.held_out else "among them"
    return Accuracy(
        metric="mAP50-95" if document.task is Task.OBJECT_DETECTION else "top-1",
        value=measured.value,
        original=original.value,
        error=measured.error_of_difference(original),
        pictures=len(real.accuracy),
        source=f"{len(real.accuracy)} of the {real.total} pictures in {real.name}, {which} "
        "those for calibration",
        # Only int8 was made with pictures.
        held_out=real.held_out or document.precision != "int8",
    )


def require_sense(original: accuracy.Figures, real: Pictures, document: ModelDocument) -> str:
    """Return why the PyTorch original's accuracy on a few pictures is no baseline, or nothing.

    Whatever a file loses against one that is no better than chance, it would pass. Raises
    AccuracyFailed where there are enough pictures to tell that it is not.
    """
    count, value = len(real.accuracy), original.value
    if document.provenance.random_weights:
        return ""
    few = count < _FEWEST_FOR_SENSE
    if document.task is Task.OBJECT_DETECTION:
        metric, chance = "mAP50-95", _CHANCE_MAP
    else:
        metric, chance = "top-1", 1 / len(document.label_set.labels)
        if not few:  # Of a few, two standard errors would be more than all.
            chance += 2 * math.sqrt(chance * (1 - chance) / count)
    if value > chance or (value == chance and not few):
        return ""
    found = (
        f"the PyTorch original itself reaches {value:.2%} {metric} on {count} pictures of "
        f"{real.name}, no more than chance"
    )
    if few:
        return f"{found}; it is no baseline, and too few to tell why: give more pictures"
    raise AccuracyFailed(
        f"{found}: the labels are not this model's, or the pictures "
        "are not what it was trained on; check the class ids, or leave the labels out"
    )


def unchecked(precision: str, real: Pictures | None, document: ModelDocument) -> tuple[str, ...]:
    """Return what the pictures of an export are too few, or too little labelled, to check.

    document: with its accuracy, if that was measured.
    """
    doubts = []
    if precision == "int8" and real is not None:
        if (used := len(real.calibration)) < _FEWEST_FOR_RANGES:
            doubts.append(
                f"ranges come from {used} of {real.total} pictures, and hold for what is like "
                f"them; give {2 * _FEWEST_FOR_RANGES} or more"
            )
        if not real.accuracy:
            doubts.append(
                f"accuracy is not measured: the {real.total} pictures have no labels; give some "
                "with --labels"
            )
    if document.accuracy is not None and document.accuracy.pictures < _FEWEST_FOR_SENSE:
        doubts.append(
            f"accuracy on {document.accuracy.pictures} labelled pictures proves nothing; give "
            f"{_FEWEST_FOR_SENSE} or more"
        )
    return tuple(doubts)


def hold(name: str, measured: Accuracy, limits: AccuracyLimits) -> None:
    """Raise AccuracyFailed if a file lost more than it may, and more than chance explains.

    One picture of 168 is 0.6 points. Without the standard error a limit of 0.5 would toss a
    coin: int8 turns near ties, as often to the better.
    """
    detects = measured.metric == "mAP50-95"
    limit = limits.map_drop if detects else limits.top1_drop
    drop, error = (measured.original - measured.value) * 100, measured.error * 100
    if drop - error > limit:
        option = "--max-map-drop" if detects else "--max-top1-drop"
        raise AccuracyFailed(
            f"{name} loses {drop:.2f} ± {error:.2f} points of {measured.metric}, {limit:g} are "
            f"allowed: {measured.value:.2%} against {measured.original:.2%} of the original, on "
            f"{measured.source}; nothing was written. Give pictures more like those that the "
            f"model was trained on, or allow more with {option}"
        )
