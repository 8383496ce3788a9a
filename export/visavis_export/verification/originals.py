"""The original of a verification: a checkpoint that computes, and what it does around the network.

It shares no code with the server: pre-processing, decoding and suppression are torchvision's and
this package's own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torchvision

from visavis_export.checkpoints.checkpoint import (
    YoloCheckpoint,
    read_state_dict,
    read_yolo_checkpoint,
)
from visavis_export.checkpoints.identity import identify_state
from visavis_export.checkpoints.modules import kind
from visavis_export.errors import CheckpointError, ExportError
from visavis_export.families import resnet
from visavis_export.families.evaluation import head_of, strides_of
from visavis_export.families.original import Candidates, Floats, Found, candidates
from visavis_export.verification.layers import Layer, layers_of_checkpoint, layers_of_module
from visavis_export.verification.pipelines import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Geometry,
    Pipeline,
    Values,
)
from visavis_server.card import Task

Layout = Literal["yolov5_rows", "ultralytics_rows", "logits"]
Unpad = Literal["exact", "rounded"]

_IMAGENET = Values(mean=IMAGENET_MEAN, std=IMAGENET_STD, normalised=1)
# The original suppresses among so many candidates, and keeps so many boxes.
_MAX_CANDIDATES = 30_000
_MAX_DETECTIONS = 300
_LABEL_OFFSET = 7680


@dataclass(frozen=True, slots=True)
class Seen:
    """An original detector's output for one picture of width x height pixels."""

    candidates: Candidates
    geometry: Geometry
    width: int
    height: int
    unpad: Unpad

    def detect(self, score_threshold: float, iou_threshold: float) -> Found:
        """Return the detections: the best class of each candidate, suppressed by torchvision."""
        every = self.candidates
        above = np.flatnonzero(every.scores > score_threshold)
        above = above[np.argsort(-every.scores[above], kind="stable")][:_MAX_CANDIDATES]
        shifted = every.boxes[above] + every.class_ids[above, None] * np.float32(_LABEL_OFFSET)
        kept = torchvision.ops.nms(
            torch.from_numpy(shifted.astype(np.float32)),
            torch.from_numpy(every.scores[above]),
            iou_threshold,
        )
        best = above[kept[:_MAX_DETECTIONS].numpy()]
        return Found(self.in_picture(every.boxes[best]), every.scores[best], every.class_ids[best])

    def considered(self, threshold: float) -> tuple[Candidates, npt.NDArray[np.int64]]:
        """Return the rows above a threshold, each with its best class, and their indices."""
        rows = np.flatnonzero(self.candidates.scores > threshold)
        return self.candidates.take(rows), rows

    def in_picture(self, boxes: Floats) -> Floats:
        """Convert boxes xyxy [n, 4] from pixels of the input to pixels of the picture."""
        scale, content_width, content_height, left, top = self.geometry.placement(
            self.width, self.height
        )
        scales = (scale, scale)
        if self.geometry.rule == "stretch":
            scales = self.geometry.width / self.width, self.geometry.height / self.height
            pads = (0.0, 0.0)
        elif self.unpad == "exact" and self.geometry.centred:
            pads = (
                (self.geometry.width - self.width * scale) / 2,
                (self.geometry.height - self.height * scale) / 2,
            )
        else:
            pads = (float(left), float(top))
            scales = content_width / self.width, content_height / self.height
        pad, factor = (np.array((*one, *one), np.float32) for one in (pads, scales))
        moved = (boxes - pad) / factor
        limit = np.array((self.width, self.height) * 2, np.float32)
        return np.clip(moved, np.float32(0), limit)


@dataclass(frozen=True)
class Original:
    """A PyTorch model, read as data.

    title: such as "a YOLOv5n". pipeline: its own pre-processing. network: an input [3, H, W] to the
    raw output for it, without the batch. thresholds: score and IoU that it detects with.
    layers: the convolutions and linear layers for an input, in the order in which they run.
    """

    title: str
    task: Task
    labels: tuple[str, ...]
    pipeline: Pipeline
    layout: Layout
    network: Callable[[Floats], Floats]
    layers: Callable[[Floats], list[Layer]]
    unpad: Unpad = "exact"
    thresholds: tuple[float, float] = (0.25, 0.45)

    def seen(self, raw: Floats, geometry: Geometry, width: int, height: int) -> Seen:
        """Return what a detector sees in a picture of width x height, from its raw output."""
        return Seen(candidates_of(raw, self.layout), geometry, width, height, self.unpad)

    def scores(self, raw: Floats) -> Floats:
        """Return a detector's raw output as [4 + classes, n]: cxcywh in pixels, class scores."""
        return scores_of(raw, self.layout)


def probabilities(logits: Floats) -> Floats:
    """Return the softmax of logits [classes]."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    return (exponentials / exponentials.sum()).astype(np.float32)


def scores_of(raw: Floats, layout: Layout) -> Floats:
    """Return a detector's raw output as [4 + classes, n]: cxcywh in pixels, class scores."""
    if layout == "ultralytics_rows":
        return raw
    return np.concatenate((raw[:, :4], raw[:, 5:] * raw[:, 4:5]), axis=1).T


def candidates_of(raw: Floats, layout: Layout) -> Candidates:
    """Return all candidates of a detector's raw output."""
    rows = torch.from_numpy(np.ascontiguousarray(scores_of(raw, layout).T))
    boxes = torchvision.ops.box_convert(rows[:, :4], "cxcywh", "xyxy")
    return candidates(boxes, rows[:, 4:])


def read_original(
    path: Path, class_names: tuple[str, ...] | None, transforms: str, size: int | None
) -> Original:
    """Return the model in a checkpoint.

    transforms: for ResNets, "V1" or "V2". size: the side of its input in pixels; None: its own.
    Raises ExportError, naming the content, for anything but a ResNet or a YOLO.
    """
    if not path.is_file():
        raise ExportError(f"--against {path} does not exist; give the .pt or .pth file")
    try:
        state = read_state_dict(path)
    except CheckpointError as refused:
        try:
            checkpoint = read_yolo_checkpoint(path, class_names)
        except CheckpointError as error:
            raise (error if "YOLO" in str(error) else refused) from None
        return _of_checkpoint(checkpoint, size)
    return _of_resnet(state, class_names, transforms)


def _of_resnet(
    state: dict[str, torch.Tensor], class_names: tuple[str, ...] | None, transforms: str
) -> Original:
    identity = identify_state(state)
    if not identity.names:
        raise ExportError(f"the original is {identity.title}; {identity.advice}")
    classes = int(state["fc.weight"].shape[0]) if "fc.weight" in state else 0
    if not classes:
        raise ExportError(
            f"the original is {identity.title} without its last layer, fc; give the whole model"
        )
    labels = class_names or (resnet.imagenet_labels() if classes == 1000 else ())
    module = resnet.with_state(identity.names[0], classes, state)
    if missing := [k for k in module.state_dict() if k not in state and "num_batches" not in k]:
        raise ExportError(
            f"the original is {identity.title}, but lacks tensors, such as {missing[0]}"
        )
    geometry = Geometry(
        "shorter side",
        224,
        224,
        filter="Pillow bilinear",
        shorter_side=resnet.RESIZES[transforms],
    )

    def network(tensor: Floats) -> Floats:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(tensor[None]))[0].numpy())

    return Original(
        title=identity.title,
        task=Task.CLASSIFICATION,
        labels=labels or tuple(f"class {i}" for i in range(classes)),
        pipeline=Pipeline(geometry, _IMAGENET),
        layout="logits",
        network=network,
        layers=lambda tensor: layers_of_module(module, tensor),
    )


def _of_checkpoint(checkpoint: YoloCheckpoint, size: int | None) -> Original:
    classifies = checkpoint.kind.endswith("-cls")
    network, layers = layers_of_checkpoint(checkpoint.model)
    labels = checkpoint.names
    if classifies:
        side = size or checkpoint.image_size or 224
        of_yolov5 = checkpoint.kind == "yolov5-cls"
        geometry = (
            Geometry("centre square", side, side)
            if of_yolov5
            else Geometry("shorter side", side, side, filter="Pillow bilinear", shorter_side=side)
        )
        return Original(
            title=checkpoint.identity.title,
            task=Task.CLASSIFICATION,
            labels=labels or resnet.imagenet_labels(),
            pipeline=Pipeline(geometry, _IMAGENET if of_yolov5 else Values()),
            layout="logits",
            network=network,
            layers=layers,
        )
    head = head_of(checkpoint.model)
    if "one2one_cv2" in head.state.get("_modules", {}):
        raise ExportError(
            f"the original is {checkpoint.identity.title}, whose head needs no suppression; verify "
            "knows heads with suppression only: YOLOv5, YOLOv8, YOLO11"
        )
    stride = int(max(strides_of(head)))
    usual = checkpoint.image_size or (1280 if stride > 32 else 640)
    side = size or -(-usual // stride) * stride
    if side % stride:
        raise ExportError(f"--size {side} is not a multiple of the original's stride, {stride}")
    anchors = kind(head) == "Detect" and "dfl" not in head.state.get("_modules", {})
    return Original(
        title=checkpoint.identity.title,
        task=Task.OBJECT_DETECTION,
        labels=labels,
        pipeline=Pipeline(Geometry("letterbox", side, side), Values()),
        layout="yolov5_rows" if anchors else "ultralytics_rows",
        network=network,
        layers=layers,
        unpad="exact" if anchors else "rounded",
        thresholds=(0.25, 0.45) if anchors else (0.25, 0.7),
    )
