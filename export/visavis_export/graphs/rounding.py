"""Rounds the weights of a layer jointly, so that its output changes least.

GPTQ (Frantar et al., arXiv:2210.17323): the rounding error of each weight is compensated by the
weights of the same output channel that are not yet rounded, as far as their inputs correlate.
Neighbouring pixels correlate, so the first layers gain most.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.helper import get_attribute_value, make_empty_tensor_value_info
from onnx.numpy_helper import from_array, to_array

from visavis_server.arrays import Tensor
from visavis_server.runtime.cores import usable_cores
from visavis_server.runtime.providers import CPU, SessionConfig
from visavis_server.runtime.session import Session

# int8 weights are symmetric around zero, so -128 is unused.
_LARGEST = 127
# Added to the diagonal, as a share of its mean: samples overstate the correlation of inputs.
_DAMPING = 0.01
_BLOCK = 128
# More pictures did not reduce the error. Positions are evenly spaced over a layer's output.
_PICTURES = 32
_POSITIONS = 128
_MEMORY_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer with weights in both graphs.

    node: its fp32 node. weights: fp32, [output channels, ...]. integers: the name of its int8
    weights. scales: the step of each output channel.
    """

    node: onnx.NodeProto
    weights: torch.Tensor
    integers: str
    scales: torch.Tensor

    @property
    def inputs_per_output(self) -> int:
        return self.weights[0].numel()


def round_together(
    fp32: onnx.ModelProto, int8: onnx.ModelProto, inputs: Sequence[Tensor], folder: Path
) -> None:
    """Replace a QDQ graph's int8 weights by jointly rounded ones with the same steps.

    fp32: the graph that int8 was made from. inputs: real pictures, pre-processed, one per tensor.
    folder: for a temporary file.
    """
    inputs = inputs[:: -(-len(inputs) // _PICTURES)]
    watched = onnx.ModelProto()
    watched.CopyFrom(fp32)
    layers = _layers(fp32, int8)
    graph_input = fp32.graph.input[0].name
    for name in dict.fromkeys(layer.node.input[0] for layer in layers):
        if name != graph_input:
            watched.graph.output.append(make_empty_tensor_value_info(name))
    path = folder / "inputs.onnx"
    onnx.save(watched, path)
    session = Session(path, CPU, SessionConfig(folder, threads=usable_cores()))
    initializers = {each.name: each for each in int8.graph.initializer}
    for group in _groups(layers):
        names = sorted({layer.node.input[0] for layer in group} - {graph_input})
        products = [
            torch.zeros(layer.inputs_per_output, layer.inputs_per_output) for layer in group
        ]
        for tensor in inputs:
            values = dict(zip(names, session.run(tensor, names) if names else (), strict=True))
            values[graph_input] = tensor
            for layer, product in zip(group, products, strict=True):
                columns = _columns(layer.node, torch.from_numpy(values[layer.node.input[0]]), layer)
                product += columns.T @ columns
        for layer, product in zip(group, products, strict=True):
            rounded = gptq(layer.weights.flatten(1), layer.scales, product)
            integers = rounded.to(torch.int8).reshape(layer.weights.shape).numpy()
            initializers[layer.integers].CopyFrom(from_array(integers, layer.integers))


def gptq(weights: torch.Tensor, scales: torch.Tensor, product: torch.Tensor) -> torch.Tensor:
    """Return weights [outputs, inputs] as multiples of `scales` [outputs], in [-127, 127].

    product: [inputs, inputs], the sum over all samples of the outer product of the inputs.
    """
    weights, product = weights.clone(), product.clone()
    diagonal = product.diagonal()
    diagonal[diagonal == 0] = 1  # inputs that are always zero
    diagonal += _DAMPING * diagonal.mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(product))
    upper = torch.linalg.cholesky(inverse, upper=True)
    rounded = torch.zeros_like(weights)
    steps = scales[:, None]
    count = weights.shape[1]
    for start in range(0, count, _BLOCK):
        end = min(start + _BLOCK, count)
        errors = torch.zeros(len(weights), end - start)
        for index in range(start, end):
            column = weights[:, index : index + 1]
            whole = torch.clamp(torch.round(column / steps), -_LARGEST, _LARGEST)
            rounded[:, index : index + 1] = whole
            error = (column - whole * steps) / upper[index, index]
            weights[:, index + 1 : end] -= error @ upper[index : index + 1, index + 1 : end]
            errors[:, index - start : index - start + 1] = error
        weights[:, end:] -= errors @ upper[start:end, end:]
    return rounded


def _layers(fp32: onnx.ModelProto, int8: onnx.ModelProto) -> list[_Layer]:
    """Return the layers that have int8 weights with a scale per output channel."""
    weights = {each.name: each for each in fp32.graph.initializer}
    constants = {each.name: each for each in int8.graph.initializer}
    dequantized = {
        n.output[0]: n
        for n in int8.graph.node
        if n.op_type == "DequantizeLinear" and n.input[0] in constants
    }
    converted = {n.name: n for n in int8.graph.node if n.op_type in ("Conv", "Gemm")}
    layers = []
    for node in fp32.graph.node:
        plain = _attribute(node, "group", 1) == 1 and set(_attribute(node, "dilations", [1])) == {1}
        if node.name not in converted or not plain:
            continue
        source = dequantized.get(converted[node.name].input[1])
        if source is None or _attribute(source, "axis", 1) != 0:
            continue
        values = to_array(weights[node.input[1]])
        scales = to_array(constants[source.input[1]])
        if len(scales) == len(values):
            layers.append(
                _Layer(
                    node,
                    torch.from_numpy(values.astype(np.float32)),
                    source.input[0],
                    torch.from_numpy(scales.astype(np.float32)),
                )
            )
    return layers


def _groups(layers: Sequence[_Layer]) -> Iterator[list[_Layer]]:
    """Yield groups of layers whose products fit into memory together."""
    group: list[_Layer] = []
    taken = 0
    for layer in layers:
        needed = layer.inputs_per_output**2 * 4
        if group and taken + needed > _MEMORY_BYTES:
            yield group
            group, taken = [], 0
        group.append(layer)
        taken += needed
    if group:
        yield group


def _columns(node: onnx.NodeProto, values: torch.Tensor, layer: _Layer) -> torch.Tensor:
    """Return the inputs that a layer multiplies with its weights, [positions, inputs].

    values: the layer's input, [1, channels, height, width] or [1, inputs]. Samples at most
    _POSITIONS positions of a convolution's output.
    """
    if node.op_type == "Gemm":
        return values
    height, width = layer.weights.shape[2:]
    top, left, bottom, right = _attribute(node, "pads", [0, 0, 0, 0])
    step_y, step_x = _attribute(node, "strides", [1, 1])
    values = torch.nn.functional.pad(values, (left, right, top, bottom))[0]
    # [channels, y, x, height, width]: a view; only the sampled positions are copied.
    windows = values.unfold(1, height, step_y).unfold(2, width, step_x)
    rows, columns = windows.shape[1:3]
    places = np.linspace(0, rows * columns - 1, min(_POSITIONS, rows * columns)).astype(int)
    chosen = windows[:, places // columns, places % columns]  # [channels, positions, ...]
    return chosen.transpose(0, 1).flatten(1)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return get_attribute_value(attribute)
    return default
