"""What class activation maps are computed from, in every precision of a graph."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array

from tests.server import graphs
from visavis_export.errors import ExportError
from visavis_export.graphs.activation import with_activation
from visavis_export.graphs.precision import write_fp16, write_int8
from visavis_server.arrays import Tensor
from visavis_server.card import (
    ClassActivation,
    ClassScores,
    LabelSet,
    ModelDocument,
    ModelInput,
    Stretch,
    explanation_constants,
    graph_outputs,
)
from visavis_server.models.onnx_file import read_constants
from visavis_server.runtime.providers import CPU, SessionConfig
from visavis_server.runtime.session import Session
from visavis_server.vision.families.classifier import Classifier
from visavis_server.vision.heat_maps import Area, Explain
from visavis_server.vision.results import ClassifyOptions

CHANNELS, CLASSES, SIDE = 16, 5, 16
RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.normal(0, 0.5, (CLASSES, CHANNELS)).astype(np.float32)
BIAS = RANDOM.normal(0, 0.5, CLASSES).astype(np.float32)


def write_fp32(path: Path, last: str = "Gemm") -> Path:
    """Write a graph like a ResNet: convolutions with Relu, mean over the image, linear layer."""
    nodes, constants, name, channels = [], [], "image", 3
    for index in range(3):
        kernel = RANDOM.normal(0, 0.3, (CHANNELS, channels, 3, 3)).astype(np.float32)
        constants.append(from_array(kernel, f"w{index}"))
        conv, channels = [name, f"w{index}"], CHANNELS
        name = "features" if index == 2 else f"act{index}"
        nodes += [
            make_node("Conv", conv, [f"c{index}"], f"Conv{index}", pads=[1] * 4, strides=[2, 2]),
            make_node("Relu", [f"c{index}"], [name], f"Relu{index}"),
        ]
    nodes.append(make_node("ReduceMean", ["features", "axes"], ["means"], "Mean", keepdims=0))
    if last == "Gemm":
        nodes.append(make_node("Gemm", ["means", "fc", "bias"], ["logits"], "Gemm", transB=1))
        constants.append(from_array(WEIGHTS, "fc"))
    else:
        nodes.append(make_node("MatMul", ["means", "fc"], ["logits"], "MatMul"))
        constants.append(from_array(np.ascontiguousarray(WEIGHTS.T), "fc"))
    constants += [from_array(BIAS, "bias"), from_array(np.array([2, 3]), "axes")]
    floats = TensorProto.FLOAT
    graph = make_graph(
        nodes,
        "classifier",
        [make_tensor_value_info("image", floats, ["batch", 3, SIDE, SIDE])],
        [
            make_tensor_value_info("logits", floats, ["batch", CLASSES]),
            make_tensor_value_info("features", floats, ["batch", CHANNELS, 2, 2]),
        ],
        constants,
    )
    onnx.save(make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=10), path)
    return path


def draft() -> ModelDocument:
    activation = ClassActivation(features="features", weights="")
    return graphs.classifier_document(
        label_set=LabelSet(name="five", labels=tuple("abcde")),
        input=ModelInput(tensor="image", width=SIDE, height=SIDE, resize=Stretch()),
        output=ClassScores(layout="logits", tensor="logits", activation=activation),
    )


def pictures() -> list[Tensor]:
    random = np.random.default_rng(1)
    return [random.normal(size=(1, 3, SIDE, SIDE)).astype(np.float32) for _ in range(12)]


def explained(path: Path, tensor: Tensor, label: str) -> tuple[Tensor, float]:
    """Return a file's map for a label, and the label's logit."""
    document = with_activation(draft(), path)
    with path.open("rb") as file:
        constants = read_constants(file, explanation_constants(document), path)
    names = graph_outputs(document)
    outputs = Session(path, CPU, SessionConfig(path.parent)).run(tensor, names)
    family, area = Classifier(document), Area(0, 0, 1, 1)
    options = ClassifyOptions(explain=Explain(label))
    answer = family.postprocess(outputs[:1], area, options)
    heat_map = family.explain([*outputs, *constants], area, answer, options)
    return heat_map.values, float(outputs[0][0, heat_map.class_id])


@pytest.mark.parametrize(("precision", "within"), [("fp32", 1e-5), ("fp16", 1e-2), ("int8", 0.1)])
def test_the_maps_of_every_precision_are_those_of_its_logits(
    precision: str, within: float, tmp_path: Path
) -> None:
    fp32, path = write_fp32(tmp_path / "fp32.onnx"), tmp_path / f"{precision}.onnx"
    tensors = pictures()
    if precision == "fp16":
        write_fp16(fp32, path)
    elif precision == "int8":
        write_int8(fp32, tensors, path)
    for class_id, label in enumerate("abcde"):
        expected, logit = explained(fp32, tensors[0], label)
        (features,) = Session(fp32, CPU, SessionConfig(tmp_path)).run(tensors[0], ["features"])
        plain = np.einsum("c,chw->hw", WEIGHTS[class_id], features[0])
        np.testing.assert_allclose(expected, plain, atol=1e-5)
        assert expected.mean() + BIAS[class_id] == pytest.approx(logit, abs=1e-5)
        values, own = explained(path, tensors[0], label)
        scale = float(np.abs(expected).max())
        assert np.abs(values - expected).max() < within * scale
        assert values.mean() + BIAS[class_id] == pytest.approx(own, abs=within * scale)


def test_the_weights_of_a_variant_have_their_own_names(tmp_path: Path) -> None:
    fp32 = write_fp32(tmp_path / "fp32.onnx")
    write_int8(fp32, pictures(), tmp_path / "int8.onnx")
    assert explanation_constants(with_activation(draft(), fp32)) == ["fc"]
    names = explanation_constants(with_activation(draft(), tmp_path / "int8.onnx"))
    with (tmp_path / "int8.onnx").open("rb") as file:
        weights, scales = read_constants(file, names, fp32)
    assert (weights.dtype, weights.shape, scales.shape) == (
        np.int8,
        (CLASSES, CHANNELS),
        (CLASSES,),
    )


def test_fp16_leaves_the_mean_before_the_linear_layer_in_fp16(tmp_path: Path) -> None:
    write_fp16(write_fp32(tmp_path / "fp32.onnx"), tmp_path / "fp16.onnx")
    model = onnx.load(tmp_path / "fp16.onnx")
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert len(casts) == 3  # of the input and the two outputs


def test_a_last_layer_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = write_fp32(tmp_path / "other.onnx", last="MatMul")
    with pytest.raises(ExportError, match="the last layer of colors is a MatMul, not linear"):
        with_activation(draft(), path)


def test_other_documents_stay_as_they_are(tmp_path: Path) -> None:
    path = write_fp32(tmp_path / "fp32.onnx")
    for document in (graphs.classifier_document(), graphs.detector_document()):
        assert with_activation(document, path) is document
