"""Heat maps: their defining property, their place in the picture, and which outputs have none."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.numpy_helper import to_array
from onnx.reference import ReferenceEvaluator

from visavis_server.card import (
    CandidateRows,
    CenterSquare,
    LabelSet,
    ModelInput,
    ShorterSide,
    Stretch,
)
from visavis_server.errors import InvalidRequest, ModelFailed
from visavis_server.vision.boxes import letterbox
from visavis_server.vision.families import preprocess_one
from visavis_server.vision.families.classifier import Classifier
from visavis_server.vision.families.detector import Detector
from visavis_server.vision.heat_maps import Area, Explain, HeatMap
from visavis_server.vision.results import ClassifyOptions, Detected, DetectOptions

from ... import graphs
from ...graphs import STRIDES
from ...pictures import noise

GRAPH = onnx.load_from_string(graphs.explained_classifier())
CONSTANTS = {each.name: to_array(each) for each in GRAPH.graph.initializer}
BEST = ClassifyOptions(explain=Explain())


def classified(
    image: np.ndarray[Any, Any], options: ClassifyOptions = BEST, **changes: Any
) -> tuple[HeatMap, np.ndarray[Any, Any]]:
    """Return the heat map of a picture, and the logits."""
    family = Classifier(graphs.explained_document(**changes))
    tensor, geometry = preprocess_one(family, image)
    outputs = ReferenceEvaluator(GRAPH).run(["logits", "features"], {"images": tensor})
    answer = family.postprocess([outputs[0]], geometry, options)
    explained = [*outputs, CONSTANTS["weights"]]
    return family.explain(explained, geometry, answer, options), outputs[0][0]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("class_id", range(3))
def test_the_mean_of_the_map_and_the_bias_are_the_logit(seed: int, class_id: int) -> None:
    options = ClassifyOptions(explain=Explain(graphs.COLORS[class_id]))
    heat_map, logits = classified(noise(30, 50, 3, seed=seed), options)
    assert (heat_map.class_id, heat_map.label) == (class_id, graphs.COLORS[class_id])
    assert heat_map.values.shape == (2, 2)
    assert heat_map.values.std() > 0.001
    logit = heat_map.values.mean() + CONSTANTS["bias"][class_id]
    assert logit == pytest.approx(logits[class_id], abs=1e-5)


def test_each_value_comes_from_its_cell() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[4:, :4] = (255, 0, 0)
    changes = {"input": ModelInput(tensor="images", width=8, height=8, resize=Stretch())}
    heat_map, _ = classified(image, ClassifyOptions(explain=Explain("blue")), **changes)
    red = CONSTANTS["weights"][2] @ CONSTANTS["kernel"].sum(axis=(2, 3))[:, 0]
    np.testing.assert_allclose(heat_map.values, [[0, 0], [red, 0]], atol=1e-5)


def test_without_a_label_the_best_one_is_explained() -> None:
    heat_map, logits = classified(noise(20, 20, 3))
    assert heat_map.class_id == logits.argmax()


def test_of_two_classes_with_one_name_the_better_one_is_explained() -> None:
    twins = LabelSet(name="birds", labels=("crane", "crow", "crane"))
    image = noise(20, 20, 3)
    heat_map, logits = classified(image, ClassifyOptions(explain=Explain("crane")), label_set=twins)
    assert heat_map.class_id == (0 if logits[0] > logits[2] else 2)


def test_integer_weights_are_multiplied_by_their_steps() -> None:
    family = Classifier(graphs.explained_document())
    integers = np.array([[1, -2], [3, 4], [0, 1]], np.int8)
    steps = np.array([0.5, 0.25, 2.0], np.float32)
    features = np.array([[[[1.0, 2.0]], [[10.0, 20.0]]]], np.float32)
    logits = np.array([[0.0, 9.0, 1.0]], np.float32)
    area = Area(0, 0, 8, 8)
    answer = family.postprocess([logits], area, BEST)
    heat_map = family.explain([logits, features, integers, steps], area, answer, BEST)
    np.testing.assert_allclose(heat_map.values, [[0.25 * (3 + 40), 0.25 * (6 + 80)]])


def test_a_map_that_is_not_finite_fails() -> None:
    family = Classifier(graphs.explained_document())
    logits, features = np.zeros((1, 3), np.float32), np.full((1, 4, 2, 2), np.nan, np.float32)
    answer = family.postprocess([logits], Area(0, 0, 8, 8), BEST)
    with pytest.raises(ModelFailed, match="NaN or infinity"):
        family.explain([logits, features, CONSTANTS["weights"]], Area(0, 0, 8, 8), answer, BEST)


@pytest.mark.parametrize(
    ("width", "height", "resize", "area"),
    [
        # Resized to 256 x 512, of which rows 144 to 368 are kept: 3 pixels of the picture each.
        (768, 1536, ShorterSide(size=256), (48, 432, 720, 1104)),
        (1536, 768, ShorterSide(size=256), (432, 48, 1104, 720)),
        (512, 512, ShorterSide(size=224), (0, 0, 512, 512)),
        (100, 61, CenterSquare(), (19, 0, 80, 61)),
        (61, 100, CenterSquare(), (0, 19, 61, 80)),
        (61, 100, Stretch(), (0, 0, 61, 100)),
    ],
)
def test_a_classifiers_area_is_what_it_sees(
    width: int, height: int, resize: Any, area: tuple[float, ...]
) -> None:
    model_input = ModelInput(tensor="images", width=224, height=224, resize=resize)
    family = Classifier(graphs.explained_document(input=model_input))
    _, seen = preprocess_one(family, np.zeros((height, width, 3), np.uint8))
    assert (seen.x_min, seen.y_min, seen.x_max, seen.y_max) == pytest.approx(area)


@given(width=st.integers(1, 3000), height=st.integers(1, 3000))
def test_a_classifiers_area_lies_in_the_picture_and_has_the_crops_shape(
    width: int, height: int
) -> None:
    model_input = ModelInput(tensor="images", width=224, height=224, resize=ShorterSide(size=256))
    seen = Classifier(graphs.explained_document(input=model_input))._seen(width, height)
    assert 0 <= seen.x_min < seen.x_max <= width
    assert 0 <= seen.y_min < seen.y_max <= height
    short = min(width, height)
    for side, whole in ((seen.x_max - seen.x_min, width), (seen.y_max - seen.y_min, height)):
        if whole == short:
            assert side == pytest.approx(short * 224 / 256)


def test_a_file_without_features_is_refused_with_what_to_do() -> None:
    with pytest.raises(InvalidRequest, match=r"colors has no heat maps: .*export the model again"):
        Classifier(graphs.classifier_document()).require_explainable(Explain())
    with pytest.raises(InvalidRequest, match="no label 'bus'"):
        Classifier(graphs.explained_document()).require_explainable(Explain("bus"))


PLACE = letterbox(64, 64, 64, 64)
CLASSES = 3


def heads_of(maps: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    return graphs.split_heads(maps)


def heads() -> Detector:
    labels = LabelSet(name="things", labels=("a", "b", "c"))
    return Detector(graphs.detector_document(label_set=labels, output=graphs.yolov5_heads()))


def raw_maps(seed: int = 0) -> list[np.ndarray[Any, Any]]:
    """Return random logits of two scales with two anchors: [1, 2 * (5 + classes), h, w]."""
    random = np.random.default_rng(seed)
    shapes = [(1, 2 * (5 + CLASSES), 64 // stride, 64 // stride) for stride in STRIDES]
    return [random.normal(size=shape) * 2 for shape in shapes]


def expected_map(maps: list[np.ndarray[Any, Any]], class_id: int) -> np.ndarray[Any, Any]:
    """Return the best objectness times class of all anchors and scales, cell by cell."""

    def sigmoid(x: float) -> float:
        return float(1 / (1 + np.exp(-x)))

    result = np.zeros((8, 8))
    for one, stride in zip(maps, STRIDES, strict=True):
        for y, x in np.ndindex(8, 8):
            cell = one[0, :, y * 8 // stride, x * 8 // stride].reshape(2, -1)
            scores = [sigmoid(anchor[4]) * sigmoid(anchor[5 + class_id]) for anchor in cell]
            result[y, x] = max(result[y, x], *scores)
    return result


@pytest.mark.parametrize("class_id", range(CLASSES))
def test_a_detectors_map_is_objectness_times_class_of_all_anchors_and_scales(
    class_id: int,
) -> None:
    family, maps = heads(), raw_maps()
    options = DetectOptions(explain=Explain("abc"[class_id]))
    heat_map = family.explain(heads_of(maps), PLACE, Detected(()), options)
    np.testing.assert_allclose(heat_map.values, expected_map(maps, class_id), atol=1e-5)
    assert heat_map.area == Area(0, 0, 64, 64)


def test_without_a_label_the_best_detection_is_explained_and_reached() -> None:
    family, outputs = heads(), heads_of(raw_maps(2))
    options = DetectOptions(explain=Explain(), score_threshold=0.1)
    answer = family.postprocess(outputs, PLACE, options)
    heat_map = family.explain(outputs, PLACE, answer, options)
    assert heat_map.label == answer.detections[0].label
    assert heat_map.values.max() == pytest.approx(answer.detections[0].score, abs=1e-5)


@pytest.mark.parametrize("labels", [(), ("b",), ("b", "c")])
def test_if_nothing_is_found_the_best_candidate_is_explained(labels: tuple[str, ...]) -> None:
    family, maps = heads(), raw_maps(3)
    maps = [one - 9 for one in maps]  # scores of at most 1e-4
    options = DetectOptions(explain=Explain(), labels=labels)
    outputs = heads_of(maps)
    answer = family.postprocess(outputs, PLACE, options)
    assert not answer.detections
    heat_map = family.explain(outputs, PLACE, answer, options)
    best = {label: expected_map(maps, "abc".index(label)).max() for label in labels or "abc"}
    assert best[heat_map.label] == pytest.approx(max(best.values()))


@pytest.mark.parametrize(
    ("width", "height", "shape", "area"),
    [
        (128, 64, (4, 8), (0, 0, 128, 64)),  # 32 rows of padding: 16, of 2 cells, on each side
        (64, 128, (8, 4), (0, 0, 64, 128)),
        # 20 pixels of padding: the third line of cells shows 4 of them, 5 pixels of the picture.
        (80, 30, (4, 8), (0, -5, 80, 35)),
    ],
)
def test_a_detectors_map_covers_the_picture_and_no_whole_cell_of_padding(
    width: int, height: int, shape: tuple[int, int], area: tuple[float, ...]
) -> None:
    place = letterbox(width, height, 64, 64)
    options = DetectOptions(explain=Explain("a"))
    maps = raw_maps()
    heat_map = heads().explain(heads_of(maps), place, Detected(()), options)
    assert heat_map.values.shape == shape
    seen = heat_map.area
    assert (seen.x_min, seen.y_min, seen.x_max, seen.y_max) == pytest.approx(area)
    top, left = (8 - shape[0]) // 2, (8 - shape[1]) // 2
    whole = expected_map(maps, 0)
    expected = whole[top : top + shape[0], left : left + shape[1]]
    np.testing.assert_allclose(heat_map.values, expected, atol=1e-5)


def rows_of(layout: str, seed: int = 4) -> tuple[Detector, np.ndarray[Any, Any]]:
    """Return a detector with candidate rows of a 64 x 64 input, and rows."""
    random = np.random.default_rng(seed)
    cells = 8 * 8 + 4 * 4 + 2 * 2
    shape = (1, 3 * cells, 7) if layout == "yolov5_rows" else (1, 6, cells)
    rows = random.random(shape).astype(np.float32)
    output = CandidateRows.model_validate({"layout": layout, "tensor": "output0"})
    return Detector(graphs.detector_document(output=output)), rows


@pytest.mark.parametrize("layout", ["yolov5_rows", "ultralytics_rows"])
def test_candidate_rows_are_mapped_cell_by_cell(layout: str) -> None:
    family, rows = rows_of(layout)
    options = DetectOptions(explain=Explain("dog"))
    heat_map = family.explain([rows], PLACE, Detected(()), options)
    expected = np.zeros((8, 8))
    start = 0
    for side in (8, 4, 2):
        for _ in range(3 if layout == "yolov5_rows" else 1):
            for y, x in np.ndindex(side, side):
                index = start + y * side + x
                if layout == "yolov5_rows":
                    score = rows[0, index, 4] * rows[0, index, 6]
                else:
                    score = rows[0, 5, index]
                ratio = 8 // side
                part = expected[y * ratio : (y + 1) * ratio, x * ratio : (x + 1) * ratio]
                np.maximum(part, score, out=part)
            start += side * side
    np.testing.assert_allclose(heat_map.values, expected, atol=1e-6)


def test_candidates_without_known_cells_are_refused_by_name() -> None:
    family, rows = rows_of("ultralytics_rows")
    options = DetectOptions(explain=Explain("dog"))
    with pytest.raises(InvalidRequest, match="boxes has no heat maps: its 83 candidates") as e:
        family.explain([rows[:, :, :-1]], PLACE, Detected(()), options)
    assert e.value.field == "explain"


def test_finished_boxes_are_refused_before_any_work() -> None:
    output = CandidateRows(layout="end_to_end", tensor="output0")
    with pytest.raises(InvalidRequest, match="boxes has no heat maps: its graph returns only"):
        Detector(graphs.detector_document(output=output)).require_explainable(Explain())
