"""The layers of an original and of a graph, side by side: the first one that differs.

A layer is a convolution or a linear layer, with its batch norm folded in as exporters do it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from visavis_export.checkpoints.pickled import Inert
from visavis_export.families.evaluation import array_of, evaluate
from visavis_export.families.original import Floats
from visavis_export.verification.graph_layers import (
    graph_layers,
    inner_outputs,
    read_graph,
    sampled,
)

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
    model = read_graph(graph)
    found = list(graph_layers(model))
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
    outputs = inner_outputs(model, [found[there][2] for _, there in indices], tensor)
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
        yield Layer(step.name, weight.detach().numpy(), sampled(output.detach().float().numpy()))


def _weight_distance(one: Floats, other: Floats) -> float:
    channels = np.abs(one).reshape(len(one), -1).max(axis=1)
    scale = np.maximum(channels, 1e-3 * channels.max(initial=0) + 1e-12)
    apart = np.abs(one - other).reshape(len(one), -1).max(axis=1)
    return float((apart / scale).max(initial=0))


def _output_distance(one: Floats, other: Floats) -> float:
    if one.shape != other.shape or not np.isfinite(other).all():
        return float("inf")
    return float(np.abs(one - other).max(initial=0) / (one.std() + 1e-6))
