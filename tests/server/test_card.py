"""The document of a model file: what it keeps, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from visavis_server.card import (
    Accuracy,
    ClassScores,
    DetectionDefaults,
    Facts,
    ModelDocument,
    ModelInput,
    Receipt,
    ReceiptPicture,
    ShorterSide,
    Stretch,
    Task,
    Yolov5Heads,
    json_schema,
    parse_document,
)
from visavis_server.errors import ModelFileError
from visavis_server.names import NAME_PATTERN

from . import graphs

SCHEMA = Path(__file__).parents[2] / "protos/visavis/v1/model.schema.json"

RECEIPT: dict[str, Any] = {
    "made_at": "2026-11-23T12:00:00Z",
    "score_tolerance": 1e-3,
    "box_tolerance_px": 1.0,
    "rows": {"count": 25200, "max_score_difference": 1e-6, "max_box_difference_px": 2e-3},
    "pictures": [
        {
            "name": "bus.jpg",
            "width": 810,
            "height": 1080,
            "score_threshold": 0.25,
            "compared": 5,
            "max_score_difference": 4e-6,
            "max_box_difference_px": 1.7e-3,
        },
        {"name": "grey.png", "width": 3, "height": 2, "compared": 1, "max_score_difference": 2e-5},
    ],
}


ACCURACY: dict[str, Any] = {
    "metric": "mAP50-95",
    "value": 0.316,
    "original": 0.321,
    "error": 0.007,
    "pictures": 64,
    "source": "64 of the 128 pictures in coco",
    "held_out": True,
}


def golden_sample(indices: list[int], values: list[float]) -> dict[str, Any]:
    sampled = {"tensor": "output0", "indices": indices, "values": values}
    return {"outputs": [sampled], "relative_tolerance": 1e-3}


def whole_document() -> ModelDocument:
    return graphs.detector_document(
        variant_of="boxes-fp32",
        facts=Facts(architecture="X", release_date="2020-06", sources={"architecture": "paper"}),
        digest="ab" * 32,
        receipt=Receipt.model_validate(RECEIPT),
        accuracy=Accuracy.model_validate(ACCURACY),
        golden_sample=golden_sample([0, 3], [0.5, -1.25]),
        output=graphs.yolov5_heads(),
    )


def written(**changes: Any) -> str:
    """Return a valid document as JSON, with some fields replaced without a check."""
    return json.dumps({**json.loads(whole_document().model_dump_json()), **changes})


@pytest.mark.parametrize("document", [whole_document(), graphs.classifier_document()])
def test_a_document_survives_being_written_and_read(document: ModelDocument) -> None:
    assert parse_document(document.model_dump_json(), "here") == document


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"surprise": 1}, "surprise"),
        ({"schema_version": 2}, "schema_version"),
        ({"name": "../evil"}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"task": "segmentation"}, "task"),
        ({"digest": "ABC"}, "digest"),
        ({"precision": "fp64"}, "precision"),
        ({"facts": {"architecture": "X", "colour": "red"}}, "facts.colour"),
        ({"facts": {"architecture": "X", "release_date": "June 2020"}}, "facts.release_date"),
        ({"facts": {"architecture": "X", "sources": {"colour": "?"}}}, "colour"),
        ({"label_set": {"name": "x", "labels": []}}, "label_set.labels"),
        ({"golden_sample": golden_sample([], [])}, "golden_sample.outputs.0.sampled.indices"),
        ({"golden_sample": golden_sample([0, 1], [1, 2, 3])}, "need the same length"),
        ({"golden_sample": golden_sample([-1], [1])}, "golden_sample.outputs.0.sampled.indices"),
        ({"receipt": {**RECEIPT, "pictures": []}}, "receipt.pictures"),
        ({"receipt": {**RECEIPT, "score_tolerance": float("nan")}}, "score_tolerance"),
        ({"accuracy": {**ACCURACY, "value": 31.6}}, "accuracy.value"),
        ({"accuracy": {**ACCURACY, "metric": "top-1"}}, "top-1 does not apply to object detection"),
        ({"detection_defaults": {"score_threshold": 1.5, "iou_threshold": 0}}, "score_threshold"),
    ],
)
def test_a_violation_of_the_schema_is_refused_with_its_location(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ModelFileError, match=f"here.onnx: its document .*{why}"):
        parse_document(written(**changes), "here.onnx")


@pytest.mark.parametrize("text", ["", "null", "[]", "{", "\ud800", "nonsense"])
def test_text_that_is_not_a_document_is_refused(text: str) -> None:
    with pytest.raises(ModelFileError, match=r"here\.onnx: its document"):
        parse_document(text, "here.onnx")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"task": Task.CLASSIFICATION}, "layout yolov5_rows can't serve classification"),
        ({"output": ClassScores(layout="logits", tensor="x")}, "can't serve object detection"),
        (
            {"input": ModelInput(tensor="x", width=8, height=8, resize=Stretch())},
            "resize rule stretch can't serve object detection",
        ),
        ({"detection_defaults": None}, "detection_defaults are required for detectors"),
    ],
)
def test_parts_that_do_not_fit_the_task_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        graphs.detector_document(**changes)


def test_a_classifier_has_no_detection_defaults() -> None:
    defaults = DetectionDefaults(score_threshold=0.25, iou_threshold=0.45)
    with pytest.raises(ValidationError, match="only for them"):
        graphs.classifier_document(detection_defaults=defaults)


def test_a_crop_larger_than_the_picture_is_refused() -> None:
    with pytest.raises(ValidationError, match="too small for the crop"):
        ModelInput(tensor="x", width=224, height=224, resize=ShorterSide(size=223))


def test_heads_need_one_entry_per_scale() -> None:
    with pytest.raises(ValidationError, match=r"one entry per scale; .* features 1, weights 2"):
        Yolov5Heads(**{**graphs.yolov5_heads().model_dump(), "features": ("one",)})


def test_a_receipt_sums_up_its_worst_picture() -> None:
    receipt = Receipt.model_validate(RECEIPT)
    assert receipt.max_score_difference == 2e-5
    assert receipt.max_box_difference_px == 1.7e-3


def test_a_classifiers_receipt_has_no_box_difference() -> None:
    picture = ReceiptPicture(name="a", width=1, height=1, compared=1, max_score_difference=0)
    receipt = Receipt.model_validate({**RECEIPT, "pictures": [picture]})
    assert receipt.max_box_difference_px is None


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"rule": "shorter_side", "size": 256}, "shorter side to 256, centre crop 224x200"),
        ({"rule": "stretch"}, "stretched to 224x200"),
        ({"rule": "center_square"}, "centre square to 224x200"),
        ({"rule": "letterbox", "unpad": "exact"}, "letterbox to 224x200"),
    ],
)
def test_a_resize_rule_is_described_in_words(rule: dict[str, Any], words: str) -> None:
    fields = {"tensor": "x", "width": 224, "height": 200, "resize": rule}
    assert ModelInput.model_validate(fields).describe_resize() == words


def test_the_published_schema_is_the_one_of_the_code() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == json_schema(), "run `make generate`"


def test_the_published_schema_holds_for_a_real_document() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert not list(validator.iter_errors(json.loads(whole_document().model_dump_json())))
    assert list(validator.iter_errors(json.loads(written(surprise=1))))


def test_names_are_one_plain_path_segment() -> None:
    assert NAME_PATTERN.endswith("$")
    for name in ("resnet50", "yolov5n-cls", "a.b_c", "7"):
        assert graphs.classifier_document(name=name).name == name
    for name in ("", ".hidden", "a/b", "a b", "é", "x" * 129, "-flag", "a\n"):
        with pytest.raises(ValidationError, match="name"):
            graphs.classifier_document(name=name)
