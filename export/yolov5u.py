"""YOLOv5u: ultralytics' anchor-free rebuild of YOLOv5, from ultralytics' own code."""

import os
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export import random_weights
from export.checkpoint import YoloCheckpoint
from export.errors import ExportError
from export.original import Candidates, Floats, Original, candidates
from export.weights import Weights
from export.yolov5 import (
    SIZES,
    Place,
    YoloReference,
    coco_labels,
    facts,
    letterboxed_pictures,
    load_state,
    require_size,
)
from server.card import Candidates as CandidatesLayout
from server.card import (
    DetectionDefaults,
    Facts,
    LabelSet,
    Letterbox,
    ModelDocument,
    ModelInput,
    Provenance,
    Task,
)
from server.labels import name_of_label_set

NAMES = tuple(f"yolov5{size}u" for size in SIZES)


def build_yolov5u(
    name: str,
    checkpoint: YoloCheckpoint | None,
    weights: Weights | None,
    provenance: Provenance,
    size: int | None,
) -> Original:
    """Return a YOLOv5u detector; checkpoint None: random weights.

    name: one of NAMES. size: side of the input in pixels; None: 640. Raises ExportError if
    the checkpoint is of another kind, or ultralytics is not installed.
    """
    random_weights.seed()
    if checkpoint is None:
        module = _detection_model(_description(name), 80)
        labels = coco_labels()
        random_weights.calibrate(module, _spreads(module), letterboxed_pictures())
    else:
        if checkpoint.kind != "ultralytics-detect":
            raise ExportError(
                f"the checkpoint is of kind {checkpoint.kind}, {name} needs ultralytics-detect"
            )
        require_size(name, checkpoint.state)
        labels = checkpoint.names
        module = _detection_model(checkpoint.yaml, len(labels))
        load_state(module, checkpoint.state, name)
    module.eval()
    module.model[-1].export = True  # the decoded rows alone, without the training outputs
    module.model[-1].format = "onnx"
    side = size or 640
    draft = ModelDocument(
        name=name,
        task=Task.OBJECT_DETECTION,
        precision="fp32",
        label_set=LabelSet(name=name_of_label_set(labels), labels=labels),
        input=ModelInput(
            tensor="image", width=side, height=side, resize=Letterbox(unpad="rounded")
        ),
        output=CandidatesLayout(layout="ultralytics_rows", tensor="rows"),
        detection_defaults=DetectionDefaults(score_threshold=0.25, iou_threshold=0.7),
        facts=_facts(name, module, weights),
        provenance=provenance,
    )
    return Original(draft, module, YoloReference(module, side, _candidates, _unletterbox))


def _facts(name: str, module: nn.Module, weights: Weights | None) -> Facts:
    inherited = facts(name, module, weights, real_time=True)
    sources = inherited.sources | {
        "architecture": "ultralytics/ultralytics, cfg/models/v5/",
        "release_date": "ultralytics/ultralytics: YOLOv5u came with its version 8, in 2023",
        "code_license": "ultralytics/ultralytics, LICENSE",
    }
    return inherited.model_copy(update={"release_date": "2023", "sources": sources})


def _detection_model(description: Any, classes: int) -> Any:
    try:
        # It writes its settings when it is imported, below ~/.config if not told where.
        with TemporaryDirectory(prefix="visavis-ultralytics-") as folder:
            os.environ["YOLO_CONFIG_DIR"] = folder
            from ultralytics.nn.tasks import DetectionModel
    except ImportError:
        raise ExportError(
            "YOLOv5u needs ultralytics: pip install 'visavis-server[export]'"
        ) from None
    return DetectionModel(description, nc=classes, verbose=False)


def _description(name: str) -> str:
    return f"{name.removesuffix('u')}.yaml"


def _candidates(rows: Tensor) -> Candidates:
    """Return rows [4 + classes, n] as candidates, through ultralytics' own conversion."""
    from ultralytics.utils.ops import xywh2xyxy

    return candidates(xywh2xyxy(rows[:4].T.contiguous()), rows[4:].T)


def _unletterbox(boxes: Floats, place: Place) -> Floats:
    from ultralytics.utils.ops import scale_boxes

    side = (place.side, place.side)
    result = scale_boxes(side, torch.from_numpy(boxes.copy()), (place.height, place.width))
    return np.asarray(result, np.float32)


def _spreads(module: Any) -> list[random_weights.Spread]:
    """Return what the head's last layers shall look like: varied classes, boxes of every size."""
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
