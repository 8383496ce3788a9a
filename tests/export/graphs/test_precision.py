"""Graphs in fp16 and int8: converted nodes, nodes that stay fp32, and refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array, to_array

from visavis_export.graphs.precision import write_fp16, write_int8
from visavis_server.runtime.providers import CPU, SessionConfig
from visavis_server.runtime.session import Session

SIDE = 16


def save(path: Path, activation: str, decodes: bool = False) -> Path:
    """Write four convolutions, an activation after each but the last, and two resizes.

    decodes: whether the last one's output is moved far away, as coordinates are.
    """
    random = np.random.default_rng(0)
    nodes, constants = [], [from_array(np.array([1, 1, 2, 2], np.float32), "scales")]
    name, channels = "image", 3
    for index in range(4):
        weights = random.normal(0, 0.3, (8, channels, 3, 3)).astype(np.float32)
        bias = random.normal(0, 0.1, 8).astype(np.float32)
        constants += [from_array(weights, f"w{index}"), from_array(bias, f"b{index}")]
        given = [name, f"w{index}", f"b{index}"]
        name, channels = f"conv{index}", 8
        nodes.append(make_node("Conv", given, [name], f"Conv{index}", pads=[1, 1, 1, 1]))
        if index == 3:
            continue
        if activation == "Relu":
            nodes.append(make_node("Relu", [name], [f"act{index}"], f"Relu{index}"))
        else:
            nodes.append(make_node("Sigmoid", [name], [f"s{index}"], f"Sigmoid{index}"))
            nodes.append(make_node("Mul", [name, f"s{index}"], [f"act{index}"], f"Mul{index}"))
        name = f"act{index}"
        if index:
            nodes.append(make_node("Resize", [name, "", "scales"], [f"r{index}"], f"Resize{index}"))
            name = f"r{index}"
    if decodes:
        constants.append(from_array(np.float32(3000), "far"))
        nodes.append(make_node("Add", [name, "far"], ["boxes"], "Add"))
        name = "boxes"
    floats, large = TensorProto.FLOAT, 4 * SIDE
    graph = make_graph(
        nodes,
        "convolutions",
        [make_tensor_value_info("image", floats, ["batch", 3, SIDE, SIDE])],
        [make_tensor_value_info(name, floats, ["batch", 8, large, large])],
        constants,
    )
    onnx.save(make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=10), path)
    return path


def inputs(count: int = 8) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.random((1, 3, SIDE, SIDE), np.float32) for _ in range(count)]


def run(path: Path, tensor: np.ndarray) -> Any:
    return Session(path, CPU, SessionConfig(path.parent)).run(tensor)[0]


def quantized(path: Path) -> list[str]:
    """Return the convolutions whose weights are int8."""
    model = onnx.load(path)
    onnx.checker.check_model(model)
    stored = {each.name: each.data_type for each in model.graph.initializer}
    made = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and stored.get(made.get(node.input[1], "")) == TensorProto.INT8
    ]


def test_behind_silus_the_first_two_convolutions_and_the_head_stay_fp32(tmp_path: Path) -> None:
    kept = write_int8(save(tmp_path / "fp32.onnx", "SiLU"), inputs(), tmp_path / "int8.onnx")
    assert quantized(tmp_path / "int8.onnx") == ["Conv2"]
    assert kept == 3


def test_behind_relus_only_the_head_stays_fp32(tmp_path: Path) -> None:
    kept = write_int8(save(tmp_path / "fp32.onnx", "Relu"), inputs(), tmp_path / "int8.onnx")
    assert quantized(tmp_path / "int8.onnx") == ["Conv0", "Conv1", "Conv2"]
    assert kept == 1


@pytest.mark.parametrize("activation", ["Relu", "SiLU"])
def test_int8_gives_nearly_what_fp32_gives(activation: str, tmp_path: Path) -> None:
    fp32 = save(tmp_path / "fp32.onnx", activation)
    write_int8(fp32, inputs(), tmp_path / "int8.onnx")
    other = np.random.default_rng(2).random((3, 3, SIDE, SIDE), np.float32)  # a batch, too
    expected = run(fp32, other)
    difference = np.abs(run(tmp_path / "int8.onnx", other) - expected)
    assert 0 < difference.mean() < 0.02 * expected.std()


def test_int8_is_the_same_file_every_time(tmp_path: Path) -> None:
    graph = save(tmp_path / "fp32.onnx", "SiLU")
    for name in ("a", "b"):
        write_int8(graph, inputs(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_fp16_keeps_its_input_and_output_and_halves_the_weights(tmp_path: Path) -> None:
    fp32 = save(tmp_path / "fp32.onnx", "SiLU")
    write_fp16(fp32, tmp_path / "fp16.onnx")
    model = onnx.load(tmp_path / "fp16.onnx")
    onnx.checker.check_model(model, full_check=True)
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    weights = {each.name: to_array(each).dtype for each in model.graph.initializer}
    assert weights["w0"] == np.float16
    (tensor,) = inputs(1)
    expected = run(fp32, tensor)
    assert np.abs(run(tmp_path / "fp16.onnx", tensor) - expected).max() < 0.01 * expected.std()


def test_fp16_decodes_boxes_in_fp32(tmp_path: Path) -> None:
    # At 3,000 fp16 knows only every other integer.
    fp32 = save(tmp_path / "fp32.onnx", "SiLU", decodes=True)
    write_fp16(fp32, tmp_path / "fp16.onnx")
    (tensor,) = inputs(1)
    assert np.abs(run(tmp_path / "fp16.onnx", tensor) - run(fp32, tensor)).max() < 0.01
