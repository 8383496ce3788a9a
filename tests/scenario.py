"""What the scenario of clients/README.md prints, as the contract says."""

import json
import re
from collections.abc import Iterator
from typing import Any

from visavis.v1 import vision_pb2 as pb

TASKS = {pb.TASK_CLASSIFICATION: "classification", pb.TASK_OBJECT_DETECTION: "object detection"}
_NUMBER = re.compile(r"(?<=[:\[,])-?\d+(\.\d+)?(?=[,\]}])")


def expected_lines(stub: Any, encoded: bytes) -> list[str]:
    """Return the lines that a server's own answers ask for; stub: the generated one."""
    lines = _lines(stub, pb.Image(encoded=encoded))
    return [json.dumps(line, ensure_ascii=False, separators=(",", ":")) for line in lines]


def assert_same(lines: list[str], expected: list[str]) -> None:
    """Assert that lines differ in nothing but the last decimals, and the order of arrivals."""
    lines, expected = _sorted_arrivals(lines), _sorted_arrivals(expected)
    assert [_NUMBER.sub("0", line) for line in lines] == [
        _NUMBER.sub("0", line) for line in expected
    ]
    for line, right_line in zip(lines, expected, strict=True):
        for number, right in zip(_NUMBER.finditer(line), _NUMBER.finditer(right_line), strict=True):
            # Pixels stand in lists; every other number has a name.
            tolerance = 1e-3 if line[number.start() - 1] == ":" else 0.2
            assert abs(float(number[0]) - float(right[0])) <= tolerance, f"{line}\n{right_line}"


def _sorted_arrivals(lines: list[str]) -> list[str]:
    """Return the lines with the first to the last arrival in the order of the alphabet."""
    arrivals = [number for number, line in enumerate(lines) if '"arrived"' in line]
    first, end = min(arrivals, default=0), max(arrivals, default=-1) + 1
    return [*lines[:first], *sorted(lines[first:end]), *lines[end:]]


def _lines(stub: Any, picture: pb.Image) -> Iterator[dict[str, object]]:
    yield {"step": "health", "status": "SERVING"}
    cards = stub.ListModels(pb.ListModelsRequest()).models
    yield {"step": "list", "models": [_card(card) for card in cards]}
    classify = pb.ClassifyRequest(image=picture, model="resnet50", top_k=3)
    labels = [
        {"label": found.label, "score": round(found.score, 4)}
        for found in stub.Classify(classify).classifications
    ]
    yield {"step": "classify", "model": "resnet50", "labels": labels}
    detect = pb.DetectRequest(image=picture, model="yolov5n", score_threshold=0.4)
    detections = [_detection(found) for found in stub.Detect(detect).detections]
    yield {"step": "detect", "model": "yolov5n", "detections": detections}
    yield from _comparison(stub.Compare(pb.CompareRequest(image=picture)))
    yield {"step": "deadline", "code": "DEADLINE_EXCEEDED"}
    error = {"code": "INVALID_ARGUMENT", "field": "top_k", "request_id": "scenario"}
    yield {"step": "error", **error}
    yield {"step": "tls", "models": len(cards), "without_token": "UNAUTHENTICATED"}


def _card(card: pb.Model) -> dict[str, object]:
    return {
        "name": card.name,
        "task": TASKS[card.tasks[0]],
        "precision": card.precision,
        "random_weights": card.random_weights,
    }


def _detection(found: pb.Detection) -> dict[str, object]:
    edges = (found.box.x_min, found.box.y_min, found.box.x_max, found.box.y_max)
    return {
        "label": found.label,
        "score": round(found.score, 4),
        "box": [round(edge, 1) for edge in edges],
    }


def _comparison(compared: pb.CompareResponse) -> Iterator[dict[str, object]]:
    answers = [
        (TASKS[comparison.task], answer)
        for comparison in compared.comparisons
        for answer in comparison.answers
    ]
    for _, answer in answers:
        count = len(answer.classifications) + len(answer.detections)
        yield {"step": "compare", "arrived": answer.served_by.model, "answers": count}
    for task, answer in answers:
        model = answer.served_by.model
        yield {"step": "compare", "task": task, "model": model, "agreement": _agreement(answer)}


def _agreement(answer: pb.ModelAnswer) -> dict[str, object] | None:
    if answer.HasField("classification_agreement"):
        labels = answer.classification_agreement
        return {"same_top1": labels.same_top1, "top_k_overlap": round(labels.top_k_overlap, 4)}
    if answer.HasField("detection_agreement"):
        boxes = answer.detection_agreement
        return {
            "matched": boxes.matched,
            "only_here": boxes.only_here,
            "only_in_baseline": boxes.only_in_baseline,
            "f1": round(boxes.f1, 4),
        }
    return None
