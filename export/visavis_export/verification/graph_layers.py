"""The layers of an ONNX graph: weights, and what they compute for an input."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from visavis_export.errors import ExportError
from visavis_export.families.original import Floats
from visavis_server.runtime.providers import CPU, SessionConfig
from visavis_server.runtime.session import Session

# The values of an output that are compared, and the outputs computed in one run: all of them
# together would take gigabytes.
_SAMPLES = 20_000
_OUTPUTS_AT_ONCE = 12
# Between a constant and the layer that uses it: exporters write two.
_MOST_STEPS = 8
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


def read_graph(path: Path) -> onnx.ModelProto:
    """Return the model in an ONNX file. Raises ExportError for what is none."""
    try:
        return onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise ExportError(f"{path} is no ONNX model, or is damaged: {error}") from None


def precision_of(graph: Path) -> str:
    """Return the number format of a graph's weights and arithmetic: fp32, fp16 or int8."""
    model = read_graph(graph)
    operators = {node.op_type for node in model.graph.node}
    if operators & {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
        *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"),
    }:
        return "int8"
    large = [one.data_type for one in model.graph.initializer if np.prod(one.dims, dtype=int) > 64]
    if large.count(onnx.TensorProto.FLOAT16) > len(large) / 2:
        return "fp16"
    return "fp32"


def require_float_input(graph: Path) -> None:
    """Raise ExportError unless a graph takes numbers as the network does: float32 or float16."""
    model = read_graph(graph)
    constants = {one.name for one in model.graph.initializer}
    for one in model.graph.input:
        kind = one.type.tensor_type.elem_type
        if one.name not in constants and kind not in _FLOATS:
            name = onnx.TensorProto.DataType.Name(kind).lower()
            raise ExportError(
                f"{graph}: its input {one.name} is {name}, so steps of the pre-processing are in "
                "the graph; export the network alone, with a float input, and verify that"
            )


def graph_layers(model: onnx.ModelProto) -> Iterator[tuple[str, Floats, str]]:
    """Yield name, weight [out, in, ...] and output tensor of a graph's layers, in its order."""
    constants = {one.name: one for one in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or len(node.input) < 2:
            continue
        weight = _constant(node.input[1], constants, producers)
        if weight is None or weight.ndim < 2:
            continue
        output = node.output[0]
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        if node.op_type != "Conv" and not transposed:
            weight = weight.T
        (after, *others) = consumers.get(output, [None])
        if after is not None and not others:
            if after.op_type == "BatchNormalization":
                weight = _with_norm(weight, after, constants, producers)
                output = after.output[0]
            elif after.op_type == "Add" and node.op_type == "MatMul":
                output = after.output[0]
        yield node.name or output, weight.astype(np.float32), output


def inner_outputs(model: onnx.ModelProto, names: list[str], tensor: Floats) -> list[Floats]:
    """Return sampled values of inner tensors of a graph for an input [3, H, W]."""
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names))
    with tempfile.TemporaryDirectory(prefix="visavis-verify-") as folder:
        path = Path(folder) / "inner.onnx"
        onnx.save(model, path)
        session = Session(path, CPU, SessionConfig(Path(folder)))
        found: list[Floats] = []
        for start in range(0, len(names), _OUTPUTS_AT_ONCE):
            some = names[start : start + _OUTPUTS_AT_ONCE]
            found += [sampled(one) for one in session.run(tensor[None], some)]
    return found


def sampled(values: Floats) -> Floats:
    """Return evenly spaced values of an output."""
    flat = values.reshape(-1)
    return flat[:: max(1, len(flat) // _SAMPLES)].astype(np.float32)


def _with_norm(weight: Floats, norm: onnx.NodeProto, constants: Any, producers: Any) -> Floats:
    scale, variance = (_constant(norm.input[i], constants, producers) for i in (1, 4))
    if scale is None or variance is None:
        return weight
    eps = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
    factor = scale / np.sqrt(variance + eps)
    scaled: Floats = (weight * factor.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
    return scaled


def _constant(
    name: str,
    constants: dict[str, onnx.TensorProto],
    producers: dict[str, onnx.NodeProto],
    depth: int = 0,
) -> Floats | None:
    """Return a constant tensor, through casts and dequantisation; None if it is computed."""
    if name in constants:
        return numpy_helper.to_array(constants[name])
    node = producers.get(name)
    if node is None or depth > _MOST_STEPS:
        return None
    if node.op_type in ("Cast", "Identity"):
        return _constant(node.input[0], constants, producers, depth + 1)
    if node.op_type == "Constant":
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        return None if value is None else numpy_helper.to_array(value)
    if node.op_type == "DequantizeLinear":
        values, scale, *zero = (
            _constant(one, constants, producers, depth + 1) for one in node.input
        )
        if values is None or scale is None:
            return None
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        along = [-1 if i == axis % values.ndim else 1 for i in range(values.ndim)]
        shape = along if scale.ndim else []
        offset = zero[0].astype(np.float32).reshape(shape) if zero and zero[0] is not None else 0
        return (values.astype(np.float32) - offset) * scale.astype(np.float32).reshape(shape)
    return None
