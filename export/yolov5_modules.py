"""YOLOv5's network (v6.0 to v7.0), built from its own description: backbone, head, multiples.

Our own blocks, with the names that checkpoints use: those of `ultralytics` have changed
under YOLOv5 (SPPF lost its first activation), and these few need nothing but torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from export.errors import ExportError

# [from, repeats, module, arguments], as in models/yolov5*.yaml of ultralytics/yolov5.
Layer = Sequence[Any]

# Depth and width multiples of each size; the same source.
MULTIPLES = {
    "n": (0.33, 0.25),
    "s": (0.33, 0.5),
    "m": (0.67, 0.75),
    "l": (1, 1),
    "x": (1.33, 1.25),
}

# Detecting at three scales, strides 8 to 32 (640 px), and at four, strides 8 to 64 (1280 px).
P5_ANCHORS = (
    (10, 13, 16, 30, 33, 23),
    (30, 61, 62, 45, 59, 119),
    (116, 90, 156, 198, 373, 326),
)
P6_ANCHORS = (
    (19, 27, 44, 40, 38, 94),
    (96, 68, 86, 152, 180, 137),
    (140, 301, 303, 264, 238, 542),
    (436, 615, 739, 380, 925, 792),
)
_STEM: list[Layer] = [
    [-1, 1, "Conv", [64, 6, 2, 2]],
    [-1, 1, "Conv", [128, 3, 2]],
    [-1, 3, "C3", [128]],
    [-1, 1, "Conv", [256, 3, 2]],
    [-1, 6, "C3", [256]],
    [-1, 1, "Conv", [512, 3, 2]],
    [-1, 9, "C3", [512]],
]
_P5_END: list[Layer] = [[-1, 1, "Conv", [1024, 3, 2]], [-1, 3, "C3", [1024]]]
_P6_END: list[Layer] = [[-1, 1, "Conv", [768, 3, 2]], [-1, 3, "C3", [768]], *_P5_END]
_SPPF: list[Layer] = [[-1, 1, "SPPF", [1024, 5]]]


def _up(skip: int, squeeze: int, width: int) -> list[Layer]:
    """Return the layers that go one scale up and join the backbone's layer `skip`."""
    return [
        [-1, 1, "Conv", [squeeze, 1, 1]],
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, skip], 1, "Concat", [1]],
        [-1, 3, "C3", [width, False]],
    ]


def _down(skip: int, squeeze: int, width: int) -> list[Layer]:
    """Return the layers that go one scale down and join the layer `skip`."""
    return [
        [-1, 1, "Conv", [squeeze, 3, 2]],
        [[-1, skip], 1, "Concat", [1]],
        [-1, 3, "C3", [width, False]],
    ]


def describe(size: str, classes: int, p6: bool = False) -> dict[str, Any]:
    """Return the description of a published size: n, s, m, l or x, with three or four scales."""
    depth, width = MULTIPLES[size]
    if p6:
        head = [*_up(8, 768, 768), *_up(6, 512, 512), *_up(4, 256, 256)]
        head += [*_down(20, 256, 512), *_down(16, 512, 768), *_down(12, 768, 1024)]
        detect: Layer = [[23, 26, 29, 32], 1, "Detect", ["nc", "anchors"]]
    else:
        head = [
            *_up(6, 512, 512),
            *_up(4, 256, 256),
            *_down(14, 256, 512),
            *_down(10, 512, 1024),
        ]
        detect = [[17, 20, 23], 1, "Detect", ["nc", "anchors"]]
    return {
        "nc": classes,
        "depth_multiple": depth,
        "width_multiple": width,
        "anchors": P6_ANCHORS if p6 else P5_ANCHORS,
        "backbone": [*_STEM, *(_P6_END if p6 else _P5_END), *_SPPF],
        "head": [*head, detect],
    }


class Conv(nn.Module):
    """Convolution without bias, batch norm, SiLU."""

    def __init__(self, c_in: int, c_out: int, k: int = 1, s: int = 1, p: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, k, s, k // 2 if p is None else p, bias=False)
        # Checkpoints don't carry eps; YOLOv5 trains with this one instead of torch's 1e-5.
        self.bn = nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """A 1x1 and a 3x3 convolution, around which the input may pass."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels, 1)
        self.cv2 = Conv(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y


class C3(nn.Module):
    """A cross-stage partial block with three convolutions: half goes through bottlenecks."""

    def __init__(self, c_in: int, c_out: int, n: int = 1, shortcut: bool = True) -> None:
        super().__init__()
        half = c_out // 2
        self.cv1 = Conv(c_in, half)
        self.cv2 = Conv(c_in, half)
        self.cv3 = Conv(2 * half, c_out)
        self.m = nn.Sequential(*(Bottleneck(half, shortcut) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class SPPF(nn.Module):
    """Spatial pyramid pooling, fast: three poolings in a row instead of three sizes."""

    def __init__(self, c_in: int, c_out: int, k: int = 5) -> None:
        super().__init__()
        self.cv1 = Conv(c_in, c_in // 2)
        self.cv2 = Conv(c_in // 2 * 4, c_out)
        self.m = nn.MaxPool2d(k, 1, k // 2)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [self.cv1(x)]
        for _ in range(3):
            pooled.append(self.m(pooled[-1]))
        return self.cv2(torch.cat(pooled, 1))


class Concat(nn.Module):
    """Joins feature maps by channel."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat(maps, 1)


class Detect(nn.Module):
    """The anchor-based head: one 1x1 convolution per scale, and the decoding of its maps.

    anchors: a buffer [scales, anchors, 2] in cells. strides: pixels per cell, by scale.
    """

    anchors: Tensor

    def __init__(self, classes: int, anchors: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.outputs = classes + 5
        self.m = nn.ModuleList(nn.Conv2d(width, self.outputs * anchors, 1) for width in widths)
        self.register_buffer("anchors", torch.zeros(len(widths), anchors, 2))
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
    """The head, split: in the graph only objectness, so that the rest is computed where it counts.

    It gives, each scale by scale: the logits of objectness [batch, anchors, h, w], the maps that it
    reads [batch, h, w, channels], and the head's weights, its bias last, [batch, anchors * outputs,
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

    def __init__(self, c_in: int, classes: int) -> None:
        super().__init__()
        self.conv = Conv(c_in, 1280)
        self.linear = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.conv(x).mean((2, 3)))


@dataclass(frozen=True, slots=True)
class _Step:
    """Where one layer takes its input from: indices of earlier layers, -1 the last."""

    sources: tuple[int, ...]


class Network(nn.Module):
    """Layers that may read any earlier layer's output; the last is the head."""

    def __init__(self, layers: Sequence[nn.Module], steps: Sequence[_Step]) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)
        self._steps = tuple(steps)

    def forward(self, x: Tensor) -> Any:
        """Return what the head gives for images [batch, 3, height, width] in [0, 1]."""
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
        """Return a network of the same layers but for the last, in evaluation mode."""
        return Network([*self.model[:-1], head], self._steps).eval()


def build_detector(description: dict[str, Any]) -> Network:
    """Return the network of a description, in evaluation mode, its strides measured.

    Raises ExportError for a module that YOLOv5's own models don't use.
    """
    layers, steps = _layers([*description["backbone"], *description["head"]], description)
    network = Network(layers, steps)
    head = network.head
    if not isinstance(head, Detect):
        raise ExportError("the checkpoint's description ends in no Detect layer")
    network.eval()
    with torch.inference_mode():
        side = 256
        head.strides = tuple(side // raw.shape[2] for raw in network(torch.zeros(1, 3, side, side)))
    if isinstance(description["anchors"], Sequence):
        anchors = torch.tensor(description["anchors"], dtype=torch.float32)
        scale = torch.tensor(head.strides, dtype=torch.float32)[:, None, None]
        head.anchors.copy_(anchors.view(head.anchors.shape) / scale)
    return network


def build_classifier(description: dict[str, Any], classes: int) -> Network:
    """Return the classifier of a description: its backbone, whose pooling becomes the head."""
    backbone = description["backbone"]
    # As YOLOv5 does it: the tenth layer (SPPF, or the last of a shorter one) gives way.
    body = list(backbone[: min(10, len(backbone)) - 1])
    layers, steps = _layers(body, description)
    width = _width_of(layers[-1])
    return Network([*layers, Classify(width, classes)], [*steps, _Step((-1,))]).eval()


def _layers(
    layers: Sequence[Layer], description: dict[str, Any]
) -> tuple[list[nn.Module], list[_Step]]:
    depth, width = description["depth_multiple"], description["width_multiple"]
    anchors = description["anchors"]
    per_scale = len(anchors[0]) // 2 if isinstance(anchors, Sequence) else int(anchors)
    widths: list[int] = []
    modules: list[nn.Module] = []
    steps: list[_Step] = []
    for source, repeats, kind, arguments in layers:
        sources = tuple(source) if isinstance(source, Sequence) else (source,)
        c_in = [widths[s] if widths else 3 for s in sources]
        n = max(round(repeats * depth), 1) if repeats > 1 else repeats
        module: nn.Module
        match kind:
            case "Conv" | "C3" | "SPPF":
                c_out = math.ceil(arguments[0] * width / 8) * 8
                rest = list(arguments[1:])
                if kind == "C3":
                    module = C3(c_in[0], c_out, n, *rest)
                else:
                    module = (Conv if kind == "Conv" else SPPF)(c_in[0], c_out, *rest)
            case "nn.Upsample":
                # YOLOv5's own files say None as a word.
                c_out, module = c_in[0], nn.Upsample(None, *arguments[1:])
            case "Concat":
                c_out, module = sum(c_in), Concat()
            case "Detect":
                c_out, module = 0, Detect(description["nc"], per_scale, c_in)
            case _:
                raise ExportError(
                    f"the checkpoint uses the module {kind}; YOLOv5's own models use Conv, C3, "
                    "SPPF, nn.Upsample, Concat and Detect only"
                )
        modules.append(module)
        steps.append(_Step(sources))
        widths.append(c_out)
    return modules, steps


def _width_of(layer: nn.Module) -> int:
    """Return how many channels a layer gives."""
    last = layer.cv3 if isinstance(layer, C3) else layer
    assert isinstance(last, Conv)
    return last.conv.out_channels
