"""A small version of the original YOLOv5, whose classes checkpoints are pickled from.

Follows models/common.py and models/yolo.py of ultralytics/yolov5 v7.0, and v5.0 and v3.1 for older
layers. It shares no code with the product, and so gives independent expected answers.
"""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

ANCHORS = [
    [10, 13, 16, 30, 33, 23],
    [30, 61, 62, 45, 59, 119],
    [116, 90, 156, 198, 373, 326],
]


class Conv(nn.Module):
    default_act: nn.Module = nn.SiLU()

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2 if p is None else p, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act = self.default_act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))

    def forward_fuse(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


class Focus(nn.Module):
    def __init__(self, c1: int, c2: int, k: int = 1) -> None:
        super().__init__()
        self.conv = Conv(c1 * 4, c2, k, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(
            torch.cat(
                [
                    x[..., ::2, ::2],
                    x[..., 1::2, ::2],
                    x[..., ::2, 1::2],
                    x[..., 1::2, 1::2],
                ],
                1,
            )
        )


class Bottleneck(nn.Module):
    def __init__(self, c1: int, c2: int, shortcut: bool = True) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c2, 1, 1)
        self.cv2 = Conv(c2, c2, 3, 1)
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x)) if self.add else self.cv2(self.cv1(x))


class C3(nn.Module):
    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True) -> None:
        super().__init__()
        c_ = c2 // 2
        self.cv1 = Conv(c1, c_, 1, 1)
        self.cv2 = Conv(c1, c_, 1, 1)
        self.cv3 = Conv(2 * c_, c2, 1)
        self.m = nn.Sequential(*(Bottleneck(c_, c_, shortcut) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class BottleneckCSP(nn.Module):
    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True) -> None:
        super().__init__()
        c_ = c2 // 2
        self.cv1 = Conv(c1, c_, 1, 1)
        self.cv2 = nn.Conv2d(c1, c_, 1, 1, bias=False)
        self.cv3 = nn.Conv2d(c_, c_, 1, 1, bias=False)
        self.cv4 = Conv(2 * c_, c2, 1, 1)
        self.bn = nn.BatchNorm2d(2 * c_)
        self.act = nn.LeakyReLU(0.1, inplace=True)
        self.m = nn.Sequential(*[Bottleneck(c_, c_, shortcut) for _ in range(n)])

    def forward(self, x: Tensor) -> Tensor:
        y1 = self.cv3(self.m(self.cv1(x)))
        y2 = self.cv2(x)
        return self.cv4(self.act(self.bn(torch.cat((y1, y2), dim=1))))


class SPP(nn.Module):
    def __init__(self, c1: int, c2: int, k: tuple[int, ...] = (5, 9, 13)) -> None:
        super().__init__()
        c_ = c1 // 2
        self.cv1 = Conv(c1, c_, 1, 1)
        self.cv2 = Conv(c_ * (len(k) + 1), c2, 1, 1)
        self.m = nn.ModuleList([nn.MaxPool2d(kernel_size=x, stride=1, padding=x // 2) for x in k])

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return self.cv2(torch.cat([x] + [m(x) for m in self.m], 1))


class GhostConv(nn.Module):
    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c2 // 2, k, s)
        self.cv2 = Conv(c2 // 2, c2 // 2, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv1(x)
        return torch.cat((y, self.cv2(y)), 1)


class SPPF(nn.Module):
    def __init__(self, c1: int, c2: int, k: int = 5) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c1 // 2, 1, 1)
        self.cv2 = Conv(c1 // 2 * 4, c2, 1, 1)
        self.m = nn.MaxPool2d(kernel_size=k, stride=1, padding=k // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        y1 = self.m(x)
        y2 = self.m(y1)
        return self.cv2(torch.cat((x, y1, y2, self.m(y2)), 1))


class Concat(nn.Module):
    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.d = dimension

    def forward(self, x: list[Tensor]) -> Tensor:
        return torch.cat(x, self.d)


class Detect(nn.Module):
    stride: Tensor
    anchors: Tensor

    def __init__(self, nc: int, anchors: list[list[float]], ch: list[int]) -> None:
        super().__init__()
        self.nc = nc
        self.no = nc + 5
        self.nl = len(anchors)
        self.na = len(anchors[0]) // 2
        self.grid = [torch.empty(0) for _ in range(self.nl)]
        self.anchor_grid = [torch.empty(0) for _ in range(self.nl)]
        self.register_buffer("anchors", torch.tensor(anchors).float().view(self.nl, -1, 2))
        self.m = nn.ModuleList(nn.Conv2d(x, self.no * self.na, 1) for x in ch)
        self.inplace = True

    def forward(self, x: list[Tensor]) -> Tensor:
        """Return rows [batch, n, 5 + classes], computed in the original's steps."""
        z = []
        for i in range(self.nl):
            y = self.m[i](x[i])
            bs, _, ny, nx = y.shape
            y = y.view(bs, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
            yv, xv = torch.meshgrid(torch.arange(ny), torch.arange(nx), indexing="ij")
            shape = 1, self.na, ny, nx, 2
            self.grid[i] = torch.stack((xv, yv), 2).expand(shape) - 0.5
            scaled = self.anchors[i] * self.stride[i]
            self.anchor_grid[i] = scaled.view((1, self.na, 1, 1, 2)).expand(shape)
            xy, wh, conf = y.sigmoid().split((2, 2, self.nc + 1), 4)
            xy = (xy * 2 + self.grid[i]) * self.stride[i]
            wh = (wh * 2) ** 2 * self.anchor_grid[i]
            z.append(torch.cat((xy, wh, conf), 4).view(bs, self.na * nx * ny, self.no))
        return torch.cat(z, 1)


class OldDetect(Detect):
    """The head of v3.0 to v5.0, with anchors in pixels in addition to those in cells."""

    def __init__(self, nc: int, anchors: list[list[float]], ch: list[int]) -> None:
        super().__init__(nc, anchors, ch)
        del self.anchor_grid, self.inplace
        self.export = False
        in_pixels = torch.tensor(anchors).float().view(self.nl, 1, -1, 1, 1, 2)
        self.register_buffer("anchor_grid", in_pixels)

    def forward(self, x: list[Tensor]) -> Tensor:
        z = []
        for i in range(self.nl):
            y = self.m[i](x[i])
            bs, _, ny, nx = y.shape
            y = y.view(bs, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
            yv, xv = torch.meshgrid([torch.arange(ny), torch.arange(nx)], indexing="ij")
            self.grid[i] = torch.stack((xv, yv), 2).view((1, 1, ny, nx, 2)).float()
            y = y.sigmoid()
            y[..., 0:2] = (y[..., 0:2] * 2.0 - 0.5 + self.grid[i]) * self.stride[i]
            y[..., 2:4] = (y[..., 2:4] * 2) ** 2 * self.anchor_grid[i]
            z.append(y.view(bs, -1, self.no))
        return torch.cat(z, 1)


class Classify(nn.Module):
    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.conv = Conv(c1, 1280, 1, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(p=0.0, inplace=True)
        self.linear = nn.Linear(1280, c2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.drop(self.pool(self.conv(x)).flatten(1)))


class BaseModel(nn.Module):
    model: nn.Sequential
    save: list[int]

    def forward(self, x: Tensor) -> Any:
        y: list[Any] = []
        for m in self.model:
            if m.f != -1:
                x = y[m.f] if isinstance(m.f, int) else [x if j == -1 else y[j] for j in m.f]  # type: ignore[assignment, index]
            x = m(x)
            y.append(x)
        return x


class DetectionModel(BaseModel):
    def __init__(self, yaml: dict[str, Any], act: nn.Module | None = None) -> None:
        super().__init__()
        self.yaml = {**yaml, "ch": 3}
        self.model, self.save = parse_model(self.yaml, act)
        self.names = [f"c{i}" for i in range(yaml["nc"])]
        self.inplace = True
        m = self.model[-1]
        if isinstance(m, Detect):
            sides: list[int] = []
            with pytest.MonkeyPatch.context() as patch, torch.no_grad():
                patch.setattr(type(m), "forward", lambda _, x: sides.extend(y.shape[2] for y in x))
                self(torch.zeros(1, 3, 256, 256))
            m.stride = torch.tensor([256.0 / side for side in sides])
            m.anchors /= m.stride.view(-1, 1, 1)
            self.stride = m.stride
        initialize_weights(self)


class ClassificationModel(BaseModel):
    def __init__(self, detector: DetectionModel, nc: int, cutoff: int = 10) -> None:
        super().__init__()
        self.model = detector.model[:cutoff]
        m = self.model[-1]
        c = Classify(m.cv1.conv.in_channels, nc)  # type: ignore[union-attr]
        c.i, c.f, c.type = m.i, m.f, "models.common.Classify"  # type: ignore[assignment]
        self.model[-1] = c
        self.stride = detector.stride
        self.save = []
        self.nc = nc
        self.names = [f"k{i}" for i in range(nc)]


def parse_model(d: dict[str, Any], act: nn.Module | None) -> tuple[nn.Sequential, list[int]]:
    ch, layers, save = [3], [], []
    detect = OldDetect if d["backbone"][0][2] == "Focus" else Detect
    Conv.default_act = act or nn.SiLU()
    for i, (f, n, name, args) in enumerate(d["backbone"] + d["head"]):
        n = max(round(n * d["depth_multiple"]), 1) if n > 1 else n
        if name in BLOCKS:
            c2 = math.ceil(args[0] * d["width_multiple"] / 8) * 8
            rest = args[1:]
            if name in ("C3", "BottleneckCSP"):
                rest, n = [n, *rest], 1
            m: Any = nn.Sequential(
                *(BLOCKS[name](ch[f] if k == 0 else c2, c2, *rest) for k in range(n))
            )
            m = m if n > 1 else m[0]
        elif name == "Concat":
            c2, m = sum(ch[x] for x in f), Concat(*args)
        elif name == "nn.Upsample":
            c2, m = ch[f], nn.Upsample(*args)
        else:
            c2, m = 0, detect(d["nc"], d["anchors"], [ch[x] for x in f])
        m.i, m.f, m.type = i, f, PATHS.get(type(m), "torch.nn.modules.upsampling.Upsample")
        m.np = sum(x.numel() for x in m.parameters())
        save += [x % i for x in ([f] if isinstance(f, int) else f) if x != -1]
        layers.append(m)
        ch = [c2] if i == 0 else [*ch, c2]
    return nn.Sequential(*layers), sorted(save)


BLOCKS: dict[str, Any] = {
    "Conv": Conv,
    "Focus": Focus,
    "Bottleneck": Bottleneck,
    "BottleneckCSP": BottleneckCSP,
    "C3": C3,
    "SPP": SPP,
    "SPPF": SPPF,
    "GhostConv": GhostConv,
}


def fuse(model: nn.Module) -> nn.Module:
    """Fuse each batch norm into its convolution, as `Model.fuse` does."""
    for m in model.modules():
        if isinstance(m, Conv):
            conv, bn = m.conv, m.bn
            scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
            fused = nn.Conv2d(
                conv.in_channels,
                conv.out_channels,
                conv.kernel_size,  # type: ignore[arg-type]
                conv.stride,  # type: ignore[arg-type]
                conv.padding,
            )
            fused.weight.data = conv.weight.data * scale.data[:, None, None, None]
            fused.bias.data = (bn.bias - bn.running_mean * scale).data  # type: ignore[union-attr]
            m.conv = fused.requires_grad_(False)
            del m.bn
            m.forward = m.forward_fuse  # type: ignore[method-assign]
    return model.eval()


def initialize_weights(model: nn.Module) -> None:
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eps, m.momentum = 1e-3, 0.03


PATHS = {
    Conv: "models.common.Conv",
    Focus: "models.common.Focus",
    BottleneckCSP: "models.common.BottleneckCSP",
    SPP: "models.common.SPP",
    GhostConv: "models.common.GhostConv",
    Bottleneck: "models.common.Bottleneck",
    C3: "models.common.C3",
    SPPF: "models.common.SPPF",
    Concat: "models.common.Concat",
    Classify: "models.common.Classify",
    Detect: "models.yolo.Detect",
    OldDetect: "models.yolo.Detect",
    DetectionModel: "models.yolo.DetectionModel",
    ClassificationModel: "models.yolo.ClassificationModel",
}


def small_yaml(classes: int = 3) -> dict[str, Any]:
    """Return a network of size n's first width, three scales and few channels."""
    return {
        "nc": classes,
        "depth_multiple": 0.33,
        "width_multiple": 0.25,
        "anchors": [list(scale) for scale in ANCHORS],
        "backbone": [
            [-1, 1, "Conv", [64, 6, 2, 2]],
            [-1, 1, "Conv", [64, 3, 2]],
            [-1, 3, "C3", [64]],
            [-1, 1, "Conv", [64, 3, 2]],
            [-1, 1, "Conv", [64, 3, 2]],
            [-1, 1, "Conv", [96, 3, 2]],
            [-1, 1, "SPPF", [96, 5]],
        ],
        "head": [
            [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
            [[-1, 4], 1, "Concat", [1]],
            [-1, 3, "C3", [64, False]],
            [[3, 9, 6], 1, "Detect", ["nc", "anchors"]],
        ],
    }


def yaml_of_5_0(size: tuple[float, float], block: str = "C3", classes: int = 3) -> dict[str, Any]:
    """Return models/yolov5s.yaml of v5.0; with BottleneckCSP it is that of v3.1."""
    return {
        "nc": classes,
        "depth_multiple": size[0],
        "width_multiple": size[1],
        "anchors": [list(scale) for scale in ANCHORS],
        "backbone": [
            [-1, 1, "Focus", [64, 3]],
            [-1, 1, "Conv", [128, 3, 2]],
            [-1, 3, block, [128]],
            [-1, 1, "Conv", [256, 3, 2]],
            [-1, 9, block, [256]],
            [-1, 1, "Conv", [512, 3, 2]],
            [-1, 9, block, [512]],
            [-1, 1, "Conv", [1024, 3, 2]],
            [-1, 1, "SPP", [1024, [5, 9, 13]]],
            [-1, 3, block, [1024, False]],
        ],
        "head": [
            [-1, 1, "Conv", [512, 1, 1]],
            [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
            [[-1, 6], 1, "Concat", [1]],
            [-1, 3, block, [512, False]],
            [-1, 1, "Conv", [256, 1, 1]],
            [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
            [[-1, 4], 1, "Concat", [1]],
            [-1, 3, block, [256, False]],
            [-1, 1, "Conv", [256, 3, 2]],
            [[-1, 14], 1, "Concat", [1]],
            [-1, 3, block, [512, False]],
            [-1, 1, "Conv", [512, 3, 2]],
            [[-1, 10], 1, "Concat", [1]],
            [-1, 3, block, [1024, False]],
            [[17, 20, 23], 1, "Detect", ["nc", "anchors"]],
        ],
    }


@torch.no_grad()
def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give a model random weights with varied activations and scores; returns it for evaluation.

    BatchNorm's statistics are measured on noise, so that no layer saturates.
    """
    torch.manual_seed(seed)
    for m in model.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            nn.init.normal_(m.weight, 0, m.weight[0].numel() ** -0.5)
            if m.bias is not None:
                nn.init.normal_(m.bias, -0.5, 0.8)
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, 0.2, 0.5)
            m.reset_running_stats()
            m.momentum = None
    model.train()
    model(torch.rand(4, 3, 128, 128))
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = 0.03
    return model.eval()


@contextmanager
def posing_as(paths: dict[Any, str]) -> Iterator[None]:
    """Let classes be pickled under paths that can't be imported before or afterwards."""
    old = {thing: (thing.__module__, thing.__qualname__) for thing in paths}
    modules: dict[str, ModuleType] = {}
    for thing, path in paths.items():
        module_name, _, name = path.rpartition(".")
        parts = module_name.split(".")
        for n in range(len(parts)):
            modules.setdefault(".".join(parts[: n + 1]), ModuleType(parts[n]))
        setattr(modules[module_name], name, thing)
        thing.__module__, thing.__qualname__ = module_name, name
    with pytest.MonkeyPatch.context() as patch:
        for imported, module in modules.items():
            patch.setitem(sys.modules, imported, module)
        yield
    for thing, (module_name, name) in old.items():
        thing.__module__, thing.__qualname__ = module_name, name


def save(model: nn.Module, path: Path, **entries: object) -> Path:
    """Write a checkpoint as YOLOv5's train.py does: the whole model, in half."""
    with posing(model):
        torch.save({"epoch": -1, "model": model.half(), "ema": None, **entries}, path)
    model.float()
    return path


def posing(model: nn.Module) -> Any:
    """Let the classes of a model be pickled under the names that they have in YOLOv5."""
    return posing_as({one: PATHS[one] for one in map(type, model.modules()) if one in PATHS})
