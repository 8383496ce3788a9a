"""Files that ultralytics exported: served from their own metadata, or refused by what is odd."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from visavis_server.card import (
    CandidateRows,
    CenterSquare,
    Letterbox,
    ModelDocument,
    ShorterSide,
    Stretch,
    Task,
)
from visavis_server.errors import ModelFileError
from visavis_server.models.loader import Loader
from visavis_server.models.model_files import ModelFile
from visavis_server.models.onnx_file import read_onnx_file
from visavis_server.models.planning import Planner
from visavis_server.models.served_model import ServedModel
from visavis_server.models.ultralytics_file import document_of
from visavis_server.runtime.providers import CPU, SessionConfig
from visavis_server.runtime.scheduling.scheduler import Scheduler
from visavis_server.runtime.session import Session
from visavis_server.vision.families import preprocess_one
from visavis_server.vision.results import DetectOptions

from .. import graphs

# What ultralytics 8.4 writes, with two classes.
DETECT = {
    "description": "Ultralytics YOLOv5nu model trained on coco.yaml",
    "author": "Ultralytics",
    "date": "2026-11-23T12:00:00",
    "version": "8.4.190",
    "license": "AGPL-3.0 License (https://ultralytics.com/license)",
    "docs": "https://docs.ultralytics.com",
    "stride": "32",
    "task": "detect",
    "batch": "1",
    "imgsz": "[64, 96]",
    "names": "{0: 'cat', 1: 'dog'}",
    "args": "{'batch': 1, 'half': False, 'nms': False}",
}
CLASSIFY = {**DETECT, "task": "classify", "imgsz": "[8, 8]", "names": "{0: 'a', 1: 'b', 2: 'c'}"}
# ultralytics/yolov5 wrote these two and nothing else.
YOLOV5 = {"stride": "32", "names": "{0: 'cat', 1: 'dog'}"}

COLUMNS = np.zeros((1, 6, 84))
ROWS = np.zeros((1, 84, 7))
END_TO_END = np.zeros((1, 300, 6))


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """Return a function that reads a graph with metadata as a document."""

    def read(graph: bytes, metadata: dict[str, str]) -> ModelDocument:
        path = tmp_path / "model.onnx"
        path.write_bytes(graphs.with_metadata(graph, metadata))
        session = Session(path, CPU, SessionConfig(tmp_path))
        return document_of("model", read_onnx_file(path).metadata, session, "here")

    return read


def load(folder: Path, name: str, graph: bytes, metadata: dict[str, str]) -> ServedModel:
    path = graphs.put(folder, name, 1, graphs.with_metadata(graph, metadata))
    return Loader(Planner(CPU, 1), Scheduler(1, 1), folder).load(ModelFile(name, 1, path))


def without(metadata: dict[str, str], *keys: str) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key not in keys}


def test_a_detector_is_read_with_labels_size_and_thresholds(read: Any) -> None:
    document = read(graphs.constant(COLUMNS, height=64, width=96), DETECT)
    assert document.task is Task.OBJECT_DETECTION
    assert document.label_set.labels == ("cat", "dog")
    assert (document.input.width, document.input.height) == (96, 64)
    assert document.input.resize == Letterbox(unpad="rounded")
    assert document.output == CandidateRows(layout="ultralytics_rows", tensor="output0")
    assert document.detection_defaults.score_threshold == 0.25
    assert document.detection_defaults.iou_threshold == 0.7
    assert document.facts.architecture == "YOLOv5nu"
    assert document.provenance.exporter == "ultralytics 8.4.190"
    assert document.digest is None and document.golden_sample is None


def test_a_detector_without_duplicates_is_read_as_end_to_end(read: Any) -> None:
    document = read(graphs.constant(END_TO_END), {**DETECT, "end2end": "True"})
    assert document.output == CandidateRows(layout="end_to_end", tensor="output0")


@pytest.mark.parametrize("arguments", ["'nms': True, 'max_det': 6", "'batch': 1", ""])
def test_as_many_detections_as_values_of_a_candidate_are_no_candidates(
    read: Any, arguments: str
) -> None:
    # nms=True with max_det=6 and two classes: [1, 6, 6].
    metadata = {**DETECT, "args": f"{{'imgsz': [64, 96], {arguments}}}"}
    document = read(graphs.constant(np.zeros((1, 6, 6))), metadata)
    assert document.output.layout == "end_to_end"


def test_six_candidates_of_an_export_without_nms_are_candidates(read: Any) -> None:
    assert read(graphs.constant(np.zeros((1, 6, 6))), DETECT).output.layout == "ultralytics_rows"


def test_a_detector_with_more_classes_than_names_is_refused_with_both_numbers(read: Any) -> None:
    why = r"names for 2 classes, but its graph has 80; .*--class-names FILE, or put a model\.json"
    with pytest.raises(ModelFileError, match=why):
        read(graphs.constant(np.zeros((1, 84, 189))), DETECT)
    with pytest.raises(ModelFileError, match=why):
        read(graphs.constant(np.zeros((1, 252, 85))), YOLOV5)


def test_an_rt_detr_is_refused_by_its_name(read: Any) -> None:
    # Two classes: 300 rows of 6, which are no corners.
    with pytest.raises(ModelFileError, match="it is an RT-DETR"):
        read(graphs.constant(END_TO_END), {**DETECT, "head": "RTDETRDecoder"})


def test_a_classifier_of_yolov5_itself_is_read_with_its_own_pre_processing(read: Any) -> None:
    document = read(graphs.constant(np.zeros((1, 2)), height=224, width=224), YOLOV5)
    assert document.task is Task.CLASSIFICATION
    assert document.output.layout == "logits"
    assert document.input.resize == CenterSquare()
    # ImageNet's, as ultralytics/yolov5, utils/augmentations.py has them.
    assert document.input.mean == (0.485, 0.456, 0.406)
    assert document.input.std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("output", "stride", "side"),
    [(ROWS, "32", 640), (ROWS, "64", 1280), (np.zeros((1, 2)), "32", 224)],
)
def test_a_file_of_yolov5_for_any_size_has_the_size_that_is_usual_and_says_so(
    read: Any, output: Any, stride: str, side: int
) -> None:
    graph = graphs.constant(output, height="height", width="width")
    document = read(graph, {**YOLOV5, "stride": stride})
    assert (document.input.width, document.input.height) == (side, side)
    assert (
        f"with a dynamic input size, served at the usual {side}x{side}"
        in document.provenance.weights_source
    )


def test_a_segmentation_model_of_yolov5_itself_is_refused_as_one(read: Any) -> None:
    graph = graphs.constant(np.zeros((1, 84, 7 + 32)), np.zeros((1, 32, 16, 16)))
    with pytest.raises(ModelFileError, match="is a segmentation model of ultralytics/yolov5"):
        read(graph, YOLOV5)


def test_a_file_for_a_fixed_batch_is_refused_as_one(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(graphs.constant(np.zeros((4, 6, 84))))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    graph = model.SerializeToString()
    with pytest.raises(
        ModelFileError, match=r"fixed batch size of 4; export it with a batch size of 1"
    ):
        load(tmp_path, "four", graph, {**DETECT, "batch": "4"})


@pytest.mark.parametrize("kind", ["uint8", "double", "bfloat16"])
def test_a_file_whose_input_is_no_float_is_refused_by_its_type(tmp_path: Path, kind: str) -> None:
    model = onnx.load_model_from_string(graphs.constant(COLUMNS))
    image = model.graph.input[0]
    for node in model.graph.node:
        node.input[:] = ["as_float" if name == image.name else name for name in node.input]
    cast = onnx.helper.make_node("Cast", [image.name], ["as_float"], to=TensorProto.FLOAT)
    model.graph.node.insert(0, cast)
    image.type.tensor_type.elem_type = TensorProto.DataType.Value(kind.upper())
    why = rf"input is tensor\({kind}\); it must be tensor\(float\).*without its pre-processing"
    with pytest.raises(ModelFileError, match=why):
        load(tmp_path, "odd", model.SerializeToString(), DETECT)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda model: setattr(model, "ir_version", 99), r"its IR version is 99, and .* up to \d+"),
        (lambda model: setattr(model.opset_import[0], "version", 99), r"its opset is 99, and"),
    ],
)
def test_a_file_that_is_too_new_is_refused_with_both_versions(
    tmp_path: Path, change: Any, why: str
) -> None:
    model = onnx.load_model_from_string(graphs.constant(COLUMNS))
    change(model)
    with pytest.raises(ModelFileError, match=rf"onnx: {why}.*; export it with an older opset"):
        load(tmp_path, "new", model.SerializeToString(), DETECT)


def test_a_file_for_one_image_without_a_batch_is_refused_by_its_shape(read: Any) -> None:
    model = onnx.load_model_from_string(graphs.constant(COLUMNS))
    del model.graph.input[0].type.tensor_type.shape.dim[0]
    why = r"its input is \[3, .*\]; it must be \[batch, 3, height, width\]"
    with pytest.raises(ModelFileError, match=why):
        read(model.SerializeToString(), DETECT)


def test_a_file_of_yolov5_itself_is_read_with_its_thresholds(read: Any) -> None:
    document = read(graphs.constant(ROWS), YOLOV5)
    assert document.facts.architecture == "YOLOv5"
    assert document.output == CandidateRows(layout="yolov5_rows", tensor="output0")
    assert document.input.resize == Letterbox(unpad="exact")
    assert document.detection_defaults.iou_threshold == 0.45


def test_a_classifier_is_read(read: Any) -> None:
    document = read(graphs.classifier(), CLASSIFY)
    assert document.task is Task.CLASSIFICATION
    assert document.output.layout == "probabilities"
    assert document.input.resize == ShorterSide(size=8)
    assert document.detection_defaults is None


def test_a_classifier_of_another_shape_stretches_the_picture(read: Any) -> None:
    document = read(graphs.constant(np.zeros((1, 3)), height=8, width=16), CLASSIFY)
    assert document.input.resize == Stretch()


def test_a_half_precision_file_says_so(read: Any) -> None:
    graph = graphs.constant(COLUMNS, elem_type=TensorProto.FLOAT16)
    document = read(graph, DETECT)
    assert (document.precision, document.input.dtype) == ("fp16", "float16")


@pytest.mark.parametrize(
    "names",
    ["['cat', 'dog']", "('cat', 'dog')", "{1: 'dog', 0: 'cat'}", "{'0': 'cat', '1': 'dog'}"],
)
def test_names_may_be_a_list_or_a_table_in_any_order(read: Any, names: str) -> None:
    document = read(graphs.constant(COLUMNS), {**DETECT, "names": names})
    assert document.label_set.labels == ("cat", "dog")


@pytest.mark.parametrize("task", ["segment", "pose", "obb", ""])
def test_other_tasks_are_refused_by_their_name(read: Any, task: str) -> None:
    with pytest.raises(ModelFileError, match=f"here: its task is '{task}'"):
        read(graphs.constant(COLUMNS), {**DETECT, "task": task})


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ("{}", "there are no class names"),
        ("[]", "there are no class names"),
        ("3", "must be a list or a dict"),
        ("{0: 'cat'", "names is invalid"),
        ("__import__('os').system('true')", "names is invalid"),
        ("[" * 10_000, "names is invalid"),
    ],
)
def test_odd_names_are_refused_and_never_run(read: Any, names: str, why: str) -> None:
    with pytest.raises(ModelFileError, match=f"here: its metadata .*{why}"):
        read(graphs.constant(COLUMNS), {**DETECT, "names": names})


def test_a_file_without_names_is_refused_with_advice(read: Any) -> None:
    with pytest.raises(ModelFileError, match=r"names is missing\); export .*model\.json"):
        read(graphs.constant(COLUMNS), without(DETECT, "names"))


def test_an_output_that_fits_no_layout_is_refused_with_its_shape(read: Any) -> None:
    with pytest.raises(ModelFileError, match=r"\[1, 84, 9\] matches no known layout .* 2 classes"):
        read(graphs.constant(np.zeros((1, 84, 9))), DETECT)


def test_the_graphs_input_size_overrides_the_metadata(read: Any) -> None:
    document = read(graphs.constant(COLUMNS, height=32, width=64), without(DETECT, "imgsz"))
    assert (document.input.width, document.input.height) == (64, 32)


def test_a_graph_for_any_size_gets_the_size_that_it_was_exported_with(read: Any) -> None:
    document = read(graphs.constant(COLUMNS, height="height", width="width"), DETECT)
    assert (document.input.width, document.input.height) == (96, 64)


@pytest.mark.parametrize(
    "changes",
    [
        {"names": "{0: 'cat', 'x': 'dog'}"},
        {"imgsz": "640"},
        {"imgsz": "[1, 2, 3]"},
        {"imgsz": "[0, 0]"},
        {"imgsz": "[-64, -64]"},
        {"imgsz": "['a', 'b']"},
    ],
    ids=str,
)
def test_odd_metadata_is_refused_by_the_path_of_the_file(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    graph = graphs.constant(COLUMNS, height="height", width="width")
    with pytest.raises(ModelFileError, match=r"odd/1/model\.onnx: "):
        load(tmp_path, "odd", graph, {**DETECT, **changes})


def test_a_classifier_with_fewer_names_than_outputs_is_refused(tmp_path: Path) -> None:
    why = r"model\.onnx: the graph has 3 classes, but its document has 1 labels"
    with pytest.raises(ModelFileError, match=why):
        load(tmp_path, "few", graphs.classifier(), {**CLASSIFY, "names": "['a']"})


def test_a_file_for_two_images_at_once_is_refused(tmp_path: Path) -> None:
    graph = graphs.constant(np.zeros((2, 6, 84)))
    with pytest.raises(
        ModelFileError, match=r"model\.onnx: the graph returns 2 outputs for one image"
    ):
        load(tmp_path, "two", graph, {**DETECT, "imgsz": "[64, 64]"})


def test_a_half_precision_file_is_loaded_and_answers(tmp_path: Path) -> None:
    rows = np.zeros((1, 300, 6))
    rows[0, 0] = [8, 16, 24, 32, 0.5, 1]
    graph = graphs.constant(rows, elem_type=TensorProto.FLOAT16)
    model = load(tmp_path, "dogs", graph, DETECT)
    assert not model.verification.digest and not model.verification.golden_sample
    tensor, geometry = preprocess_one(model.engine.family, np.zeros((64, 64, 3), np.uint8))
    outputs = model.engine.sessions.first.run(tensor)
    assert outputs[0].dtype == np.float16
    (dog,) = model.engine.family.postprocess(outputs, geometry, DetectOptions()).detections
    assert (dog.label, dog.score) == ("dog", 0.5)
    assert (dog.box.x_min, dog.box.y_max) == (8, 32)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"names": "[" * 100_000}, "names is invalid: expected a plain value at character 0"),
        ({"names": "-" * 1_000_000 + "1"}, "names is invalid"),
        ({"names": "__import__('os').system('touch PWNED')"}, "names is invalid"),
        ({"names": "{0: 'cat', 1: open('x')}"}, "expected a plain value at character"),
        ({"names": "{0: 'cat', 1: ['dog']}"}, "expected a plain value at character"),
        ({"names": "{0: 'cat', 2: 'dog'}"}, "from 0 to 2, but 1 is missing"),
        ({"names": f"['cat', '{'x' * 1000}']"}, "class 1 has 1000 characters"),
        ({"names": str(["x"] * 40_000)}, "there are 40000 class names"),
        ({"names": "['cat', '\\x1b[31m']"}, "control characters"),
        ({"task": "detect\x1b[31m"}, r"its task is 'detect\[31m'"),
    ],
)
def test_metadata_is_read_as_plain_values_and_nothing_else(
    change: dict[str, str], complaint: str, read: Any
) -> None:
    with pytest.raises(ModelFileError, match=complaint):
        read(graphs.constant(COLUMNS), {**DETECT, **change})


@pytest.mark.parametrize("imgsz", ["[1000000, 1000000]", "[0, 64]", "64", "['64', '64']", "[64]"])
def test_an_image_size_beyond_all_bounds_is_refused(read: Any, imgsz: str) -> None:
    graph = graphs.constant(COLUMNS, height="h", width="w")
    with pytest.raises(ModelFileError, match=r"its input size is|imgsz"):
        read(graph, {**DETECT, "imgsz": imgsz})


def test_a_files_author_is_cut_and_printable(read: Any) -> None:
    facts = read(graphs.constant(COLUMNS), {**DETECT, "author": "\x1b" + "a" * 9_999}).facts
    assert facts.organization == "a" * 199
