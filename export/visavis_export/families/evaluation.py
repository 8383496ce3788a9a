"""Evaluates a YOLO checkpoint module by module: the reference that a receipt compares with.

It shares no code with the exported network: it reads the pickled modules on its own and computes
each one with torch's functions. If either side misreads a module, their answers differ and the
receipt fails.
"""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  the customary name
from torch import Tensor

from visavis_export.checkpoints.pickled import Inert, StoredTensor, shown
from visavis_export.errors import CheckpointError

Forward = Callable[[Inert, Any], Any]
Watch = Callable[[Inert, Any], None]

# Called with every module that has run and its output.
_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


def evaluate(model: Inert, images: Tensor, watch: Watch | None = None) -> Tensor:
    """Return a model's output for images [n, 3, height, width] in [0, 1].

    YOLOv5: rows [n, cells, 5 + classes] or logits [n, classes]; YOLOv5u: rows [n, 4 + classes,
    cells]. watch: called with every module that has run and its output. Raises CheckpointError,
    naming the module, for an unknown module.
    """
    token = _watch.set(watch)
    try:
        return _evaluated(model, images)
    finally:
        _watch.reset(token)


def head_of(model: Inert) -> Inert:
    """Return a model's last layer."""
    return _children(_child(model, "model"))[-1]


def _evaluated(model: Inert, images: Tensor) -> Tensor:
    with torch.inference_mode():
        result: Tensor = _outputs(_children(_child(model, "model")), images)[-1]
        return result


def evaluate_map(model: Inert, images: Tensor, class_id: int) -> npt.NDArray[np.float32]:
    """Return a classifier's class activation map of an image [1, 3, height, width]: [h, w].

    The features before the mean over the image, weighted by the linear layer's row of the class.
    """
    with torch.inference_mode():
        *layers, head = _children(_child(model, "model"))
        inputs = _inputs(head, _outputs(layers, images), images)
        features = _run(head, torch.cat(inputs, 1) if isinstance(inputs, list) else inputs, "conv")
        row = _required(_child(head, "linear"), "weight")[class_id]
        mapped: npt.NDArray[np.float32] = (features[0] * row[:, None, None]).sum(0).numpy()
        return mapped


def _outputs(layers: Sequence[Inert], images: Tensor) -> list[Any]:
    """Return the output of each layer."""
    outputs: list[Any] = []
    for layer in layers:
        outputs.append(_forward(layer, _inputs(layer, outputs, images)))
    return outputs


def _inputs(layer: Inert, outputs: Sequence[Any], images: Tensor) -> Any:
    source = layer.state.get("f", -1)
    if isinstance(source, list | tuple):
        return [outputs[one] for one in source]
    return outputs[source] if outputs else images


def _forward(module: Inert, x: Any) -> Any:
    kind = module.class_path.rpartition(".")[2]
    forward = _FORWARDS.get(kind)
    if forward is None:
        raise CheckpointError(f"the module {shown(module.class_path)} is unknown to the reference")
    output = forward(module, x)
    if watch := _watch.get():
        watch(module, output)
    return output


def _child(module: Inert, name: str) -> Inert:
    child = module.state["_modules"].get(name)
    if not isinstance(child, Inert):
        raise CheckpointError(f"{shown(module)} has no module {name!r}")
    return child


def _children(module: Inert) -> list[Inert]:
    return [_child(module, name) for name in module.state["_modules"]]


def array_of(module: Inert, name: str) -> Tensor | None:
    """Return a parameter or buffer of a module as float32; None if it has none of that name."""
    state = module.state
    stored = state["_parameters"].get(name, state["_buffers"].get(name))
    return stored.tensor().float() if isinstance(stored, StoredTensor) else None


def _required(module: Inert, name: str) -> Tensor:
    array = array_of(module, name)
    if array is None:
        raise CheckpointError(f"{shown(module)} has no tensor {name!r}")
    return array


def _run(module: Inert, x: Any, *names: str) -> Any:
    for name in names:
        x = _forward(_child(module, name), x)
    return x


def _conv2d(module: Inert, x: Tensor) -> Tensor:
    state = module.state
    return F.conv2d(
        x,
        _required(module, "weight"),
        array_of(module, "bias"),
        state["stride"],
        state["padding"],
        state["dilation"],
        state["groups"],
    )


def _batch_norm(module: Inert, x: Tensor) -> Tensor:
    mean, variance, weight, bias = (
        _required(module, name) for name in ("running_mean", "running_var", "weight", "bias")
    )
    return F.batch_norm(x, mean, variance, weight, bias, eps=module.state["eps"])


def _bottleneck(module: Inert, x: Tensor) -> Tensor:
    y: Tensor = _run(module, x, "cv1", "cv2")
    return x + y if module.state["add"] else y


def _c3(module: Inert, x: Tensor) -> Any:
    return _run(module, torch.cat((_run(module, x, "cv1", "m"), _run(module, x, "cv2")), 1), "cv3")


def _c2f(module: Inert, x: Tensor) -> Any:
    parts = list(_run(module, x, "cv1").chunk(2, 1))
    for block in _children(_child(module, "m")):
        parts.append(_forward(block, parts[-1]))
    return _run(module, torch.cat(parts, 1), "cv2")


def _c2psa(module: Inert, x: Tensor) -> Any:
    kept, attended = _run(module, x, "cv1").chunk(2, 1)
    return _run(module, torch.cat((kept, _run(module, attended, "m")), 1), "cv2")


def _psa_block(module: Inert, x: Tensor) -> Tensor:
    for part in ("attn", "ffn"):
        y: Tensor = _run(module, x, part)
        x = x + y if module.state["add"] else y
    return x


def _attention(module: Inert, x: Tensor) -> Any:
    state = module.state
    heads, key = state["num_heads"], state["key_dim"]
    n, channels, height, width = x.shape
    parts = _run(module, x, "qkv").reshape(n, heads, -1, height * width)
    queries, keys, values = parts[:, :, :key], parts[:, :, key : 2 * key], parts[:, :, 2 * key :]
    weights = torch.einsum("nhdq,nhdk->nhqk", queries * state["scale"], keys).softmax(3)
    mixed = torch.einsum("nhdk,nhqk->nhdq", values, weights).reshape(n, channels, height, width)
    placed = _run(module, values.reshape(n, channels, height, width), "pe")
    return _run(module, mixed + placed, "proj")


def _focus(module: Inert, x: Tensor) -> Any:
    even, odd = x[:, :, 0::2], x[:, :, 1::2]
    parts = (even[..., 0::2], odd[..., 0::2], even[..., 1::2], odd[..., 1::2])
    return _run(module, torch.cat(parts, 1), "conv")


def _bottleneck_csp(module: Inert, x: Tensor) -> Any:
    joined = torch.cat((_run(module, x, "cv1", "m", "cv3"), _run(module, x, "cv2")), 1)
    return _run(module, joined, "bn", "act", "cv4")


def _conv(module: Inert, x: Tensor) -> Any:
    fused = "bn" not in module.state["_modules"]
    return _run(module, x, "conv", "act") if fused else _run(module, x, "conv", "bn", "act")


def _spp(module: Inert, x: Tensor) -> Any:
    x = _run(module, x, "cv1")
    pooled = [_forward(pool, x) for pool in _children(_child(module, "m"))]
    return _run(module, torch.cat((x, *pooled), 1), "cv2")


def _sppf(module: Inert, x: Tensor) -> Any:
    state = module.state
    pooled = [_run(module, x, "cv1")]
    for _ in range(state.get("n", 3)):
        pooled.append(_run(module, pooled[-1], "m"))
    y = _run(module, torch.cat(pooled, 1), "cv2")
    return y + x if state.get("add", False) else y


def _max_pool(module: Inert, x: Tensor) -> Tensor:
    state = module.state
    return F.max_pool2d(
        x, state["kernel_size"], state["stride"], state["padding"], ceil_mode=state["ceil_mode"]
    )


def _upsample(module: Inert, x: Tensor) -> Tensor:
    state = module.state
    size = state["size"]
    scale = None if size is not None else state["scale_factor"]
    return F.interpolate(x, size, scale, state["mode"], state["align_corners"])


def _sequence(module: Inert, x: Any) -> Any:
    for child in _children(module):
        x = _forward(child, x)
    return x


def _classify(module: Inert, x: Any) -> Tensor:
    x = torch.cat(x, 1) if isinstance(x, list) else x
    logits: Tensor = _forward(_child(module, "linear"), _run(module, x, "conv").mean((2, 3)))
    return logits


def _linear(module: Inert, x: Tensor) -> Tensor:
    return x @ _required(module, "weight").T + _required(module, "bias")


def _detect(module: Inert, maps: Sequence[Tensor]) -> Tensor:
    if "dfl" in module.state["_modules"]:
        return _detect_without_anchors(module, maps)
    classes, rows = module.state["nc"], []
    anchors, strides = _required(module, "anchors"), strides_of(module)
    for conv, x, sides, stride in zip(
        _children(_child(module, "m")), maps, anchors, strides, strict=True
    ):
        y = _forward(conv, x)
        n, _, height, width = y.shape
        y = y.reshape(n, len(sides), classes + 5, height * width).sigmoid()
        column = torch.arange(width).repeat(height)
        line = torch.arange(height).repeat_interleave(width)
        for anchor, cells in zip(sides, y.unbind(1), strict=True):  # [n, 5 + classes, h * w]
            rows.append(
                torch.stack(
                    [
                        (cells[:, 0] * 2 - 0.5 + column) * stride,
                        (cells[:, 1] * 2 - 0.5 + line) * stride,
                        (cells[:, 2] * 2) ** 2 * anchor[0] * stride,
                        (cells[:, 3] * 2) ** 2 * anchor[1] * stride,
                        *cells[:, 4:].unbind(1),
                    ],
                    2,
                )
            )
    return torch.cat(rows, 1)


def _detect_without_anchors(module: Inert, maps: Sequence[Tensor]) -> Tensor:
    columns = []
    boxes, classes = _children(_child(module, "cv2")), _children(_child(module, "cv3"))
    for box, scores, x, stride in zip(boxes, classes, maps, strides_of(module), strict=True):
        height, width = x.shape[2:]
        sides = _forward(box, x).flatten(2)  # [n, 4 * bins, h * w]
        bins = sides.unflatten(1, (4, -1)).softmax(2)
        left, top, right, bottom = (
            (bins * torch.arange(bins.shape[2])[:, None]).sum(2) * stride
        ).unbind(1)
        x_center = (torch.arange(width).repeat(height) + 0.5) * stride
        y_center = (torch.arange(height).repeat_interleave(width) + 0.5) * stride
        place = (
            x_center + (right - left) / 2,
            y_center + (bottom - top) / 2,
            left + right,
            top + bottom,
        )
        scored = _forward(scores, x).flatten(2).sigmoid()
        columns.append(torch.cat((torch.stack(place, 1), scored), 1))
    return torch.cat(columns, 2)


def strides_of(module: Inert) -> list[float]:
    """Return a head's strides, in pixels per cell; raises CheckpointError if it stores none."""
    stored = module.state.get("stride")
    if not isinstance(stored, StoredTensor):
        raise CheckpointError("the checkpoint's head has no strides")
    return [float(stride) for stride in stored.tensor()]


_FORWARDS: dict[str, Forward] = {
    "Conv2d": _conv2d,
    "BatchNorm2d": _batch_norm,
    "SyncBatchNorm": _batch_norm,
    "SiLU": lambda module, x: F.silu(x),
    "ReLU": lambda module, x: F.relu(x),
    "LeakyReLU": lambda module, x: F.leaky_relu(x, module.state["negative_slope"]),
    "Hardswish": lambda module, x: F.hardswish(x),
    "Identity": lambda module, x: x,
    "MaxPool2d": _max_pool,
    "Upsample": _upsample,
    "Sequential": _sequence,
    "Linear": _linear,
    "Conv": _conv,
    "DWConv": _conv,
    "Focus": _focus,
    "Bottleneck": _bottleneck,
    "BottleneckCSP": _bottleneck_csp,
    "C3": _c3,
    "C3k": _c3,
    "C2f": _c2f,
    "C3k2": _c2f,
    "C2PSA": _c2psa,
    "PSABlock": _psa_block,
    "Attention": _attention,
    "SPP": _spp,
    "SPPF": _sppf,
    "Concat": lambda module, x: torch.cat(x, module.state["d"]),
    "Classify": _classify,
    "Detect": _detect,
}
