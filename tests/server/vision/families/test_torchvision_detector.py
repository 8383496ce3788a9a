"""torchvision's detectors, against boxes worked out by hand."""

from typing import Any

import cv2
import numpy as np
import pytest

from visavis_server.card import (
    DetectionDefaults,
    FasterRcnnRows,
    LabelSet,
    ModelDocument,
    ModelInput,
    RetinanetHeads,
    ShorterSideWithin,
)
from visavis_server.errors import ModelFailed
from visavis_server.vision.families import detector_of, preprocess_one
from visavis_server.vision.families.retinanet import RetinanetDecoder
from visavis_server.vision.families.torchvision_detector import Scaled, TorchvisionDetector
from visavis_server.vision.results import DetectOptions

from ... import graphs
from ...pictures import noise

LABELS = ("background", "cat", "dog")
# A 64 x 64 picture that is not resized: boxes come back as they are.
SAME = Scaled(64, 64, 64, 64)
RETINANET = RetinanetHeads(
    logits=("l3", "l4"), deltas=("d3", "d4"), anchors=(((16.0, 16.0),), ((32.0, 16.0),))
)
FASTER_RCNN = FasterRcnnRows(proposals="proposals", logits="logits", deltas="deltas")


def document(output: Any, size: int = 64, longest: int = 128) -> ModelDocument:
    return graphs.detector_document(
        label_set=LabelSet(name="three", labels=LABELS),
        input=ModelInput(
            tensor="images",
            width=longest,
            height=longest,
            resize=ShorterSideWithin(size=size, longest=longest),
            mean=(0.5, 0.25, 0.0),
            std=(0.5, 0.5, 2.0),
        ),
        output=output,
        detection_defaults=DetectionDefaults(
            score_threshold=0.05, iou_threshold=0.5, max_detections=100
        ),
    )


def detector(output: Any = RETINANET, size: int = 64, longest: int = 128) -> TorchvisionDetector:
    family = detector_of(document(output, size, longest))
    assert isinstance(family, TorchvisionDetector)
    return family


def heads(*scored: tuple[int, int, int, int, float]) -> list[np.ndarray[Any, Any]]:
    """Return maps of a 64 x 64 input with some scores: (level, row, column, class, score)."""
    logits = [np.full((1, 3, side, side), -20, np.float32) for side in (8, 4)]
    deltas = [np.zeros((1, 4, side, side), np.float32) for side in (8, 4)]
    for level, row, column, class_id, score in scored:
        logits[level][0, class_id, row, column] = np.log(score / (1 - score))
    return [*logits, *deltas]


def found(answer: Any) -> list[tuple[str, float, tuple[float, ...]]]:
    return [
        (d.label, round(d.score, 3), (d.box.x_min, d.box.y_min, d.box.x_max, d.box.y_max))
        for d in answer.detections
    ]


@pytest.mark.parametrize(
    ("picture", "shape"),
    [
        # torchvision's own numbers for 800 and 1333.
        ((640, 480), (3, 800, 1066)),
        ((480, 640), (3, 1066, 800)),
        ((1333, 800), (3, 800, 1333)),
        ((4096, 1100), (3, 357, 1333)),
        ((13, 9), (3, 800, 1155)),
        # torchvision refuses a picture without a pixel left; the server keeps one.
        ((1, 3000), (3, 1333, 1)),
    ],
)
def test_the_input_is_as_large_as_torchvision_makes_it(
    picture: tuple[int, int], shape: tuple[int, ...]
) -> None:
    family, (width, height) = detector(size=800, longest=1333), picture
    assert family.shape_for(np.empty((height, width, 3), np.uint8)) == shape
    assert max(shape[1:]) <= family.input_shape[1]


@pytest.mark.parametrize(("width", "height"), [(50, 40), (64, 64), (333, 251), (900, 41)])
def test_a_picture_is_interpolated_in_floating_point_and_normalised(
    width: int, height: int
) -> None:
    image = noise(height, width, 3)
    tensor, sizes = preprocess_one(detector(), image)
    shown = (sizes.input_width, sizes.input_height)
    expected = cv2.resize(image.astype(np.float32) / 255, shown, interpolation=cv2.INTER_LINEAR)
    expected = (expected - (0.5, 0.25, 0.0)) / (0.5, 0.5, 2.0)
    assert sizes == Scaled(width, height, *shown)
    np.testing.assert_allclose(tensor[0].transpose(1, 2, 0), expected, atol=2e-4)


def test_a_picture_of_the_right_size_is_only_normalised() -> None:
    image = noise(64, 80, 3)
    tensor, _ = preprocess_one(detector(), image)
    expected = (image.astype(np.float64) / 255 - (0.5, 0.25, 0.0)) / (0.5, 0.5, 2.0)
    np.testing.assert_allclose(tensor[0].transpose(1, 2, 0), expected, atol=1e-6)


def test_anchors_lie_at_their_cells_corners_and_are_cut_off_at_the_picture() -> None:
    outputs = heads((0, 2, 3, 1, 0.9), (1, 0, 0, 2, 0.6))
    assert found(detector().postprocess(outputs, SAME, DetectOptions())) == [
        ("cat", 0.9, (16, 8, 32, 24)),  # 16 x 16 around (24, 16)
        ("dog", 0.6, (0, 0, 16, 8)),  # 32 x 16 around (0, 0)
    ]


def test_deltas_move_by_the_anchors_sides_and_grow_at_most_62_fold() -> None:
    outputs = heads((0, 4, 4, 1, 0.9))
    outputs[2][0, :, 4, 4] = 0.5, -0.25, np.log(2), -np.log(4)
    (box,) = detector().postprocess(outputs, SAME, DetectOptions()).detections
    corners = (box.box.x_min, box.box.y_min, box.box.x_max, box.box.y_max)
    assert corners == pytest.approx((24, 26, 56, 30))  # 32 x 4 around (40, 28)
    outputs[2][0, :, 4, 4] = 0, 0, 100, 0
    wide = Scaled(5000, 64, 5000, 64)
    (box,) = detector().postprocess(outputs, wide, DetectOptions()).detections
    assert box.box.x_max == pytest.approx(32 + 16 * 62.5 / 2)


def test_cells_lie_closer_where_the_grid_does_not_fit() -> None:
    """torchvision divides 96 pixels by 5 rows of the second level and drops the remainder."""
    outputs = [np.full((1, 3, h, w), -20, np.float32) for h, w in ((12, 12), (5, 5))]
    outputs += [np.zeros((1, 4, h, w), np.float32) for h, w in ((12, 12), (5, 5))]
    outputs[1][0, 1, 2, 3] = 20
    (box,) = detector().postprocess(outputs, Scaled(96, 96, 96, 96), DetectOptions()).detections
    assert (box.box.x_min, box.box.y_min) == (3 * 19 - 16, 2 * 19 - 8)


def test_boxes_are_given_in_pixels_of_the_picture() -> None:
    outputs = heads((0, 2, 3, 1, 0.9))
    larger = Scaled(128, 640, 64, 64)
    assert found(detector().postprocess(outputs, larger, DetectOptions())) == [
        ("cat", 0.9, (32, 80, 64, 240))
    ]


CAT, DOG = ("cat", 0.9, (24, 24, 40, 40)), ("dog", 0.8, (24, 24, 40, 40))
BESIDE = ("cat", 0.5, (24, 32, 40, 48))  # IoU of 1/3 with the other cat
THREE = ((0, 4, 4, 1, 0.9), (0, 4, 4, 2, 0.8), (0, 5, 4, 1, 0.5), (0, 7, 7, 1, 0.04))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (DetectOptions(), [CAT, DOG, BESIDE]),
        (DetectOptions(score_threshold=0.6), [CAT, DOG]),
        (DetectOptions(score_threshold=0.03), [CAT, DOG, BESIDE, ("cat", 0.04, (48, 48, 64, 64))]),
        (DetectOptions(iou_threshold=0.3), [CAT, DOG]),
        (DetectOptions(class_agnostic=True), [CAT, BESIDE]),
        (DetectOptions(labels=("dog",)), [DOG]),
        (DetectOptions(max_detections=1), [CAT]),
    ],
)
def test_options_select_the_detections(options: DetectOptions, expected: list[Any]) -> None:
    assert found(detector().postprocess(heads(*THREE), SAME, options)) == expected


@pytest.mark.parametrize("index", [0, 2])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_number_that_is_none_fails_the_answer(index: int, number: float) -> None:
    outputs = heads((0, 2, 3, 1, 0.9))
    outputs[index][0, 1, 2, 3] = number
    with pytest.raises(ModelFailed, match="NaN or infinity"):
        detector().postprocess(outputs, SAME, DetectOptions())


def rows(*scored: tuple[tuple[float, ...], tuple[float, ...]]) -> list[np.ndarray[Any, Any]]:
    """Return Faster R-CNN's outputs for (proposal, probabilities), padded with background."""
    padding = ((0.0, 0.0, 1.0, 1.0), (1.0, 0.0, 0.0))
    boxes, scores = zip(*scored, padding, padding, strict=True)
    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(np.array([scores], np.float32)), np.float32(-1e4))
    return [np.array([boxes], np.float32), logits, np.zeros((1, len(boxes), 12), np.float32)]


BOX = (8.0, 8.0, 40.0, 24.0)


def test_every_class_of_a_proposal_but_the_background_is_a_candidate() -> None:
    outputs = rows((BOX, (0.1, 0.6, 0.3)), ((40, 40, 60, 60), (0.98, 0.01, 0.01)))
    assert found(detector(FASTER_RCNN).postprocess(outputs, SAME, DetectOptions())) == [
        ("cat", 0.6, BOX),
        ("dog", 0.3, BOX),
    ]


def test_deltas_of_a_class_are_divided_by_torchvisions_weights() -> None:
    outputs = rows((BOX, (0.1, 0.9, 0.0)))
    outputs[2][0, 0, 4:8] = 5, -5, 5 * np.log(0.5), 0  # class 1
    (box,) = detector(FASTER_RCNN).postprocess(outputs, SAME, DetectOptions()).detections
    corners = (box.box.x_min, box.box.y_min, box.box.x_max, box.box.y_max)
    assert corners == pytest.approx((32, 0, 48, 16))  # 16 x 16 around (40, 8)


def test_a_box_without_area_is_dropped() -> None:
    outputs = rows(((64.0, 8.0, 90.0, 24.0), (0.1, 0.9, 0.0)))
    assert found(detector(FASTER_RCNN).postprocess(outputs, SAME, DetectOptions())) == []


def test_padding_is_no_proposal_at_any_threshold() -> None:
    family, outputs = detector(FASTER_RCNN), rows((BOX, (0.1, 0.9, 0.0)))
    assert family.proposals(outputs).tolist() == [list(BOX)]
    assert len(family.rows(outputs, SAME).scores) == 1
    low = DetectOptions(score_threshold=0.0)
    assert [d.label for d in family.postprocess(outputs, SAME, low).detections] == ["cat"]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_proposal_that_is_no_number_fails_the_answer(index: int) -> None:
    outputs = rows((BOX, (0.1, 0.9, 0.0)))
    outputs[index][0, 0] = np.nan
    with pytest.raises(ModelFailed, match="NaN or infinity"):
        detector(FASTER_RCNN).postprocess(outputs, SAME, DetectOptions())


@pytest.mark.parametrize(
    ("output", "outputs", "places"),
    [
        (RETINANET, heads((0, 2, 3, 1, 0.9), (1, 0, 0, 2, 0.6)), 2000),
        (FASTER_RCNN, rows(((16, 8, 32, 24), (0.1, 0.9, 0.0))), 5000),
    ],
)
def test_the_tensor_holds_the_best_candidates_one_class_each(
    output: Any, outputs: list[np.ndarray[Any, Any]], places: int
) -> None:
    family = detector(output)
    tensor = family.as_tensor(outputs)
    assert tensor.shape == family.tensor_shape == (7, places)
    assert tensor[:, 0].tolist() == pytest.approx([24, 16, 16, 16, 0, 0.9, 0])
    assert (np.count_nonzero(tensor[4:], axis=0) <= 1).all()


def test_each_level_gives_its_thousand_best_candidates() -> None:
    """As many as torchvision's topk_candidates; the rest is not considered, whatever it scores."""
    random = np.random.default_rng(1)
    logits = [random.normal(size=(1, 3, side, side)).astype(np.float32) for side in (64, 32)]
    outputs = [*logits, *(np.zeros((1, 4, side, side), np.float32) for side in (64, 32))]
    decoder = RetinanetDecoder(RETINANET, classes=3)
    found = decoder.candidates(outputs, (512, 512), 0.05)
    assert len(found.scores) == 2000
    for logit, scores in zip(logits, np.split(found.scores, 2), strict=True):
        best = np.sort(logit.ravel().astype(np.float64))[::-1][:1000]
        np.testing.assert_allclose(scores, 1 / (1 + np.exp(-best)), atol=1e-6)
