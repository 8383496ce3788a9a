"""Results as the values of other libraries, which read them back."""

import contextlib
import io
import json
from typing import Any

import faster_coco_eval
import numpy as np
import pytest
import supervision
from google.protobuf.json_format import MessageToDict
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from visavis import Client, DetectResult, reading
from visavis.v1 import vision_pb2 as pb

from . import canned, fresh_python

NOTHING = pb.DetectResponse(served_by=canned.served_by("yolov5n"), image_size=canned.SIZE)
CATEGORIES = {"person": 1, "bus": 6}


@pytest.fixture
def detected(client: Client) -> DetectResult:
    return client.detect(b"jpeg", model="yolov5n")


def rounded(value: Any) -> Any:
    """Return the value without its absent parts, and with numbers that float32 can tell apart."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return round(float(value), 3) if isinstance(value, int | float) else value


@pytest.mark.parametrize("annotate", [False, True])
def test_dict_is_protobufs_json(client: Client, annotate: bool):
    for result in (
        client.classify(b"jpeg", model="resnet50", annotate=annotate),
        client.detect(b"jpeg", model="yolov5n", annotate=annotate),
    ):
        expected = MessageToDict(
            result.message,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        assert rounded(json.loads(json.dumps(result.to_dict()))) == rounded(expected)


def test_dict_of_a_comparison_has_tasks_by_name_and_no_message(client: Client):
    plain = json.loads(json.dumps(client.compare(b"jpeg").to_dict()))
    assert [task["task"] for task in plain["comparisons"]] == ["classification", "detection"]
    failed = plain["comparisons"][1]["answers"][2]
    assert failed["status"] == {"code": "INTERNAL", "message": "internal error"}
    assert "message" not in plain
    assert plain["models"][0]["tasks"] == ["classification"]
    assert plain["comparisons"][0]["answers"][0]["agreement"] is None


def test_supervision_has_what_its_own_reader_makes_of_the_boxes(detected: DetectResult):
    found = detected.to_supervision()
    predictions = [
        {
            "x": (one.box.x_min + one.box.x_max) / 2,
            "y": (one.box.y_min + one.box.y_max) / 2,
            "width": one.box.width,
            "height": one.box.height,
            "confidence": one.score,
            "class_id": one.class_id,
            "class": one.label,
        }
        for one in detected.detections
    ]
    size = {"width": 810, "height": 1080}
    expected = supervision.Detections.from_inference({"image": size, "predictions": predictions})
    assert np.allclose(found.xyxy, expected.xyxy, atol=1e-3)
    assert np.allclose(found.confidence, expected.confidence)
    assert np.array_equal(found.class_id, expected.class_id)
    assert list(found["class_name"]) == list(expected["class_name"])


def test_supervision_filters_and_draws_the_boxes(detected: DetectResult):
    found = detected.to_supervision()
    people = found[found["class_name"] == "person"]
    assert (len(found), len(people)) == (5, 4)
    scene = np.zeros((1080, 810, 3), np.uint8)
    supervision.LabelAnnotator().annotate(
        supervision.BoxAnnotator().annotate(scene, people), people
    )
    assert scene.any()


def test_nothing_found_is_an_empty_value_everywhere():
    nothing = reading.detect_result(NOTHING)
    assert nothing.to_supervision().is_empty()
    assert nothing.to_coco(image_id=1) == []
    frame = nothing.to_pandas()
    assert len(frame) == 0
    assert list(frame.columns) == list(reading.detect_result(canned.DETECTED).to_pandas().columns)
    assert frame["score"].dtype == np.float64


def test_supervision_has_the_labels_of_a_classifier(client: Client):
    result = client.classify(b"jpeg", model="resnet50")
    found = result.to_supervision()
    class_ids, scores = found.get_top_k(2)
    assert list(class_ids) == [0, 1]
    assert scores == pytest.approx([0.512, 0.231])


@pytest.mark.parametrize("library", [COCO, faster_coco_eval.COCO])
def test_coco_entries_are_accepted_and_found_perfect_against_themselves(
    library: Any, detected: DetectResult
):
    entries = detected.to_coco(image_id=7, category_ids=CATEGORIES)
    assert entries[2]["category_id"] == 6
    assert entries[2]["bbox"] == pytest.approx([12.0, 231.8, 791.5, 524.2], abs=1e-3)
    truth = [
        {**entry, "id": number, "area": entry["bbox"][2] * entry["bbox"][3], "iscrowd": 0}
        for number, entry in enumerate(entries, 1)
    ]
    images = [{"id": 7, "width": 810, "height": 1080, "file_name": "bus.jpg"}]
    categories = [{"id": number, "name": name} for name, number in CATEGORIES.items()]
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = library()
        dataset.dataset = {"images": images, "annotations": truth, "categories": categories}
        dataset.createIndex()
        found = dataset.loadRes(json.loads(json.dumps(entries)))
        assert len(found.getAnnIds(imgIds=[7])) == 5
        if library is COCO:
            evaluation = COCOeval(dataset, found, "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            assert evaluation.stats[0] == pytest.approx(1.0)


def test_coco_category_is_the_class_id_unless_a_mapping_is_given(detected: DetectResult):
    assert [entry["category_id"] for entry in detected.to_coco(image_id=1)] == [0, 0, 5, 0, 0]
    with pytest.raises(ValueError, match="category_ids has no 'bus'"):
        detected.to_coco(image_id=1, category_ids={"person": 1})


def test_frame_has_a_row_per_detection_or_label(client: Client, detected: DetectResult):
    frame = detected.to_pandas()
    people = frame[frame.label == "person"]
    assert people.score.mean() == pytest.approx((0.803 + 0.801 + 0.643 + 0.286) / 4)
    assert frame.loc[2, ["x_min", "y_min", "x_max", "y_max"]].tolist() == pytest.approx(
        [12.0, 231.8, 803.5, 756.0], abs=1e-4
    )
    labels = client.classify(b"jpeg", model="resnet50").to_pandas()
    assert labels.columns.tolist() == ["model", "label", "class_id", "score"]
    assert labels.label.tolist()[0] == "minibus"


def test_frame_of_a_comparison_has_a_row_per_answer(client: Client):
    frame = client.compare(b"jpeg").to_pandas().set_index("model")
    assert frame.loc["resnet18", "jensen_shannon_divergence"] == 0.118
    assert frame.loc["resnet50", "baseline"]
    assert frame.loc["yolov5s", "matched"] == 3
    assert frame["matched"].isna().sum() == len(frame) - 1
    assert frame.loc["yolov5x", "status"] == "INTERNAL"
    assert frame.loc["yolov5n", "best_label"] == "person"


def test_answer_of_a_comparison_converts_as_its_task_does(client: Client):
    classification, detection = client.compare(b"jpeg").comparisons
    assert isinstance(classification.answers[0].to_supervision(), supervision.Classifications)
    boxes = detection.answers[0].to_supervision()
    assert isinstance(boxes, supervision.Detections)
    assert len(boxes) == len(detection.answers[0].to_coco(image_id=1))
    assert "x_min" in detection.answers[2].to_pandas()


@pytest.mark.parametrize(
    ("method", "package"), [("to_supervision", "supervision"), ("to_pandas", "pandas")]
)
def test_missing_package_is_named_with_its_extra(method: str, package: str):
    printed = fresh_python(
        "import sys; from visavis import reading; from visavis.v1 import vision_pb2 as pb\n"
        f"sys.modules['{package}'] = None\n"
        "result = reading.detect_result(pb.DetectResponse())\n"
        "try:\n"
        f"    result.{method}()\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error.name, error)"
    )
    expected = f"{package} {method} needs {package}: pip install 'visavis[{package}]'"
    assert printed.strip() == expected
