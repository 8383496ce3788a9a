"""The published networks of ultralytics/yolov5, as its models/yolov5*.yaml describe them."""

import math
from collections.abc import Sequence
from typing import Any

from visavis_export.checkpoints.description import Layer

SIZES = "nsmlx"
# Depth and width multiples of each size.
MULTIPLES = {
    "n": (0.33, 0.25),
    "s": (0.33, 0.5),
    "m": (0.67, 0.75),
    "l": (1, 1),
    "x": (1.33, 1.25),
}
# Releases whose networks differ; "": v6.0 to v7.0. The last two differ only in the activation.
RELEASES = ("", "v4.0 to v5.0", "v3.0 to v3.1", "v2.0")

# P5 detects at three scales, strides 8 to 32 (640 px); P6 at four, strides 8 to 64 (1280 px).
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


def describe(size: str, classes: int, p6: bool = False, release: str = "") -> dict[str, Any]:
    """Return the description of a published network.

    size: n, s, m, l or x. classes: the number of classes. p6: True for four scales instead of
    three. release: one of RELEASES.
    """
    depth, width = MULTIPLES[size]
    block = "BottleneckCSP" if release[:2] in ("v2", "v3") else "C3"
    if p6:
        head = [*_up(8, 768, 768, block), *_up(6, 512, 512, block), *_up(4, 256, 256, block)]
        head += [*_down(20, 256, 512, block), *_down(16, 512, 768, block)]
        head += _down(12, 768, 1024, block)
        detect: Layer = [[23, 26, 29, 32], 1, "Detect", ["nc", "anchors"]]
    else:
        head = [*_up(6, 512, 512, block), *_up(4, 256, 256, block)]
        head += [*_down(14, 256, 512, block), *_down(10, 512, 1024, block)]
        detect = [[17, 20, 23], 1, "Detect", ["nc", "anchors"]]
    return {
        "nc": classes,
        "depth_multiple": depth,
        "width_multiple": width,
        "anchors": P6_ANCHORS if p6 else P5_ANCHORS,
        "backbone": _backbone(p6, block) if release else _backbone_of_6_0(p6),
        "head": [*head, detect],
    }


def widened(channels: int, width: float) -> int:
    """Return a layer's channels at a width multiple."""
    return math.ceil(channels * width / 8) * 8


def deepened(repeats: int, depth: float) -> int:
    """Return a block's repeats at a depth multiple."""
    return max(round(repeats * depth), 1) if repeats > 1 else repeats


def _backbone_of_6_0(p6: bool) -> list[Layer]:
    p6_layers: Sequence[Layer] = [[-1, 1, "Conv", [768, 3, 2]], [-1, 3, "C3", [768]]]
    return [
        [-1, 1, "Conv", [64, 6, 2, 2]],
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 3, "C3", [128]],
        [-1, 1, "Conv", [256, 3, 2]],
        [-1, 6, "C3", [256]],
        [-1, 1, "Conv", [512, 3, 2]],
        [-1, 9, "C3", [512]],
        *(p6_layers if p6 else ()),
        [-1, 1, "Conv", [1024, 3, 2]],
        [-1, 3, "C3", [1024]],
        [-1, 1, "SPPF", [1024, 5]],
    ]


def _backbone(p6: bool, block: str) -> list[Layer]:
    """Return the backbone of the releases before v6.0."""
    p6_layers: Sequence[Layer] = [[-1, 1, "Conv", [768, 3, 2]], [-1, 3, block, [768]]]
    return [
        [-1, 1, "Focus", [64, 3]],
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 3, block, [128]],
        [-1, 1, "Conv", [256, 3, 2]],
        [-1, 9, block, [256]],
        [-1, 1, "Conv", [512, 3, 2]],
        [-1, 9, block, [512]],
        *(p6_layers if p6 else ()),
        [-1, 1, "Conv", [1024, 3, 2]],
        [-1, 1, "SPP", [1024, [3, 5, 7] if p6 else [5, 9, 13]]],
        [-1, 3, block, [1024, False]],
    ]


def _up(skip: int, squeeze: int, width: int, block: str) -> list[Layer]:
    """Return the layers that upsample once and concatenate the backbone's layer `skip`."""
    return [
        [-1, 1, "Conv", [squeeze, 1, 1]],
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, skip], 1, "Concat", [1]],
        [-1, 3, block, [width, False]],
    ]


def _down(skip: int, squeeze: int, width: int, block: str) -> list[Layer]:
    """Return the layers that downsample once and concatenate the layer `skip`."""
    return [
        [-1, 1, "Conv", [squeeze, 3, 2]],
        [[-1, skip], 1, "Concat", [1]],
        [-1, 3, block, [width, False]],
    ]
