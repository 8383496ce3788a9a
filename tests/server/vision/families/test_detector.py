"""Detection, against hand-computed boxes and a plain decoding of YOLOv5's heads."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis_server.card import DetectionDefaults, LabelSet, Letterbox, ModelInput
from visavis_server.vision.boxes import letterbox
from visavis_server.vision.families import preprocess_one
from visavis_server.vision.families.detector import Detector
from visavis_server.vision.results import Box, Detection, DetectOptions

from ... import graphs
from ...graphs import ANCHORS, STRIDES
from ...pictures import noise

# A 64 x 64 picture fills the input: boxes come back as they are.
PLACE = letterbox(64, 64, 64, 64)


def detector(**changes: Any) -> Detector:
    return Detector(graphs.detector_document(**changes))


def heads(classes: int = 2) -> Detector:
    return detector(
        label_set=LabelSet(name="things", labels=tuple(f"c{i}" for i in range(classes))),
        output=graphs.yolov5_heads(),
    )


def found(answer: Any) -> list[tuple[str, float, tuple[float, ...]]]:
    """Return detections as (label, score, corners), rounded to three digits."""
    return [
        (
            d.label,
            round(d.score, 3),
            tuple(round(v, 3) for v in (d.box.x_min, d.box.y_min, d.box.x_max, d.box.y_max)),
        )
        for d in answer.detections
    ]


CAT = ("cat", 0.9, (10, 10, 30, 30))
OVERLAPPED_CAT = ("cat", 0.8, (15, 10, 35, 30))
DOG = ("dog", 0.4, (45, 40, 55, 60))


def test_an_image_is_letterboxed_with_grey_and_scaled_to_one() -> None:
    image = noise(32, 64, 3)
    tensor, place = preprocess_one(detector(), image)
    assert tensor.shape == (1, 3, 64, 64)
    assert tensor.dtype == np.float32
    expected = np.full((64, 64, 3), 114, np.uint8)
    expected[16:48] = image
    np.testing.assert_array_equal(
        tensor[0].transpose(1, 2, 0), expected.astype(np.float32) / np.float32(255)
    )
    assert place == letterbox(64, 32, 64, 64)


def test_an_image_of_another_size_is_resized_bilinearly_by_opencv() -> None:
    image = noise(50, 100, 3)
    tensor, _ = preprocess_one(detector(), image)
    expected = cv2.resize(image, (64, 32), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(
        tensor[0, :, 16:48].transpose(1, 2, 0), expected.astype(np.float32) / np.float32(255)
    )


@pytest.mark.parametrize(("width", "height"), [(1, 3000), (3000, 1), (1, 1), (5000, 4000)])
def test_odd_shapes_fill_the_input(width: int, height: int) -> None:
    document = ModelInput(tensor="images", width=96, height=64, resize=Letterbox(unpad="exact"))
    tensor, _ = preprocess_one(detector(input=document), np.zeros((height, width, 3), np.uint8))
    assert tensor.shape == (1, 3, 64, 96)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (50, 100), (99, 50), (640, 480)])
def test_the_input_is_overwritten_completely(width: int, height: int) -> None:
    batch = np.full((3, 3, 64, 64), np.nan, np.float32)
    detector().preprocess(noise(height, width, 3), batch[1])
    assert not np.isnan(batch[1]).any()
    assert np.isnan(batch[[0, 2]]).all()


def test_yolov5_rows_give_objectness_times_class() -> None:
    answer = detector().postprocess([graphs.ROWS], PLACE, DetectOptions())
    assert found(answer) == [CAT, DOG]


def test_ultralytics_rows_give_the_class_score() -> None:
    columns = np.array(
        [[20, 25, 50], [20, 20, 50], [20, 20, 10], [20, 20, 20], [0.9, 0.8, 0.1], [0.1, 0.1, 0.4]],
        np.float32,
    )
    model = detector(output=graphs.candidates("ultralytics_rows"))
    assert found(model.postprocess([columns[None]], PLACE, DetectOptions())) == [CAT, DOG]


def test_end_to_end_rows_are_not_suppressed_again() -> None:
    rows = [[45, 40, 55, 60, 0.4, 1], [15, 10, 35, 30, 0.8, 0], [10, 10, 30, 30, 0.9, 0]]
    padding = [[0, 0, 0, 0, 0, 0]] * 2
    model = detector(output=graphs.candidates("end_to_end"))
    outputs = [np.array([rows + padding], np.float32)]
    answer = model.postprocess(outputs, PLACE, DetectOptions(iou_threshold=0.0))
    assert found(answer) == [CAT, OVERLAPPED_CAT, DOG]


def test_boxes_are_given_in_pixels_of_the_original() -> None:
    place = letterbox(128, 64, 64, 64)  # half the size, 16 pixels of padding above
    (cat, _) = detector().postprocess([graphs.ROWS], place, DetectOptions()).detections
    assert cat == Detection(Box(20, 0, 60, 28), 0, "cat", pytest.approx(0.9))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (DetectOptions(iou_threshold=0.7), [CAT, OVERLAPPED_CAT, DOG]),
        (DetectOptions(score_threshold=0.5), [CAT]),
        (DetectOptions(score_threshold=0.95), []),
        (DetectOptions(score_threshold=1.0), []),
        (DetectOptions(score_threshold=0.0, iou_threshold=1.0), [CAT, OVERLAPPED_CAT, DOG]),
        (DetectOptions(max_detections=1), [CAT]),
        (DetectOptions(max_detections=2, iou_threshold=1.0), [CAT, OVERLAPPED_CAT]),
        (DetectOptions(labels=("dog",)), [DOG]),
        (DetectOptions(labels=("dog", "cat")), [CAT, DOG]),
        (DetectOptions(labels=("bird",)), []),
    ],
)
def test_options_select_the_detections(options: DetectOptions, expected: list[Any]) -> None:
    assert found(detector().postprocess([graphs.ROWS], PLACE, options)) == expected


def test_a_score_at_the_threshold_is_not_above_it() -> None:
    outputs = [graphs.yolov5_rows((20, 20, 20, 20, 0.5, 0.5, 0))]
    model = detector()
    assert not model.postprocess(outputs, PLACE, DetectOptions(score_threshold=0.25)).detections
    assert model.postprocess(outputs, PLACE, DetectOptions(score_threshold=0.2499)).detections


def test_labels_suppress_each_other_only_if_class_agnostic() -> None:
    same_place = graphs.yolov5_rows((20, 20, 20, 20, 1, 0.9, 0), (20, 20, 20, 20, 1, 0, 0.8))
    both = detector().postprocess([same_place], PLACE, DetectOptions())
    assert [d.label for d in both.detections] == ["cat", "dog"]
    one = detector().postprocess([same_place], PLACE, DetectOptions(class_agnostic=True))
    assert [d.label for d in one.detections] == ["cat"]


def test_unwanted_labels_are_dropped_before_suppression() -> None:
    same_place = graphs.yolov5_rows((20, 20, 20, 20, 1, 0.9, 0), (20, 20, 20, 20, 1, 0, 0.8))
    options = DetectOptions(class_agnostic=True, labels=("dog",))
    answer = detector().postprocess([same_place], PLACE, options)
    assert [d.label for d in answer.detections] == ["dog"]


def test_thresholds_default_to_those_of_the_document() -> None:
    strict = DetectionDefaults(score_threshold=0.85, iou_threshold=0.45, max_detections=300)
    answer = detector(detection_defaults=strict).postprocess([graphs.ROWS], PLACE, DetectOptions())
    assert found(answer) == [CAT]
    few = DetectionDefaults(score_threshold=0.1, iou_threshold=0.9, max_detections=2)
    answer = detector(detection_defaults=few).postprocess([graphs.ROWS], PLACE, DetectOptions())
    assert found(answer) == [CAT, OVERLAPPED_CAT]


def test_each_row_has_its_best_class_only() -> None:
    outputs = [graphs.yolov5_rows((20, 20, 20, 20, 1, 0.6, 0.7))]
    assert [
        d.label for d in detector().postprocess(outputs, PLACE, DetectOptions()).detections
    ] == ["dog"]


def test_of_more_than_30000_candidates_the_best_are_considered() -> None:
    rows = np.zeros((1, 31_000, 7), np.float32)
    rows[0, :, 0] = np.arange(31_000) % 64
    rows[0, :, 1:4] = 8
    rows[0, :, 4] = 1
    rows[0, :, 5] = np.linspace(0.3, 0.9, 31_000)
    answer = detector().postprocess(
        [rows], PLACE, DetectOptions(iou_threshold=0.0, max_detections=1000)
    )
    assert answer.detections[0].score == pytest.approx(0.9)


def decode_plainly(maps: list[np.ndarray[Any, Any]], classes: int) -> np.ndarray[Any, Any]:
    """Return rows (cx, cy, w, h, objectness, classes …) of every cell, as Detect.forward does."""
    rows = []
    for head, anchors, stride in zip(maps, ANCHORS, STRIDES, strict=True):
        _, _, height, width = head.shape
        for a, (anchor_width, anchor_height) in enumerate(anchors):
            for y in range(height):
                for x in range(width):
                    start = a * (5 + classes)
                    raw = head[0, start : start + 5 + classes, y, x].astype(np.float64)
                    s = 1 / (1 + np.exp(-raw))
                    box = [
                        (s[0] * 2 - 0.5 + x) * stride,
                        (s[1] * 2 - 0.5 + y) * stride,
                        (s[2] * 2) ** 2 * anchor_width,
                        (s[3] * 2) ** 2 * anchor_height,
                    ]
                    rows.append([*box, *s[4:]])
    return np.array(rows)


@given(
    st.integers(0, 1 << 30), st.sampled_from([-1.0, 0.0, 0.001, 0.25, 0.6]), st.sampled_from([1, 3])
)
def test_heads_decode_as_yolov5_does(seed: int, threshold: float, classes: int) -> None:
    random = np.random.default_rng(seed)
    maps = [random.normal(0, 2, (1, 2 * (5 + classes), 64 // s, 64 // s)) for s in STRIDES]
    rows = heads(classes).candidates(graphs.split_heads(maps), threshold)
    plain = decode_plainly(maps, classes)
    scores = plain[:, 5:] * plain[:, 4:5]
    above = scores.max(axis=1) > threshold
    # A score this close to the threshold may fall on either side in float32.
    if np.abs(scores.max(axis=1) - threshold).min() < 1e-5:
        return
    plain, scores = plain[above], scores[above]
    corners = np.concatenate(
        (plain[:, :2] - plain[:, 2:4] / 2, plain[:, :2] + plain[:, 2:4] / 2), axis=1
    )
    order, expected_order = np.lexsort(rows.boxes.T), np.lexsort(corners.T)
    np.testing.assert_allclose(rows.boxes[order], corners[expected_order], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(
        rows.scores[order], scores.max(axis=1)[expected_order], rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(rows.class_ids[order], scores.argmax(axis=1)[expected_order])


def test_extreme_logits_cause_no_warnings() -> None:
    maps = graphs.split_heads([np.full((1, 14, 64 // s, 64 // s), -1e4) for s in STRIDES])
    assert not heads().postprocess(maps, PLACE, DetectOptions(score_threshold=0.0)).detections
    maps = graphs.split_heads([np.full((1, 14, 64 // s, 64 // s), 1e4) for s in STRIDES])
    answer = heads().postprocess(maps, PLACE, DetectOptions())
    assert {d.score for d in answer.detections} == {1.0}
