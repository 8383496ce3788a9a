"""The layers of an original and of a graph, side by side: the first one that differs.

A layer is a convolution or a linear layer, with its batch norm folded in as exporters do it.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from visavis_export.checkpoints.pickled import Inert
from visavis_export.families.evaluation import array_of, evaluate
from visavis_export.families.original import Floats
from visavis_server.runtime.providers import CPU, SessionConfig
from visavis_server.runtime.session import Session

# The values of an output that are compared, and the outputs computed in one run: all of them
# together would take gigabytes.
_SAMPLES = 20_000
_OUTPUTS_AT_ONCE = 12
# The difference of weights, relative to the largest weight of their channel, that the number format
# explains. fp32: folding a batch norm rounds. int8: half a step of 127, and another half where the
# weights were rounded jointly.
_WEIGHT_STEPS = {"fp32": 1e-4, "fp16": 2e-3, "int8": 1.2 / 127}
# The same for an output, relative to its standard deviation.
_OUTPUT_STEPS = {"fp32": 1e-3, "fp16": 0.05, "int8": 0.5}


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer: its name, weights [out, in, ...], and values of its output for one input."""

    name: str
    weight: Floats
    output: Floats


@dataclass(frozen=True, slots=True)
class Comparison:
    """Layers of an original against those of a graph.

    pairs: layers of the same shape, in order. total: the original's layers. other_weights: indices
    of pairs whose weights differ. other_outputs: of those whose outputs differ. weight_step: the
    largest difference of the weights of the first such pair, relative to the channel's largest.
    """

    pairs: tuple[tuple[Layer, Layer], ...]
    total: int
    other_weights: tuple[int, ...]
    other_outputs: tuple[int, ...]
    weight_step: float

    @property
    def same_structure(self) -> bool:
        """True if nearly all layers have a partner; exporters may split or merge a few."""
        return len(self.pairs) >= 0.8 * self.total


@dataclass(frozen=True, slots=True)
class _Step:
    """One module that ran: a Conv2d, a BatchNorm2d or a Linear."""

    name: str
    kind: str
    arrays: dict[str, Tensor]
    eps: float
    output: Tensor


def layers_of_checkpoint(
    model: Inert,
) -> tuple[Callable[[Floats], Floats], Callable[[Floats], list[Layer]]]:
    """Return functions from an input [3, H, W] to a YOLO's raw output, and to its layers."""
    names = {id(module): name for name, module in _named(model, "")}

    def network(tensor: Floats) -> Floats:
        return np.asarray(evaluate(model, torch.from_numpy(tensor[None]))[0].numpy())

    def layers(tensor: Floats) -> list[Layer]:
        steps: list[_Step] = []

        def watch(module: Inert, output: Any) -> None:
            kind = module.class_path.rpartition(".")[2]
            if kind in ("Conv2d", "BatchNorm2d", "Linear"):
                arrays = {
                    name: array
                    for name in ("weight", "bias", "running_mean", "running_var")
                    if (array := array_of(module, name)) is not None
                }
                name = names.get(id(module), kind)
                eps = float(module.state.get("eps", 0))
                steps.append(_Step(name, kind, arrays, eps, output))

        evaluate(model, torch.from_numpy(tensor[None]), watch)
        return list(_folded(steps))

    return network, layers


def layers_of_module(module: nn.Module, tensor: Floats) -> list[Layer]:
    """Return the layers of a module for an input [3, H, W]."""
    steps: list[_Step] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(part: nn.Module, inputs: Any, output: Tensor) -> None:
            arrays = {**dict(part.named_parameters()), **dict(part.named_buffers())}
            eps = float(getattr(part, "eps", 0))
            steps.append(_Step(name, type(part).__name__, arrays, eps, output.clone()))

        return hook

    hooks = [
        part.register_forward_hook(watch(name))
        for name, part in module.named_modules()
        if isinstance(part, nn.Conv2d | nn.BatchNorm2d | nn.Linear)
    ]
    try:
        with torch.inference_mode():
            module(torch.from_numpy(tensor[None]))
    finally:
        for hook in hooks:
            hook.remove()
    return list(_folded(steps))


def compare_layers(
    original: list[Layer], graph: Path, tensor: Floats, precision: str
) -> Comparison:
    """Compare an original's layers with those of a graph, for one input [3, H, W]."""
    model = onnx.load(graph)
    found = list(_graph_layers(model))
    ours, theirs = (
        [one.shape for one in side]
        for side in ([layer.weight for layer in original], [weight for _, weight, _ in found])
    )
    matcher = SequenceMatcher(a=ours, b=theirs, autojunk=False)
    indices = [
        (block.a + k, block.b + k)
        for block in matcher.get_matching_blocks()
        for k in range(block.size)
    ]
    outputs = _outputs(model, [found[there][2] for _, there in indices], tensor)
    pairs = tuple(
        (original[here], Layer(found[there][0], found[there][1], output))
        for (here, there), output in zip(indices, outputs, strict=True)
    )
    step, output_step = _WEIGHT_STEPS[precision], _OUTPUT_STEPS[precision]
    distances = [_weight_distance(one.weight, other.weight) for one, other in pairs]
    weights = tuple(i for i, distance in enumerate(distances) if not distance <= step)
    others = tuple(
        i
        for i, (one, other) in enumerate(pairs)
        if not _output_distance(one.output, other.output) <= output_step
    )
    largest = distances[weights[0]] if weights else 0.0
    return Comparison(pairs, len(original), weights, others, largest)


def precision_of(graph: Path) -> str:
    """Return the number format of a graph's weights and arithmetic: fp32, fp16 or int8."""
    model = onnx.load(graph, load_external_data=False)
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


def _named(module: Inert, prefix: str) -> Iterator[tuple[str, Inert]]:
    yield prefix.rstrip("."), module
    children = module.state.get("_modules") if isinstance(module.state, dict) else None
    for name, child in (children or {}).items():
        if isinstance(child, Inert):
            yield from _named(child, f"{prefix}{name}.")


def _folded(steps: list[_Step]) -> Iterator[Layer]:
    """Yield the layers; a convolution's batch norm, where it follows at once, is folded in."""
    for index, step in enumerate(steps):
        if step.kind == "BatchNorm2d":
            continue
        weight = step.arrays["weight"].float()
        following = steps[index + 1] if index + 1 < len(steps) else None
        output = step.output
        if (
            step.kind == "Conv2d"
            and following is not None
            and following.kind == "BatchNorm2d"
            and following.output.shape == output.shape
        ):
            norm = following.arrays
            scale = norm["weight"].float() / (norm["running_var"].float() + following.eps).sqrt()
            weight, output = weight * scale[:, None, None, None], following.output
        yield Layer(step.name, weight.detach().numpy(), _sampled(output.detach().float().numpy()))


def _sampled(values: Floats) -> Floats:
    """Return evenly spaced values of an output."""
    flat = values.reshape(-1)
    return flat[:: max(1, len(flat) // _SAMPLES)].astype(np.float32)


def _graph_layers(model: onnx.ModelProto) -> Iterator[tuple[str, Floats, str]]:
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


def _with_norm(weight: Floats, norm: onnx.NodeProto, constants: Any, producers: Any) -> Floats:
    scale, variance = (_constant(norm.input[i], constants, producers) for i in (1, 4))
    if scale is None or variance is None:
        return weight
    eps = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
    factor = scale / np.sqrt(variance + eps)
    scaled: Floats = (weight * factor.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
    return scaled


def _constant(
    name: str, constants: dict[str, onnx.TensorProto], producers: dict[str, onnx.NodeProto]
) -> Floats | None:
    """Return a constant tensor, through casts and dequantisation; None if it is computed."""
    if name in constants:
        return numpy_helper.to_array(constants[name])
    node = producers.get(name)
    if node is None:
        return None
    if node.op_type in ("Cast", "Identity"):
        return _constant(node.input[0], constants, producers)
    if node.op_type == "Constant":
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        return None if value is None else numpy_helper.to_array(value)
    if node.op_type == "DequantizeLinear":
        values, scale, *zero = (_constant(one, constants, producers) for one in node.input)
        if values is None or scale is None:
            return None
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        along = [-1 if i == axis % values.ndim else 1 for i in range(values.ndim)]
        shape = along if scale.ndim else []
        offset = zero[0].astype(np.float32).reshape(shape) if zero and zero[0] is not None else 0
        return (values.astype(np.float32) - offset) * scale.astype(np.float32).reshape(shape)
    return None


def _outputs(model: onnx.ModelProto, names: list[str], tensor: Floats) -> list[Floats]:
    """Return sampled values of inner tensors of a graph for an input [3, H, W]."""
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names))
    with tempfile.TemporaryDirectory(prefix="visavis-verify-") as folder:
        path = Path(folder) / "inner.onnx"
        onnx.save(model, path)
        session = Session(path, CPU, SessionConfig(Path(folder)))
        sampled: list[Floats] = []
        for start in range(0, len(names), _OUTPUTS_AT_ONCE):
            some = names[start : start + _OUTPUTS_AT_ONCE]
            sampled += [_sampled(one) for one in session.run(tensor[None], some)]
    return sampled


def _weight_distance(one: Floats, other: Floats) -> float:
    channels = np.abs(one).reshape(len(one), -1).max(axis=1)
    scale = np.maximum(channels, 1e-3 * channels.max(initial=0) + 1e-12)
    apart = np.abs(one - other).reshape(len(one), -1).max(axis=1)
    return float((apart / scale).max(initial=0))


def _output_distance(one: Floats, other: Floats) -> float:
    if one.shape != other.shape or not np.isfinite(other).all():
        return float("inf")
    return float(np.abs(one - other).max(initial=0) / (one.std() + 1e-6))
