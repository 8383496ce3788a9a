"""Measures the range of each tensor of a graph, for its int8 activations.

Measurements showed that the two halves of a graph need different ranges. In the first half, which
detects edges, a few extreme activations matter little: the range is the one whose 256 steps give
the least squared error. In the second half the strongest activations carry the answer, and cutting
them off changes scores: the range covers every value.
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
# Per tensor and picture; more samples do not change the ranges.
_SAMPLES = 1 << 14
_BINS = 2048
# SiLU is nearly flat below -6, where it is -0.015: steps spent there would be wasted.
_SILU_LOWEST = -6.0


def silu(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return x * sigmoid(x)."""
    return x * (1 + np.tanh(x / 2)) / 2  # does not overflow


def silu_inputs(model: onnx.ModelProto) -> dict[str, str]:
    """Return the input tensor of each SiLU, mapped to its output tensor.

    In a graph, a SiLU is a Sigmoid and a Mul of the Sigmoid's output and input.
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

    graph: all dimensions except the batch are fixed. inputs: pre-processed pictures, one per
    tensor. folder: for temporary files.
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
    results = [dict(zip(outputs, session.run(tensor, outputs), strict=True)) for tensor in inputs]
    ranges = {}
    for name in sizes:
        low = min(float(one[f"{name}:ReduceMin"]) for one in results)
        high = max(float(one[f"{name}:ReduceMax"]) for one in results)
        if name in early:
            samples = np.concatenate([one[f"{name}:sample"].ravel() for one in results])
            ranges[name] = least_error(samples, (low, high), silu if name in silus else None)
        else:
            ranges[name] = (max(low, _SILU_LOWEST) if name in silus else low, high)
    return ranges


def least_error(samples: Tensor, whole: Range, function: Function | None = None) -> Range:
    """Return the range whose steps give the least squared error.

    whole: the range of all values; the result lies within it, extended to zero. function: if
    given, the error is measured after applying it.
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
    """Return the float tensors that depend on the input, in order, with elements per picture."""
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
    """Return the tensors before the middle convolution, without the graph's input.

    All 256 values of the input matter.
    """
    nodes = model.graph.node
    convolutions = [index for index, node in enumerate(nodes) if node.op_type == "Conv"]
    if not convolutions:
        return set()
    middle = convolutions[len(convolutions) // 2]
    return {output for node in nodes[:middle] for output in node.output}


def _watch(model: onnx.ModelProto, name: str, op: str) -> str:
    """Add a reduction of a tensor to the outputs; returns the output's name."""
    output = f"{name}:{op}"
    model.graph.node.append(make_node(op, [name], [output], keepdims=0))
    model.graph.output.append(make_empty_tensor_value_info(output))
    return output


def _sample(model: onnx.ModelProto, name: str, step: int) -> str:
    """Add every step-th value of a tensor to the outputs; returns the output's name."""
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
