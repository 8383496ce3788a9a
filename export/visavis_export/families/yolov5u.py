"""YOLOv5u: ultralytics' anchor-free version of YOLOv5, built with ultralytics' code."""

import os
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from visavis_export.checkpoints import modules
from visavis_export.checkpoints.checkpoint import YoloCheckpoint
from visavis_export.checkpoints.description import ACTIVATIONS, read_description
from visavis_export.checkpoints.pickled import Inert
from visavis_export.checkpoints.published import SIZES, describe
from visavis_export.checkpoints.weights import Weights
from visavis_export.errors import CheckpointError, ExportError
from visavis_export.families import random_weights
from visavis_export.families.original import Candidates, Floats, Original, candidates
from visavis_export.families.yolov5 import (
    Cells,
    Place,
    YoloReference,
    check_yaml,
    coco_labels,
    evaluation,
    facts,
    letterboxed_pictures,
    load_state,
    multiple,
    own_size,
    require,
    require_names,
)
from visavis_server.card import (
    CandidateRows,
    DetectionDefaults,
    Facts,
    LabelSet,
    Letterbox,
    ModelDocument,
    ModelInput,
    Provenance,
    Task,
)
from visavis_server.vision.labels import name_of_label_set

# Attributes of a head that do not affect the answer: state of the last run, and how to run.
_UNIMPORTANT = (
    *("anchors", "strides", "stride", "shape", "inplace", "export", "format", "dynamic", "legacy"),
    *("max_det", "xyxy", "end2end", "agnostic_nms"),
)
_WIRING = {"i", "f", "type", "np"}
_LEAVES: dict[str, Callable[[Inert], nn.Module]] = {
    "Conv2d": modules.conv2d,
    "BatchNorm2d": modules.batch_norm,
    "MaxPool2d": modules.max_pool,
    "Upsample": modules.upsample,
    **dict.fromkeys(ACTIVATIONS, modules.activation),
}
NAMES = tuple(f"yolov5{size}u" for size in SIZES)


def build_yolov5u(
    name: str,
    checkpoint: YoloCheckpoint | None,
    weights: Weights | None,
    provenance: Provenance,
    size: int | None,
) -> Original:
    """Return a YOLOv5u detector; checkpoint None: random weights.

    name: one of NAMES. size: side of the input in pixels; None: the training's, or 640. Raises
    ExportError if the checkpoint is another model, or ultralytics is not installed.
    """
    random_weights.seed()
    if checkpoint is None:
        module = _detection_model(_description(name, 80))
        labels = coco_labels()
        random_weights.calibrate(module, _spreads(module), letterboxed_pictures())
    else:
        require(name, checkpoint)
        labels = checkpoint.names
        check_yaml(checkpoint)
        module = _detection_model(_checked(name, checkpoint))
        _conform(module.model, *modules.children(checkpoint.model, "model"))
        load_state(module, checkpoint.state, name)
    module.eval()
    module.model[-1].export = True  # return only the decoded rows, not the training outputs
    module.model[-1].format = "onnx"
    side = size or multiple(own_size(checkpoint) or 640, 32)
    draft = ModelDocument(
        name=name,
        task=Task.OBJECT_DETECTION,
        precision="fp32",
        label_set=LabelSet(name=name_of_label_set(labels), labels=labels),
        input=ModelInput(
            tensor="image", width=side, height=side, resize=Letterbox(unpad="rounded")
        ),
        output=CandidateRows(layout="ultralytics_rows", tensor="rows"),
        detection_defaults=DetectionDefaults(score_threshold=0.25, iou_threshold=0.7),
        facts=_facts(name, checkpoint, module, weights),
        provenance=provenance,
    )
    rows = evaluation(checkpoint) if checkpoint else module
    cells = Cells((8, 16, 32), 1, lambda rows: rows[4:].T)
    return Original(draft, module, YoloReference(rows, side, _candidates, _unletterbox, cells))


def _facts(
    name: str, checkpoint: YoloCheckpoint | None, module: nn.Module, weights: Weights | None
) -> Facts:
    inherited = facts(name, checkpoint, module, weights, real_time=True)
    sources = inherited.sources | {
        "architecture": "ultralytics/ultralytics, cfg/models/v5/",
        "release_date": "ultralytics/ultralytics: YOLOv5u came with its version 8, in 2023",
        "code_license": "ultralytics/ultralytics, LICENSE",
    }
    return inherited.model_copy(update={"release_date": "2023", "sources": sources})


def _checked(name: str, checkpoint: YoloCheckpoint) -> dict[str, Any]:
    """Return our description of a size; raises ExportError if the checkpoint's differs.

    ultralytics evaluates parts of a description as code, so it never receives an untrusted one.
    """
    stored = read_description(checkpoint.yaml)
    require_names(checkpoint.names, stored["nc"])
    own = _description(name, len(checkpoint.names))
    for key in ("nc", "depth_multiple", "width_multiple", "backbone", "head"):
        if _plain(stored[key]) != _plain(own[key]):
            raise ExportError(f"the checkpoint's {key} is not {name}'s: it is another model")
    return own


def _conform(module: nn.Module, stored: Inert) -> None:
    """Make ultralytics' module compute what the checkpoint's modules describe.

    ultralytics' classes change between releases: its SPPF has lost an activation. Leaf modules are
    rebuilt from the checkpoint; their containers must have the same class and attributes. The
    tensors are loaded later. Raises CheckpointError, naming the module, if this is impossible.
    """
    if type(module).__name__ == "Conv" and "bn" not in stored.state.get("_modules", ("bn",)):
        raise CheckpointError(
            "its convolutions are fused with their batch norms; give the checkpoint as it was "
            "trained, or export it to ONNX with `yolo export model=FILE format=onnx`"
        )
    modules.require_same(module, stored, _UNIMPORTANT)
    for name in [name for name, _ in module.named_children()]:
        (part,) = (child for key, child in stored.state["_modules"].items() if key == name)
        if read := _LEAVES.get(modules.kind(part)):
            old = module.get_submodule(name)
            with torch.device("meta"):
                new = read(part)
            for key in _WIRING & vars(old).keys():  # the layer's sources
                setattr(new, key, vars(old)[key])
            setattr(module, name, new)
        else:
            _conform(module.get_submodule(name), part)


def _description(name: str, classes: int) -> dict[str, Any]:
    """Return the description of a size: YOLOv5's without the anchors."""
    description = describe(name[6], classes)
    *head, (sources, repeats, module, _) = description["head"]
    description["head"] = [*head, [sources, repeats, module, ["nc"]]]
    del description["anchors"]
    return description


def _plain(part: Any) -> Any:
    if isinstance(part, list | tuple):
        return [_plain(one) for one in part]
    return None if part == "None" else part  # older ultralytics files store None as text


def _detection_model(description: dict[str, Any]) -> Any:
    try:
        # ultralytics writes its settings on import, to ~/.config by default.
        with TemporaryDirectory(prefix="visavis-ultralytics-") as folder:
            os.environ["YOLO_CONFIG_DIR"] = folder
            from ultralytics.nn.tasks import DetectionModel
    except ImportError:
        raise ExportError(
            "YOLOv5u needs ultralytics: pip install 'visavis-server[export]'"
        ) from None
    return DetectionModel(description, nc=description["nc"], verbose=False)


def _candidates(rows: Tensor) -> Candidates:
    """Convert rows [4 + classes, n] to candidates with ultralytics' conversion."""
    from ultralytics.utils.ops import xywh2xyxy

    return candidates(xywh2xyxy(rows[:4].T.contiguous()), rows[4:].T)


def _unletterbox(boxes: Floats, place: Place) -> Floats:
    from ultralytics.utils.ops import scale_boxes

    side = (place.side, place.side)
    result = scale_boxes(side, torch.from_numpy(boxes.copy()), (place.height, place.width))
    return np.asarray(result, np.float32)


def _spreads(module: Any) -> list[random_weights.Spread]:
    """Return the target ranges of the head's last layers: varied classes, boxes of every size."""
    head = module.model[-1]
    spreads = []
    for boxes, classes in zip(head.cv2, head.cv3, strict=True):
        for layer, median in ((boxes[-1], 0.0), (classes[-1], -4.0)):
            assert isinstance(layer, nn.Conv2d)
            channels = layer.out_channels
            spreads.append(
                random_weights.Spread(
                    layer, torch.full((channels,), median), torch.full((channels,), 3.0)
                )
            )
    return spreads
