"""Compares two answers by labels, scores and boxes; timings are ignored."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from visavis.bench.workload import Call
from visavis.v1 import vision_pb2 as pb

# The tolerances of the receipt, which compares a model with its PyTorch original.
SCORE_TOLERANCE = 0.001
BOX_TOLERANCE_PX = 1.0


@dataclass(frozen=True, slots=True)
class Item:
    """One label of an answer. box: xyxy in pixels; empty for the whole picture."""

    label: str
    score: float
    box: tuple[float, ...] = ()


Answer: TypeAlias = dict[str, tuple[Item, ...] | str]
"""The labels or boxes of each model by name; an error message if it failed in a comparison."""


def read(call: Call, response: bytes) -> Answer:
    """Return the answer in a serialised response."""
    if call.method == "classify":
        classified = pb.ClassifyResponse.FromString(response)
        return {classified.served_by.model: _labels(classified.classifications)}
    if call.method == "detect":
        detected = pb.DetectResponse.FromString(response)
        return {detected.served_by.model: _boxes(detected.detections)}
    comparisons = pb.CompareResponse.FromString(response).comparisons
    return {
        answer.served_by.model: answer.status.message
        or (*_labels(answer.classifications), *_boxes(answer.detections))
        for task in comparisons
        for answer in task.answers
    }


def from_limit(answer: dict[str, list[dict[str, Any]]]) -> Answer:
    """Return the answer of the in-process limit for one picture."""
    return {
        model: tuple(Item(i["label"], i["score"], tuple(i.get("box", ()))) for i in items)
        for model, items in answer.items()
    }


def difference(expected: Answer, actual: Answer) -> str:
    """Return a description of the first difference between two answers; empty if equal."""
    if expected.keys() != actual.keys():
        return f"models {', '.join(actual)} answered instead of {', '.join(expected)}"
    for model, one in expected.items():
        other = actual[model]
        if isinstance(one, str) or isinstance(other, str):
            if one != other:
                return f"{model}: {_short(other)} instead of {_short(one)}"
        elif text := _first_difference(one, other):
            return f"{model}: {text}"
    return ""


def _first_difference(expected: Sequence[Item], actual: Sequence[Item]) -> str:
    for number, (one, other) in enumerate(zip(expected, actual, strict=False), 1):
        if one.label != other.label:
            return f"rank {number} is {other.label!r} instead of {one.label!r}"
        if not abs(one.score - other.score) <= SCORE_TOLERANCE:
            return f"{one.label!r} scores {other.score:.6f} instead of {one.score:.6f}"
        edges = zip(one.box, other.box, strict=True)
        if not all(abs(edge - other_edge) <= BOX_TOLERANCE_PX for edge, other_edge in edges):
            return f"the box of {one.label!r} is {other.box} instead of {one.box}"
    if len(expected) != len(actual):
        return f"{len(actual)} labels or boxes instead of {len(expected)}"
    return ""


def _labels(items: Iterable[pb.Classification]) -> tuple[Item, ...]:
    return tuple(Item(item.label, item.score) for item in items)


def _boxes(items: Iterable[pb.Detection]) -> tuple[Item, ...]:
    return tuple(
        Item(i.label, i.score, (i.box.x_min, i.box.y_min, i.box.x_max, i.box.y_max)) for i in items
    )


def _short(answer: Sequence[Item] | str) -> str:
    return answer if isinstance(answer, str) else f"{len(answer)} labels or boxes"
