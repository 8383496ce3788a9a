"""Tiny ONNX graphs whose answers can be worked out by hand, and the documents that go with them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from visavis_server.card import (
    METADATA_KEY,
    CandidateRows,
    ClassActivation,
    ClassScores,
    DetectionDefaults,
    Facts,
    LabelSet,
    Letterbox,
    ModelDocument,
    ModelInput,
    ModelOutput,
    Provenance,
    ShorterSide,
    Task,
    Yolov5Heads,
    graph_outputs,
)
from visavis_server.models import golden
from visavis_server.vision.families import family_of, preprocess_one

COLORS = ("red", "green", "blue")
SIZE = 64  # side of a detector's input
OPSET = 18


def classifier(gain: float = 10.0, size: int = 8, elem_type: int = TensorProto.FLOAT) -> bytes:
    """Logits are `gain` times the mean of red, green and blue."""
    weights = np.eye(3, dtype=helper.tensor_dtype_to_np_dtype(elem_type)) * gain
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
    ]
    return _model(nodes, {"weights": weights, "axes": np.array([2, 3])}, size, size, elem_type)


def explained_classifier(side: int = 8) -> bytes:
    """Features are the picture's quarters, 4 channels; logits are a linear layer of their means."""
    random = np.random.default_rng(1)
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["features"], strides=[side // 2] * 2),
        helper.make_node("ReduceMean", ["features", "axes"], ["means"], keepdims=0),
        helper.make_node("Gemm", ["means", "weights", "bias"], ["logits"], transB=1),
    ]
    kernel = np.einsum("ck,ij->ckij", random.normal(size=(4, 3)), np.ones((side // 2, side // 2)))
    constants = {
        "kernel": (kernel / (side // 2) ** 2).astype(np.float32),
        "axes": np.array([2, 3]),
        "weights": random.normal(size=(3, 4)).astype(np.float32),
        "bias": np.array([0.3, -0.2, 0.1], np.float32),
    }
    outputs: dict[str, list[int | str]] = {"logits": ["batch", 3], "features": ["batch", 4, 2, 2]}
    return _model(nodes, constants, side, side, outputs=outputs)


def explained_document(**changes: Any) -> ModelDocument:
    """Return a document for `explained_classifier`, with some fields changed."""
    activation = ClassActivation(features="features", weights="weights")
    output = ClassScores(layout="logits", tensor="logits", activation=activation)
    return classifier_document(**{"output": output, **changes})


def classifier_of(classes: int) -> bytes:
    """Logits of many classes: a mix of the means of red, green and blue for each."""
    weights = np.random.default_rng(0).normal(size=(3, classes)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
    ]
    constants = {"weights": weights, "axes": np.array([2, 3])}
    return _model(nodes, constants, 8, 8, outputs={"logits": ["batch", classes]})


def mixed_batch() -> bytes:
    """The classifier, but the logits of an image are added to those of every one after it."""
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0),
        helper.make_node("CumSum", ["means", "batch_axis"], ["logits"]),
    ]
    return _model(nodes, {"axes": np.array([2, 3]), "batch_axis": np.int64(0)}, 8, 8)


def nan_on_black() -> bytes:
    """The classifier, but its logits are no numbers where the picture is darker than a tenth."""
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0),
        helper.make_node("Sub", ["means", "tenth"], ["above"]),
        helper.make_node("Log", ["above"], ["logits"]),
    ]
    constants = {"axes": np.array([2, 3]), "tenth": np.float32(0.1)}
    return _model(nodes, constants, 8, 8)


def int8_at_its_limits() -> bytes:
    """Logits are 255 * 127 * 48 where the picture is 1: sums of the largest products there are."""
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "pixel", "none"], ["pixels"]),
        helper.make_node("DequantizeLinear", ["pixels", "one", "none"], ["x"]),
        helper.make_node("DequantizeLinear", ["weights", "one", "zero"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["sums"]),
        helper.make_node("QuantizeLinear", ["sums", "step", "none"], ["steps"]),
        helper.make_node("DequantizeLinear", ["steps", "step", "none"], ["y"]),
        helper.make_node("Reshape", ["y", "shape"], ["logits"]),
    ]
    constants = {
        "weights": np.full((3, 3, 4, 4), 127, np.int8),
        "pixel": np.float32(1 / 255),
        "one": np.float32(1),
        "step": np.float32(127 * 48),
        "none": np.uint8(0),
        "zero": np.int8(0),
        "shape": np.array([-1, 3]),
    }
    return _model(nodes, constants, 4, 4)


def constant(
    *outputs: np.ndarray[Any, Any],
    height: int | str = SIZE,
    width: int | str = SIZE,
    elem_type: int = TensorProto.FLOAT,
) -> bytes:
    """Gives the same outputs [1, …], named output0, output1 …, whatever the picture.

    height, width: of the input; a name stands for any size.
    """
    nodes = [helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0)]
    constants: dict[str, np.ndarray[Any, Any]] = {}
    for index, output in enumerate(outputs):
        dtype = helper.tensor_dtype_to_np_dtype(elem_type)
        constants[f"constant{index}"] = output.astype(dtype)
        constants[f"zero{index}"] = np.zeros((), dtype)
        nodes += [
            helper.make_node("Mul", ["mean", f"zero{index}"], [f"nothing{index}"]),
            helper.make_node("Add", [f"constant{index}", f"nothing{index}"], [f"output{index}"]),
        ]
    shapes: dict[str, list[int | str]] = {
        f"output{i}": list(output.shape) for i, output in enumerate(outputs)
    }
    return _model(nodes, constants, height, width, elem_type, shapes)


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, Any],
    height: int | str,
    width: int | str,
    elem_type: int = TensorProto.FLOAT,
    outputs: dict[str, list[int | str]] | None = None,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", elem_type, ["batch", 3, height, width])],
        [
            helper.make_tensor_value_info(name, elem_type, shape)
            for name, shape in (outputs or {"logits": ["batch", 3]}).items()
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def with_metadata(graph: bytes, metadata: dict[str, str]) -> bytes:
    """Return the graph with metadata, written by the onnx package."""
    model = onnx.load_from_string(graph)
    helper.set_model_props(model, metadata)
    return bytes(model.SerializeToString())


def classifier_document(**changes: Any) -> ModelDocument:
    """Return a document for `classifier`, with some fields changed."""
    fields: dict[str, Any] = {
        "name": "colors",
        "task": Task.CLASSIFICATION,
        "precision": "fp32",
        "label_set": LabelSet(name="three-colors", labels=COLORS),
        "input": ModelInput(tensor="images", width=8, height=8, resize=ShorterSide(size=10)),
        "output": ClassScores(layout="logits", tensor="logits"),
        "facts": Facts(architecture="Mean of colours", organization="the tests"),
        "provenance": Provenance(weights_source="by hand", exporter="the tests"),
    }
    return ModelDocument(**{**fields, **changes})


def detector_document(**changes: Any) -> ModelDocument:
    """Return a document for `constant` with one output, with some fields changed."""
    fields: dict[str, Any] = {
        "name": "boxes",
        "task": Task.OBJECT_DETECTION,
        "precision": "fp32",
        "label_set": LabelSet(name="two-things", labels=("cat", "dog")),
        "input": ModelInput(
            tensor="images", width=SIZE, height=SIZE, resize=Letterbox(unpad="exact")
        ),
        "output": CandidateRows(layout="yolov5_rows", tensor="output0"),
        "detection_defaults": DetectionDefaults(score_threshold=0.25, iou_threshold=0.45),
        "facts": Facts(architecture="Constant boxes", organization="the tests"),
        "provenance": Provenance(weights_source="by hand", exporter="the tests"),
    }
    return ModelDocument(**{**fields, **changes})


def candidates(layout: str) -> ModelOutput:
    """Return how one output of that layout is described."""
    return CandidateRows.model_validate({"layout": layout, "tensor": "output0"})


ANCHORS = (((10.0, 13.0), (16.0, 30.0)), ((30.0, 61.0), (62.0, 45.0)))
STRIDES = (8, 16)


def yolov5_heads(scales: int = 2) -> Yolov5Heads:
    """Return how `constant` describes the tensors of heads with two anchors at each scale."""
    names = [f"output{index}" for index in range(3 * scales)]
    return Yolov5Heads(
        objectness=names[:scales],
        features=names[scales : 2 * scales],
        weights=names[2 * scales :],
        anchors=ANCHORS[:scales],
        strides=STRIDES[:scales],
    )


def split_heads(maps: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """Return objectness, features and weights of heads that give these maps, two anchors each.

    maps: [1, 2 * (5 + classes), h, w]. Each is a rotation of its features, and a bias.
    """
    objectness, features, weights = [], [], []
    for index, one in enumerate(maps):
        channels = one.shape[1]
        random = np.random.default_rng(index)
        rotation, _ = np.linalg.qr(random.normal(size=(channels, channels)))
        bias = random.normal(size=channels)
        objectness.append(one[:, 4 :: channels // 2])
        features.append((one.transpose(0, 2, 3, 1) - bias) @ rotation)
        weights.append(np.column_stack((rotation, bias))[None])
    return [each.astype(np.float32) for each in (*objectness, *features, *weights)]


def yolov5_rows(*rows: Sequence[float]) -> np.ndarray[Any, Any]:
    """Return rows (cx, cy, w, h, objectness, cat, dog) as an output [1, n, 7]."""
    return np.array([rows], np.float32)


# In a 64 x 64 input: two cats that overlap by an IoU of 0.6, and a dog.
ROWS = yolov5_rows(
    (20, 20, 20, 20, 1.0, 0.9, 0.1),
    (25, 20, 20, 20, 1.0, 0.8, 0.1),
    (50, 50, 10, 20, 0.5, 0.1, 0.8),
)


def export(graph: bytes, document: ModelDocument) -> tuple[bytes, ModelDocument]:
    """Return a file with its document; digest and golden sample come from other code than ours."""
    tensor, _ = preprocess_one(family_of(document), golden.picture())
    names = graph_outputs(document)
    reference = ReferenceEvaluator(onnx.load_from_string(graph))
    outputs = reference.run(names, {"images": tensor})
    document = document.model_copy(
        update={
            "digest": hashlib.sha256(graph).hexdigest(),
            "golden_sample": golden.sample(names, list(outputs), document.precision),
        }
    )
    return with_metadata(graph, {METADATA_KEY: document.model_dump_json()}), document


def loop_without_end() -> bytes:
    """A classifier that first counts to a number that it never reaches."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still"]),
            helper.make_node("Add", ["count", "one"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("count", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, []),
        ],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    return _with_nodes(
        [helper.make_node("Loop", ["", "true", "mean"], ["odd"], body=body)],
        {"true": np.array(True)},
    )


def huge_constant() -> bytes:
    """A classifier that wants 4 TB first."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["ones"]),
        helper.make_node("ReduceMax", ["ones"], ["odd"], keepdims=0),
    ]
    return _with_nodes(nodes, {"shape": np.array([1 << 20, 1 << 20])})


def unknown_operator() -> bytes:
    """A classifier that needs an operator that nothing has."""
    return _with_nodes([helper.make_node("Teleport", ["mean"], ["odd"], domain="nowhere")], {})


def _with_nodes(nodes: list[onnx.NodeProto], constants: dict[str, Any]) -> bytes:
    """Return a classifier whose logits wait for what some nodes make of the mean, "odd"."""
    model = onnx.load_from_string(classifier())
    contents, _ = export(classifier(), classifier_document())
    (document,) = (p.value for p in onnx.load_from_string(contents).metadata_props)
    before = helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0)
    after = [
        helper.make_node("Mul", ["odd", "nothing"], ["none"]),
        helper.make_node("Add", ["logits", "none"], ["delayed"]),
    ]
    model.graph.node.extend([before, *nodes, *after])
    for name, value in {"nothing": np.float32(0), **constants}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    model.opset_import.append(helper.make_opsetid("nowhere", 1))
    model.graph.output[0].name = "delayed"
    digest = document.split('"digest":"')[1][:64]
    text = document.replace('"tensor":"logits"', '"tensor":"delayed"').replace(
        f'"digest":"{digest}"', '"digest":null'
    )
    return with_metadata(model.SerializeToString(), {METADATA_KEY: text})


def put(folder: Path, name: str, version: int | str, contents: bytes) -> Path:
    """Write a model file into a repository; return its path."""
    path = folder / name / str(version) / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(contents)
    return path
