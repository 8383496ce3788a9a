"""Identifies the model in a checkpoint, and advises how to export it.

Published networks are recognised by the kind, width, depth and wiring of their layers, not by the
names in the file.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from visavis_export.checkpoints.modules import is_natural
from visavis_export.checkpoints.pickled import Inert, shown
from visavis_export.checkpoints.published import RELEASES, SIZES, deepened, describe, widened

# The layers of YOLOv5's detectors.
_YOLOV5 = (
    *("Conv", "Focus", "BottleneckCSP", "C3", "SPP", "SPPF", "Sequential"),
    *("Upsample", "Concat", "Detect"),
)
# Layers that identify other models built on YOLOv5's code.
_SHARING = {
    "RepConv": "YOLOv7",
    "SPPCSPC": "YOLOv7",
    "IDetect": "YOLOv7",
    "MP": "YOLOv7",
    "Bottleneck": "YOLOv3",
    "ZeroPad2d": "YOLOv3-tiny",
}
# A layer of each ultralytics family that the families below it lack.
_ULTRALYTICS = {
    "A2C2f": "YOLO12",
    "C3k2": "YOLO11",
    "SCDown": "YOLOv10",
    "RTDETRDecoder": "RT-DETR",
    "RepNCSPELAN4": "YOLOv9",
    "ELAN1": "YOLOv9",
    "C2f": "YOLOv8",
    "C3": "YOLOv5u",
}
_TASKS = {
    "SegmentationModel": "segmentation",
    "PoseModel": "pose",
    "OBBModel": "oriented boxes",
    "WorldModel": "an open vocabulary",
    "YOLOEModel": "an open vocabulary",
    "YOLOESegModel": "segmentation",
}
# By the number of blocks in the four stages, and True for blocks of three convolutions.
_RESNETS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "18",
    ((3, 4, 6, 3), False): "34",
    ((3, 4, 6, 3), True): "50",
    ((3, 4, 23, 3), True): "101",
    ((3, 8, 36, 3), True): "152",
}
# The activation of each release; SiLU in the others.
_ACTIVATIONS = {"v3.0 to v3.1": "Hardswish", "v2.0": "LeakyReLU"}

_UNSERVED = "visavis exports and serves detectors and classifiers only"
_UNKNOWN = "visavis exports torchvision's ResNets and detectors, and YOLOv5 only"
_UNSERVED_DETECTOR = (
    "of torchvision's detectors, visavis exports RetinaNet and Faster R-CNN with resnet50_fpn only"
)
_SERVED_AS_IT_IS = (
    "and put that file into the model repository as NAME/1/model.onnx; it is served unchanged"
)
_BY_ULTRALYTICS = f"export it to ONNX with `yolo export model=FILE format=onnx`, {_SERVED_AS_IT_IS}"
_BY_ITS_PROJECT = (
    "export it to ONNX with its own project's `export.py --weights FILE --include onnx`, "
    f"{_SERVED_AS_IT_IS}"
)


@dataclass(frozen=True, slots=True)
class Identity:
    """The model in a checkpoint.

    title: with its article, such as `a YOLOv5s`. advice: how it can be exported. names: the
    architectures that it can be exported as, the most specific first.
    """

    title: str
    advice: str
    names: tuple[str, ...] = ()


def _export_as(name: str) -> str:
    return f"export it as {name}; --name gives it another name"


def identify(model: Inert) -> Identity:
    """Identify a pickled model."""
    place, _, kind = model.class_path.rpartition(".")
    layers = list(_children(model, "model"))
    if place.startswith("torchvision.models.detection"):
        return Identity(
            f"a {shown(kind)} of torchvision, pickled whole",
            "save its tensors, `torch.save(model.state_dict(), FILE)`, and export those",
        )
    if not place.startswith(("models.yolo", "ultralytics.nn.tasks")) or not layers:
        return Identity(f"a {shown(model.class_path)}", _UNKNOWN)
    if place.startswith("ultralytics"):
        return _ultralytics(model, kind, layers)
    if kind in _TASKS:
        return Identity(f"a YOLOv5 for {_TASKS[kind]}", _UNSERVED)
    return _classifier(layers) if _kind(layers[-1]) == "Classify" else _detector(layers)


def identify_state(state: Mapping[str, Any]) -> Identity:
    """Identify the model of a state_dict by the names and shapes of its tensors."""
    if detector := _torchvision_detector(state):
        return detector
    depth = _resnet_depth(state, "")
    if depth and "conv1.weight" in state:
        inner = state.get("layer1.0.conv2.weight")
        if inner is None or tuple(inner.shape) != (64, 64, 3, 3):
            return Identity("a ResNet of unpublished widths, such as a wide ResNet", _UNKNOWN)
        return Identity(f"a ResNet-{depth}", _export_as(f"resnet{depth}"), (f"resnet{depth}",))
    if any(name.startswith(("model.0.conv.", "0.conv.")) for name in state):
        return Identity(
            "the state_dict of a YOLO, without the modules that describe its computation",
            "export the whole checkpoint, such as best.pt, as the YOLO that it is",
        )
    names = shown(", ".join(list(state)[:3]), 120)
    return Identity(f"a state_dict of another network, with tensors such as {names}", _UNKNOWN)


def _resnet_depth(state: Mapping[str, Any], prefix: str) -> str | None:
    """Return the depth of the ResNet whose tensors' names begin with a prefix; None if none is."""
    stages = tuple(
        len({n.removeprefix(p).split(".")[0] for n in state if n.startswith(p)})
        for p in (f"{prefix}layer{stage}." for stage in range(1, 5))
    )
    return _RESNETS.get((stages, f"{prefix}layer1.0.conv3.weight" in state))


def _torchvision_detector(state: Mapping[str, Any]) -> Identity | None:
    """Identify one of torchvision's detectors; None if the tensors are not one's."""
    dense = "head.classification_head.cls_logits.weight" in state
    if "rpn.head.cls_logits.weight" not in state and not dense:
        return None
    kinds = {
        "roi_heads.mask_predictor.": "a Mask R-CNN",
        "roi_heads.keypoint_predictor.": "a Keypoint R-CNN",
        "head.regression_head.bbox_ctrness.": "an FCOS",
        "head.classification_head.module_list.": "an SSD",
    }
    for prefix, title in kinds.items():
        if any(name.startswith(prefix) for name in state):
            return Identity(f"{title} of torchvision", _UNSERVED_DETECTOR)
    family = "RetinaNet" if dense else "Faster R-CNN"
    depth = _resnet_depth(state, "backbone.body.")
    if depth != "50" or not any(name.startswith("backbone.fpn.") for name in state):
        body = f"a ResNet-{depth}" if depth else "another backbone"
        return Identity(f"a {family} of torchvision with {body}", _UNSERVED_DETECTOR)
    # The second generation has normalisation in its heads, and RetinaNet's pyramid goes on from
    # the backbone's last map.
    second = any(
        name.startswith(("roi_heads.box_head.0.", "head.classification_head.conv.0.1."))
        for name in state
    )
    version = "_v2" if second else ""
    name = f"{'retinanet' if dense else 'fasterrcnn'}_resnet50_fpn{version}"
    title = f"a {family} with a ResNet-50 and a feature pyramid{', v2' if second else ''}"
    return Identity(title, _export_as(name), (name,))


def _ultralytics(model: Inert, kind: str, layers: list[Inert]) -> Identity:
    kinds = {_kind(layer) for layer in layers}
    family = next((_ULTRALYTICS[one] for one in _ULTRALYTICS if one in kinds), "YOLO")
    yaml = model.state.get("yaml")
    described = yaml if isinstance(yaml, dict) else {}
    source = described.get("yaml_file")
    # The yaml's file name is more exact than the blocks: yolo26 has the blocks of yolo11.
    stem = re.fullmatch(
        r"(?:.*/)?yolo(v?\d{1,2})[a-z]?\d?(?:-.*)?\.yaml", source if isinstance(source, str) else ""
    )
    if stem and family not in ("YOLOv5u", "RT-DETR"):
        family = f"YOLO{stem[1]}"
    scale = described.get("scale") if described.get("scale") in tuple("tnsmlbcex") else ""
    if family == "YOLOv5u":
        outline = [_outline(layer) for layer in layers]
        for size in SIZES:
            for six in ("", "6"):
                if outline == _published(size, bool(six), ""):
                    name = f"yolov5{size}{six}u"
                    named = f"a YOLOv5{size}{six}u"
                    if six:
                        return Identity(named, _BY_ULTRALYTICS)
                    return Identity(named, _export_as(name), (name,))
        return Identity("a YOLOv5u of no published size", _BY_ULTRALYTICS)
    title = "an RT-DETR" if family == "RT-DETR" else f"a {family}{scale}"
    title += " of ultralytics"
    if family == "RT-DETR" or kind in _TASKS:
        task = f" for {_TASKS[kind]}" if kind in _TASKS else ""
        return Identity(title + task, _UNSERVED if task else f"{_UNSERVED}, and no RT-DETR")
    task = " for classification" if kind == "ClassificationModel" else ""
    return Identity(title + task, _BY_ULTRALYTICS)


def _detector(layers: list[Inert]) -> Identity:
    kinds = [_kind(layer) for layer in layers]
    if family := next((_SHARING[kind] for kind in kinds if kind in _SHARING), None):
        # YOLOv7's export omits the class names, and visavis can't serve ONNX files without them.
        return Identity(f"a {family}", _UNKNOWN if family == "YOLOv7" else _BY_ITS_PROJECT)
    if strange := next((kind for kind in kinds if kind not in _YOLOV5), None):
        return Identity(f"a YOLOv5 with layers of class {shown(strange)}", _BY_ITS_PROJECT)
    outline, activation = [_outline(layer) for layer in layers], _activation(layers[0])
    for size in SIZES:
        for six in ("", "6"):
            for release in RELEASES:
                if outline == _published(size, bool(six), release):
                    if release == "v3.0 to v3.1" and activation == "LeakyReLU":
                        release = "v2.0"
                    title = f"a YOLOv5{size}{six}" + (f" ({release})" if release else "")
                    if activation != _ACTIVATIONS.get(release, "SiLU"):
                        title += f" with {activation}"
                    name = f"yolov5{size}{six}"
                    return Identity(title, _export_as(name), (name, "yolov5"))
    widths = [width for _, _, width, _ in outline if width] or [0]
    scales = len(list(_children(layers[-1], "m")))
    return Identity(
        f"a YOLOv5 of no published size ({len(layers)} layers of {min(widths)} to {max(widths)} "
        f"channels, {scales} scales)",
        _export_as("yolov5"),
        ("yolov5",),
    )


def _classifier(layers: list[Inert]) -> Identity:
    outline = [_outline(layer) for layer in layers[:-1]]
    for size in SIZES:
        if outline == _published(size, False, "")[: len(outline)] and len(outline) == 9:
            name = f"yolov5{size}-cls"
            return Identity(f"a YOLOv5{size}-cls", _export_as(name), (name, "yolov5-cls"))
    if strange := next((k for k, *_ in outline if k not in _YOLOV5), None):
        return Identity(f"a YOLOv5-cls with layers of class {shown(strange)}", _BY_ITS_PROJECT)
    return Identity(
        f"a YOLOv5-cls of no published size ({len(layers)} layers)",
        _export_as("yolov5-cls"),
        ("yolov5-cls",),
    )


def _published(size: str, p6: bool, release: str) -> list[tuple[str, Any, int, int]]:
    """Return the outline of a published network: one entry per layer, as of `_outline`."""
    description = describe(size, 80, p6, release)
    depth, width = description["depth_multiple"], description["width_multiple"]
    outline = []
    for source, repeats, kind, arguments in [*description["backbone"], *description["head"]]:
        wide = kind not in ("nn.Upsample", "Concat", "Detect")
        outline.append(
            (
                kind.removeprefix("nn."),
                source,
                widened(arguments[0], width) if wide else 0,
                deepened(repeats, depth),
            )
        )
    return outline


def _outline(layer: Inert) -> tuple[str, Any, int, int]:
    """Return a layer's class, its sources, its output channels and its number of repeats."""
    state, kind = layer.state, _kind(layer)
    source = state.get("f")
    last = {"C3": "cv3", "BottleneckCSP": "cv4", "SPP": "cv2", "SPPF": "cv2", "Focus": "conv"}
    conv = _child(layer, last[kind]) if kind in last else layer
    conv = _child(conv, "conv") if conv else None
    width: Any = conv.state.get("out_channels") if conv else None
    repeats = len(list(_children(layer, "m"))) if kind in ("C3", "BottleneckCSP") else 1
    source = list(source) if isinstance(source, tuple) else source
    return kind, source, width if is_natural(width) else 0, repeats


def _activation(layer: Inert) -> str:
    conv = _child(layer, "conv") if _kind(layer) == "Focus" else layer
    act = _child(conv, "act") if conv else None
    return _kind(act) if act else "no activation"


def _kind(module: Inert) -> str:
    return module.class_path.rpartition(".")[2]


def _child(module: Inert, name: str) -> Inert | None:
    modules = module.state.get("_modules") if isinstance(module.state, dict) else None
    child = modules.get(name) if isinstance(modules, dict) else None
    return child if isinstance(child, Inert) and isinstance(child.state, dict) else None


def _children(module: Inert, name: str) -> Iterator[Inert]:
    """Yield the modules in a module's Sequential or ModuleList `name`."""
    parent = _child(module, name)
    modules = parent.state.get("_modules") if parent else None
    for key in modules if parent and isinstance(modules, dict) else ():
        if child := _child(parent, key):  # type: ignore[arg-type]
            yield child
