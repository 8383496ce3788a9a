"""Calibration: between which values each tensor of a graph is worth telling apart.

The first half of a graph and the second want different ranges, by measurement. Early, where
convolutions see edges, a few activations lie far out and mean little: the range is the one whose
256 steps give the least squared error. Late, the strongest activations are what the model has
recognised, and a range that cuts them off costs scores: it is everything that was seen.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx.helper import make_empty_tensor_value_info, make_node
from onnx.numpy_helper import from_array

from visavis_server.arrays import Tensor
from visavis_server.runtime.cores import usable_cores
from visavis_server.runtime.providers import CPU, SessionConfig
from visavis_server.runtime.session import Session

Range = tuple[float, float]
Function = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]

STEPS = 255
# Of each tensor and picture; more change the ranges no more.
_SAMPLES = 1 << 14
_BINS = 2048
# SiLU is nearly flat below, -0.015 at -6: steps spent there would be lost above.
_SILU_LOWEST = -6.0


def silu(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return x * sigmoid(x)."""
    return x * (1 + np.tanh(x / 2)) / 2  # without an overflow


def silu_inputs(model: onnx.ModelProto) -> dict[str, str]:
    """Return the tensors that a SiLU is computed from, each with the SiLU's output.

    In a graph it is a Sigmoid, and a Mul of what comes out of it and what went in.
    """
    sigmoids = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Sigmoid"}
    return {
        sigmoids[name]: node.output[0]
        for node in model.graph.node
        if node.op_type == "Mul"
        for name in node.input
        if name in sigmoids and sigmoids[name] in node.input
    }


def measure_ranges(graph: Path, inputs: Iterable[Tensor], folder: Path) -> dict[str, Range]:
    """Return the range of every float tensor that a graph computes, and of its input.

    graph: its inputs and outputs have names, all dimensions but the batch are fixed. inputs:
    one picture each. folder: for files that nobody needs afterwards.
    """
    model = onnx.load(graph)
    silus = silu_inputs(model)
    sizes = _tensors(model)
    early = _early(model)
    outputs: list[str] = []
    for name, size in sizes.items():
        outputs += [_watch(model, name, "ReduceMin"), _watch(model, name, "ReduceMax")]
        if name in early:
            outputs.append(_sample(model, name, max(1, size // _SAMPLES)))
    watched = folder / "watched.onnx"
    onnx.save(model, watched)
    session = Session(watched, CPU, SessionConfig(folder, threads=usable_cores()))
    seen = [dict(zip(outputs, session.run(tensor, outputs), strict=True)) for tensor in inputs]
    ranges = {}
    for name in sizes:
        low = min(float(one[f"{name}:ReduceMin"]) for one in seen)
        high = max(float(one[f"{name}:ReduceMax"]) for one in seen)
        if name in early:
            samples = np.concatenate([one[f"{name}:sample"].ravel() for one in seen])
            ranges[name] = least_error(samples, (low, high), silu if name in silus else None)
        else:
            ranges[name] = (max(low, _SILU_LOWEST) if name in silus else low, high)
    return ranges


def least_error(samples: Tensor, whole: Range, function: Function | None = None) -> Range:
    """Return the range, within the whole one and zero, whose steps give the least squared error.

    function: what the values go through next; then it is the error behind it that counts.
    """
    low, high = min(whole[0], 0.0), max(whole[1], 0.0)
    counts, edges = np.histogram(samples, _BINS, (low, high if high > low else low + 1))
    occupied = counts > 0
    counts, values = counts[occupied], ((edges[1:] + edges[:-1]) / 2)[occupied]
    exact = function(values) if function else values
    best, least = (low, high), np.inf
    for bottom in low * np.linspace(1, 0.1, 19) if low < 0 else (0.0,):
        for top in high * np.linspace(1, 0.3, 29) if high > 0 else (0.0,):
            if not top > bottom:
                continue
            step = (top - bottom) / STEPS
            zero = np.round(-bottom / step)
            rounded = (np.clip(np.round(values / step) + zero, 0, STEPS) - zero) * step
            error = counts @ ((function(rounded) if function else rounded) - exact) ** 2
            if error < least:
                best, least = (float(bottom), float(top)), error
    return best


def _tensors(model: onnx.ModelProto) -> dict[str, int]:
    """Return the float tensors that depend on the input, in order, with their size per picture."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = {v.name: v.type.tensor_type for v in (*inferred.value_info, *inferred.output)}
    values |= {v.name: v.type.tensor_type for v in inferred.input}
    names = [model.graph.input[0].name, *(o for node in model.graph.node for o in node.output)]
    return {
        name: int(np.prod([dim.dim_value or 1 for dim in values[name].shape.dim]))
        for name in names
        if name in values and values[name].elem_type == onnx.TensorProto.FLOAT
    }


def _early(model: onnx.ModelProto) -> set[str]:
    """Return the tensors before the middle one of all convolutions; none of a few.

    Not the input: all its 256 values matter.
    """
    nodes = model.graph.node
    convolutions = [index for index, node in enumerate(nodes) if node.op_type == "Conv"]
    if not convolutions:
        return set()
    middle = convolutions[len(convolutions) // 2]
    return {output for node in nodes[:middle] for output in node.output}


def _watch(model: onnx.ModelProto, name: str, op: str) -> str:
    output = f"{name}:{op}"
    model.graph.node.append(make_node(op, [name], [output], keepdims=0))
    model.graph.output.append(make_empty_tensor_value_info(output))
    return output


def _sample(model: onnx.ModelProto, name: str, step: int) -> str:
    """Add every step-th value of a tensor to the outputs."""
    output, flat = f"{name}:sample", f"{name}:flat"
    constants = {"start": [0], "end": [np.iinfo(np.int64).max], "axis": [0], "step": [step]}
    for key, value in constants.items():
        model.graph.initializer.append(from_array(np.array(value, np.int64), f"{output}:{key}"))
    shape = f"{output}:shape"
    model.graph.initializer.append(from_array(np.array([-1], np.int64), shape))
    model.graph.node.append(make_node("Reshape", [name, shape], [flat]))
    model.graph.node.append(
        make_node("Slice", [flat, *(f"{output}:{key}" for key in constants)], [output])
    )
    model.graph.output.append(make_empty_tensor_value_info(output))
    return output
