"""YOLOv5's network, built from a checkpoint's modules or from a published description.

The blocks are implemented here, with the attribute names of checkpoints: those of `ultralytics`
have changed since YOLOv5 (SPPF has lost its first activation), and these need only torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visavis_export.checkpoints import modules
from visavis_export.checkpoints.description import Layer
from visavis_export.checkpoints.pickled import Inert, Name, StoredTensor, shown
from visavis_export.checkpoints.published import deepened, widened
from visavis_export.errors import CheckpointError


class Conv(nn.Module):
    """Convolution, batch norm (None if fused into the convolution), activation."""

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None, act: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.bn = bn
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.act(y if self.bn is None else self.bn(y))


class Focus(nn.Module):
    """Space-to-depth by 2, then a convolution: the stem of the releases before v6.0."""

    def __init__(self, conv: Conv) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[..., line::2, column::2] for column in (0, 1) for line in (0, 1)]
        return self.conv(torch.cat(parts, 1))


class Bottleneck(nn.Module):
    """Two convolutions with an optional shortcut."""

    def __init__(self, cv1: Conv, cv2: Conv, shortcut: bool) -> None:
        super().__init__()
        self.cv1 = cv1
        self.cv2 = cv2
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y


class C3(nn.Module):
    """A cross-stage partial block with three convolutions: half the channels pass bottlenecks."""

    def __init__(self, cv1: Conv, cv2: Conv, cv3: Conv, m: Sequence[nn.Module]) -> None:
        super().__init__()
        self.cv1 = cv1
        self.cv2 = cv2
        self.cv3 = cv3
        self.m = nn.Sequential(*m)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class BottleneckCSP(nn.Module):
    """A cross-stage partial block with four convolutions, of the releases before v4.0."""

    def __init__(
        self,
        outer: tuple[Conv, Conv],
        inner: tuple[nn.Conv2d, nn.Conv2d],
        bn: nn.BatchNorm2d,
        act: nn.Module,
        m: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        self.cv1, self.cv4 = outer
        self.cv2, self.cv3 = inner
        self.bn = bn
        self.act = act
        self.m = nn.Sequential(*m)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1)
        return self.cv4(self.act(self.bn(joined)))


class SPP(nn.Module):
    """Spatial pyramid pooling: concatenates the map with max poolings of several sizes."""

    def __init__(self, cv1: Conv, cv2: Conv, m: Sequence[nn.MaxPool2d]) -> None:
        super().__init__()
        self.cv1 = cv1
        self.cv2 = cv2
        self.m = nn.ModuleList(m)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))


class SPPF(nn.Module):
    """Spatial pyramid pooling, fast: three chained poolings instead of three sizes."""

    def __init__(self, cv1: Conv, cv2: Conv, m: nn.MaxPool2d) -> None:
        super().__init__()
        self.cv1 = cv1
        self.cv2 = cv2
        self.m = m

    def forward(self, x: Tensor) -> Tensor:
        pooled = [self.cv1(x)]
        for _ in range(3):
            pooled.append(self.m(pooled[-1]))
        return self.cv2(torch.cat(pooled, 1))


class Concat(nn.Module):
    """Concatenates feature maps by channel."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat(maps, 1)


class Detect(nn.Module):
    """The anchor-based head: one 1x1 convolution per scale, and the decoding of its maps.

    anchors: a buffer [scales, anchors, 2], in cells. strides: pixels per cell, by scale.
    """

    anchors: Tensor

    def __init__(self, classes: int, anchors: int, m: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        self.outputs = classes + 5
        self.m = nn.ModuleList(m)
        self.register_buffer("anchors", torch.zeros(len(m), anchors, 2))
        self.strides: tuple[int, ...] = ()

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, ...]:
        """Return the raw maps [batch, anchors * (5 + classes), h, w], one per scale."""
        return tuple(conv(x) for conv, x in zip(self.m, maps, strict=True))

    def decode(self, raw: Sequence[Tensor]) -> Tensor:
        """Return rows [batch, n, 5 + classes]: cxcywh in pixels, objectness, class scores."""
        rows = []
        for head, anchors, stride in zip(raw, self.anchors, self.strides, strict=True):
            batch, _, height, width = head.shape
            y = head.view(batch, len(anchors), self.outputs, height, width)
            y = y.permute(0, 1, 3, 4, 2).sigmoid()  # [batch, anchors, h, w, 5 + classes]
            grid_y, grid_x = torch.meshgrid(
                torch.arange(height), torch.arange(width), indexing="ij"
            )
            grid = torch.stack((grid_x, grid_y), 2) - 0.5
            center = (y[..., :2] * 2 + grid) * stride
            size = (y[..., 2:4] * 2) ** 2 * (anchors * stride)[:, None, None]
            decoded = torch.cat((center, size, y[..., 4:]), 4)
            rows.append(decoded.reshape(batch, -1, self.outputs))
        return torch.cat(rows, 1)


class SplitDetect(nn.Module):
    """The head, split: the graph computes only objectness, the server the rest of likely cells.

    Outputs, each by scale: the logits of objectness [batch, anchors, h, w], the head's input maps
    [batch, h, w, channels], and its weights with the bias last, [batch, anchors * outputs,
    channels + 1].
    """

    def __init__(self, head: Detect) -> None:
        super().__init__()
        self.objectness = nn.ModuleList()
        for index, conv in enumerate(head.m):
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            weights = torch.cat((conv.weight.flatten(1), conv.bias[:, None]), 1).detach()
            self.register_buffer(f"weights_{index}", weights[None])
            own = weights[4 :: head.outputs]
            objectness = nn.Conv2d(conv.in_channels, len(own), 1)
            objectness.weight = nn.Parameter(own[:, :-1, None, None].clone())
            objectness.bias = nn.Parameter(own[:, -1].clone())
            self.objectness.append(objectness)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, ...]:
        """Return objectness, maps and weights."""
        return (
            *(conv(x) for conv, x in zip(self.objectness, maps, strict=True)),
            *(x.permute(0, 2, 3, 1) for x in maps),
            *(weights.expand(maps[0].shape[0], -1, -1) for weights in self.buffers()),
        )


class Classify(nn.Module):
    """The classification head: convolution, mean over the image, linear layer."""

    def __init__(self, conv: Conv, linear: nn.Linear) -> None:
        super().__init__()
        self.conv = conv
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.conv(x).mean((2, 3)))


class ExplainedClassify(nn.Module):
    """A classification head that returns, beside the logits, the features before the mean."""

    def __init__(self, head: Classify) -> None:
        super().__init__()
        self.conv = head.conv
        self.linear = head.linear

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits, and the features [batch, channels, h, w]."""
        features = self.conv(x)
        return self.linear(features.mean((2, 3))), features


@dataclass(frozen=True, slots=True)
class _Step:
    """The sources of a layer: indices of earlier layers; -1: the previous layer."""

    sources: tuple[int, ...]


class Network(nn.Module):
    """Layers that may read any earlier layer's output; the last one is the head."""

    def __init__(self, layers: Sequence[nn.Module], steps: Sequence[_Step]) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)
        self._steps = tuple(steps)

    def forward(self, x: Tensor) -> Any:
        """Return the head's output for images [batch, 3, height, width] in [0, 1]."""
        outputs: list[Any] = []
        for layer, step in zip(self.model, self._steps, strict=True):
            inputs = [outputs[s] if s >= 0 or outputs else x for s in step.sources]
            several = isinstance(layer, Concat | Detect | SplitDetect)
            outputs.append(layer(inputs if several else inputs[0]))
        return outputs[-1]

    @property
    def head(self) -> nn.Module:
        """The last layer."""
        return self.model[-1]

    def with_head(self, head: nn.Module) -> "Network":
        """Return a network with another head, in evaluation mode; shares the other layers."""
        return Network([*self.model[:-1], head], self._steps).eval()


def build_detector(description: dict[str, Any]) -> Network:
    """Return the network of a published description, in evaluation mode."""
    layers, steps = _layers([*description["backbone"], *description["head"]], description)
    network = Network(layers, steps).eval()
    head = network.head
    assert isinstance(head, Detect)
    head.strides = _measured(network)
    anchors = torch.tensor(description["anchors"], dtype=torch.float32)
    scale = torch.tensor(head.strides, dtype=torch.float32)[:, None, None]
    head.anchors.copy_(anchors.view(head.anchors.shape) / scale)
    return network


def build_classifier(description: dict[str, Any], classes: int) -> Network:
    """Return the classifier of a description: its backbone with a head instead of the pooling."""
    backbone = description["backbone"]
    # YOLOv5 replaces the tenth layer (SPPF), or the last one of a shorter backbone.
    layers, steps = _layers(backbone[: min(10, len(backbone)) - 1], description)
    last = layers[-1].cv3 if isinstance(layers[-1], C3) else layers[-1]
    assert isinstance(last, Conv)
    # YOLOv5 sets eps before it adds the head, which therefore keeps torch's default.
    head = Classify(_conv(last.conv.out_channels, 1280, eps=1e-5), nn.Linear(1280, classes))
    return Network([*layers, head], [*steps, _Step((-1,))]).eval()


def read_network(model: Inert) -> Network:
    """Return the network that a checkpoint's modules describe, in evaluation mode, on "meta".

    Its tensors are not loaded yet and take no memory. Raises CheckpointError for an unknown module
    or attribute, and for layers that don't fit together.
    """
    modules.attributes(model, **dict.fromkeys(model.state, lambda _: True))
    layers, steps = [], []
    with torch.device("meta"):
        for index, layer in enumerate(modules.sequence(*modules.children(model, "model"))):
            source = layer.state.get("f")
            sources = source if isinstance(source, list | tuple) else [source]
            if not all(type(one) is int and -1 <= one < index for one in sources):
                raise CheckpointError(f"layer {index} has invalid sources; save it again")
            layers.append(_read_layer(layer))
            steps.append(_Step(tuple(sources)))
            several = isinstance(layers[-1], Concat | Detect)
            if several != isinstance(source, list | tuple):
                raise CheckpointError(
                    f"layer {index} has {len(sources)} sources, which its class does not support"
                )
        network = Network(layers, steps).eval()
        try:
            head = network.head
            if isinstance(head, Detect):
                head.strides = _measured(network)
            else:
                network(torch.zeros(1, 3, 224, 224))
        except (RuntimeError, TypeError, AttributeError, IndexError) as error:
            raise CheckpointError(
                f"its layers don't fit together: {shown(str(error), 100)}; save it again"
            ) from None
    if isinstance(head, Detect):
        _check_strides(modules.sequence(*modules.children(model, "model"))[-1], head.strides)
    return network


def _measured(network: Network) -> tuple[int, ...]:
    """Return the strides of a network's scales."""
    side = 256
    with torch.inference_mode():
        return tuple(side // raw.shape[2] for raw in network(torch.zeros(1, 3, side, side)))


def _check_strides(head: Inert, measured: tuple[int, ...]) -> None:
    stored = head.state.get("stride")
    strides = stored.tensor().tolist() if isinstance(stored, StoredTensor) else None
    if strides != list(measured):
        raise CheckpointError(
            f"its head has the strides {strides}, but its layers have {list(measured)}; save it "
            "again"
        )


def _read_layer(layer: Inert) -> nn.Module:
    match modules.kind(layer):
        case "Conv":
            return _read_conv(layer)
        case "Focus":
            modules.attributes(layer)
            return Focus(*map(_read_conv, modules.children(layer, "conv")))
        case "C3":
            modules.attributes(layer)
            *convs, inner = modules.children(layer, "cv1", "cv2", "cv3", "m")
            first, second, third = map(_read_conv, convs)
            return C3(
                first, second, third, [_read_bottleneck(one) for one in modules.sequence(inner)]
            )
        case "BottleneckCSP":
            modules.attributes(layer)
            names = ("cv1", "cv4", "cv2", "cv3", "bn", "act", "m")
            cv1, cv4, cv2, cv3, bn, act, inner = modules.children(layer, *names)
            return BottleneckCSP(
                (_read_conv(cv1), _read_conv(cv4)),
                (modules.conv2d(cv2), modules.conv2d(cv3)),
                modules.batch_norm(bn),
                modules.activation(act),
                [_read_bottleneck(one) for one in modules.sequence(inner)],
            )
        case "Bottleneck":
            return _read_bottleneck(layer)
        case "Sequential":  # repeated layers
            return nn.Sequential(*map(_read_layer, modules.sequence(layer)))
        case "SPP":
            modules.attributes(layer)
            cv1, cv2, pools = modules.children(layer, "cv1", "cv2", "m")
            sizes = [modules.max_pool(pool) for pool in modules.sequence(pools)]
            return SPP(_read_conv(cv1), _read_conv(cv2), sizes)
        case "SPPF":
            modules.attributes(layer)
            cv1, cv2, pool = modules.children(layer, "cv1", "cv2", "m")
            return SPPF(_read_conv(cv1), _read_conv(cv2), modules.max_pool(pool))
        case "Upsample":
            return modules.upsample(layer)
        case "Concat":
            modules.attributes(layer, d=(1,))
            return Concat()
        case "Detect":
            return _read_detect(layer)
        case "Classify":
            return _read_classify(layer)
    raise modules.unknown(layer)


def _read_conv(module: Inert) -> Conv:
    if modules.kind(module) != "Conv":
        raise modules.unknown(module)
    modules.attributes(module, forward=(Name("forward_fuse"),))
    if "bn" in module.state["_modules"]:
        conv, bn, act = modules.children(module, "conv", "bn", "act")
        return Conv(modules.conv2d(conv), modules.batch_norm(bn), modules.activation(act))
    conv, act = modules.children(module, "conv", "act")
    return Conv(modules.conv2d(conv), None, modules.activation(act))


def _read_bottleneck(module: Inert) -> Bottleneck:
    if modules.kind(module) != "Bottleneck":
        raise modules.unknown(module)
    (shortcut,) = modules.required(modules.attributes(module, add=(True, False)), module, "add")
    cv1, cv2 = map(_read_conv, modules.children(module, "cv1", "cv2"))
    return Bottleneck(cv1, cv2, shortcut)


def _read_detect(layer: Inert) -> Detect:
    anything = dict.fromkeys(
        # State of the last run, and how to run; these do not affect the answer.
        ("grid", "anchor_grid", "inplace", "onnx_dynamic", "dynamic", "export", "stride"),
        lambda _: True,
    )
    natural = dict.fromkeys(("nc", "no", "nl", "na"), modules.is_natural)
    own = modules.attributes(layer, **anything, **natural)
    classes, outputs, scales, anchors = modules.required(own, layer, "nc", "no", "nl", "na")
    convs = [modules.conv2d(conv) for conv in modules.sequence(*modules.children(layer, "m"))]
    stored = layer.state["_buffers"].get("anchors")
    shape = stored.shape if isinstance(stored, StoredTensor) else ()
    fits = shape == (scales, anchors, 2) and outputs == classes + 5 and len(convs) == scales
    if not fits or any(conv.out_channels != anchors * outputs for conv in convs):
        raise CheckpointError(
            f"its head of {classes} classes, {scales} scales and {anchors} anchors doesn't fit "
            f"its anchors of shape {list(shape)} or its {len(convs)} convolutions; save it again"
        )
    for conv in convs:
        plain = conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.padding == (0, 0)
        if not plain or conv.groups > 1 or conv.bias is None:
            raise CheckpointError(
                "its head's convolutions are not 1 × 1 with a bias, as YOLOv5's are; export a "
                "network with other parts to ONNX with its own project's code"
            )
    _check_anchors(layer, stored)
    return Detect(classes, anchors, convs)


def _check_anchors(head: Inert, anchors: object) -> None:
    """Raise CheckpointError if a head's anchors in cells and in pixels contradict each other.

    Releases before v6.0 compute with the anchors in pixels.
    """
    in_pixels, stride = head.state["_buffers"].get("anchor_grid"), head.state.get("stride")
    if (
        isinstance(anchors, StoredTensor)
        and isinstance(in_pixels, StoredTensor)
        and isinstance(stride, StoredTensor)
    ):
        cells, pixels = anchors.tensor().float(), in_pixels.tensor().float()
        if pixels.numel() == cells.numel() and stride.elements == len(cells):
            computed = cells * stride.tensor().float().view(-1, 1, 1)
            if torch.allclose(pixels.view_as(cells), computed, rtol=1e-2):
                return
        raise CheckpointError(
            "its head holds other anchors in anchor_grid than in anchors; make anchor_grid equal "
            "to anchors times the strides and save it again"
        )


def _read_classify(layer: Inert) -> Classify:
    modules.attributes(layer)
    conv, pool, drop, linear = modules.children(layer, "conv", "pool", "drop", "linear")
    modules.attributes(pool, output_size=(1, (1, 1)))
    modules.attributes(drop, p=lambda _: True, inplace=(True, False))
    if (modules.kind(pool), modules.kind(drop)) != ("AdaptiveAvgPool2d", "Dropout"):
        raise modules.unknown(pool)
    return Classify(_read_conv(conv), modules.linear(linear))


def _layers(
    layers: Sequence[Layer], description: dict[str, Any]
) -> tuple[list[nn.Module], list[_Step]]:
    depth, width = description["depth_multiple"], description["width_multiple"]
    widths: list[int] = []
    built: list[nn.Module] = []
    steps: list[_Step] = []
    for source, repeats, kind, arguments in layers:
        sources = tuple(source) if isinstance(source, Sequence) else (source,)
        c_in = [widths[s] if widths else 3 for s in sources]
        n = deepened(repeats, depth)
        c_out = widened(arguments[0], width) if kind in ("Conv", "C3", "SPPF") else 0
        module: nn.Module
        match kind:
            case "Conv":
                module = _conv(c_in[0], c_out, *arguments[1:])
            case "C3":
                half, shortcut = c_out // 2, arguments[1:] != [False]
                cv1, cv2 = _conv(c_in[0], half), _conv(c_in[0], half)
                cv3 = _conv(2 * half, c_out)
                inner = [
                    Bottleneck(_conv(half, half), _conv(half, half, 3), shortcut) for _ in range(n)
                ]
                module = C3(cv1, cv2, cv3, inner)
            case "SPPF":
                half, k = c_in[0] // 2, arguments[1]
                pool = nn.MaxPool2d(k, 1, k // 2)
                module = SPPF(_conv(c_in[0], half), _conv(half * 4, c_out), pool)
            case "nn.Upsample":
                c_out, module = c_in[0], nn.Upsample(*arguments)
            case "Concat":
                c_out, module = sum(c_in), Concat()
            case _:
                anchors, classes = len(description["anchors"][0]) // 2, description["nc"]
                outputs = (classes + 5) * anchors
                module = Detect(classes, anchors, [nn.Conv2d(c, outputs, 1) for c in c_in])
        built.append(module)
        steps.append(_Step(sources))
        widths.append(c_out)
    return built, steps


def _conv(
    c_in: int, c_out: int, k: int = 1, s: int = 1, p: int | None = None, eps: float = 1e-3
) -> Conv:
    """Return a convolution with the eps and momentum of YOLOv5's training."""
    conv = nn.Conv2d(c_in, c_out, k, s, k // 2 if p is None else p, bias=False)
    return Conv(conv, nn.BatchNorm2d(c_out, eps=eps, momentum=0.03), nn.SiLU())
