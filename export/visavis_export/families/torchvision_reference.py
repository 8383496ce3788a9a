"""torchvision's detectors from encoded picture to boxes: the reference of a receipt.

All of it is torchvision's own code: transforms, modules, post-processing.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import resize_boxes
from torchvision.ops.boxes import clip_boxes_to_image, remove_small_boxes
from torchvision.transforms._presets import ObjectDetection

from visavis_export.families.original import Candidates, Floats, Found, Seen, candidates, upright


class RetinanetReference:
    """torchvision's RetinaNet."""

    def __init__(self, module: Any) -> None:
        module.backbone, module.head = _Recalled(module.backbone), _Recalled(module.head)
        module.anchor_generator = _Recalled(module.anchor_generator)
        self._module = module

    @torch.inference_mode()
    def look(self, encoded: bytes) -> Seen | None:
        """Return the output for an encoded picture; None if torchvision refuses it."""
        image, module = _read(encoded), self._module
        if _too_thin(module, image):
            return None
        module([image])
        size = module.transform([image])[0].image_sizes[0]
        outputs, (anchors,) = module.head.result, module.anchor_generator.result
        boxes = module.head.module.regression_head.box_coder.decode_single(
            outputs["bbox_regression"][0], anchors
        )
        levels, each = module.head.given[0], module.head.module.classification_head.num_anchors
        return _SeenByRetinanet(
            _Input(module, image, size),
            outputs["cls_logits"][0].sigmoid(),
            clip_boxes_to_image(boxes, size),
            [level.shape[2] * level.shape[3] * each for level in levels],
        )


class FasterRcnnReference:
    """torchvision's Faster R-CNN."""

    def __init__(self, module: Any) -> None:
        module.backbone, module.rpn = _Recalled(module.backbone), _Recalled(module.rpn)
        self._module = module

    @torch.inference_mode()
    def look(self, encoded: bytes) -> Seen | None:
        """Return the output for an encoded picture; None if torchvision refuses it."""
        image, module = _read(encoded), self._module
        if _too_thin(module, image):
            return None
        module([image])
        size = module.transform([image])[0].image_sizes[0]
        (proposals,) = module.rpn.result[0]
        return _SeenByFasterRcnn(
            _Input(module, image, size), module.backbone.result, proposals
        ).computed()


@dataclass(frozen=True, slots=True)
class _Input:
    """The module, the picture [3, height, width], and its size in the input: height, width."""

    module: Any
    image: Tensor
    size: tuple[int, int]

    def in_picture(self, boxes: Floats) -> Floats:
        """Convert boxes [n, 4] to pixels of the picture."""
        height, width = self.image.shape[1:]
        here = torch.from_numpy(np.ascontiguousarray(boxes))
        result: Floats = resize_boxes(here, list(self.size), [height, width]).numpy()
        return result

    @torch.inference_mode()
    def detect(self, part: Any, settings: Mapping[str, float]) -> Found:
        """Return what the whole model gives while a part of it has other settings."""
        with _set(part, settings):
            (result,) = self.module([self.image])
        return Found(result["boxes"].numpy(), result["scores"].numpy(), result["labels"].numpy())


@dataclass(frozen=True, slots=True)
class _SeenByRetinanet:
    """scores: of every class, [anchors, classes]. boxes: xyxy [anchors, 4] in the input.

    level_sizes: the number of anchors of each level.
    """

    input: _Input
    scores: Tensor
    boxes: Tensor
    level_sizes: list[int]

    @property
    def candidates(self) -> Candidates:
        """Every anchor with its two best classes."""
        return candidates(self.boxes, self.scores)

    @property
    def floor(self) -> float:
        """The lowest threshold at which no level has more candidates than torchvision takes."""
        most = self.input.module.topk_candidates
        levels = (level.flatten() for level in torch.split(self.scores, self.level_sizes))
        beyond = [float(x.topk(most + 1).values[-1]) for x in levels if x.numel() > most]
        return max(beyond, default=0.0)

    def other_proposals(self, proposals: Floats) -> int:
        """Return 0: it has no proposals."""
        return 0

    def follow(self, proposals: Floats) -> "_SeenByRetinanet":
        """Return the same: it has no proposals."""
        return self

    def considered(self, threshold: float) -> tuple[Candidates, npt.NDArray[np.int64]]:
        """Return the pairs of anchor and class above a threshold, and the anchor of each."""
        rows, class_ids = torch.where(self.scores > threshold)
        return _pairs(self.boxes[rows], self.scores[rows, class_ids], class_ids), rows.numpy()

    def in_picture(self, boxes: Floats) -> Floats:
        """Convert boxes to pixels of the picture."""
        return self.input.in_picture(boxes)

    def detect(self, score_threshold: float, iou_threshold: float, most: int = 300) -> Found:
        """Return torchvision's detections with these parameters."""
        return self.input.detect(
            self.input.module, _parameters(score_threshold, iou_threshold, most)
        )


_NOTHING = torch.empty(0)


@dataclass(frozen=True, slots=True)
class _SeenByFasterRcnn:
    """proposals: xyxy [n, 4] in the input.

    scores: of every class but the background, [n, classes - 1]; boxes: [n, classes - 1, 4].
    """

    input: _Input
    features: dict[str, Tensor]
    proposals: Tensor
    scores: Tensor = _NOTHING
    boxes: Tensor = _NOTHING

    def computed(self) -> "_SeenByFasterRcnn":
        """Return it with scores and boxes."""
        heads, sizes = self.input.module.roi_heads, [self.input.size]
        pooled = heads.box_roi_pool(self.features, [self.proposals], sizes)
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        boxes = clip_boxes_to_image(heads.box_coder.decode(deltas, [self.proposals]), sizes[0])
        return replace(self, scores=logits.softmax(1)[:, 1:], boxes=boxes[:, 1:])

    @property
    def candidates(self) -> Candidates:
        """Every proposal with its two best classes."""
        best = self.scores.argmax(1)
        own = candidates(self.boxes[torch.arange(len(best)), best], self.scores)
        return replace(own, class_ids=own.class_ids + 1, second_ids=own.second_ids + 1)

    @property
    def floor(self) -> float:
        """0: every proposal is considered with every class."""
        return 0.0

    def other_proposals(self, proposals: Floats) -> int:
        """Return how many proposals are more than a pixel off, on either side."""
        distance = torch.cdist(torch.from_numpy(proposals.copy()), self.proposals, p=torch.inf)
        return sum(int((distance.amin(side) > 1).sum()) for side in (0, 1))

    @torch.inference_mode()
    def follow(self, proposals: Floats) -> "_SeenByFasterRcnn":
        """Return what torchvision computes for other proposals on the same features."""
        return replace(self, proposals=torch.from_numpy(proposals.copy())).computed()

    def considered(self, threshold: float) -> tuple[Candidates, npt.NDArray[np.int64]]:
        """Return the pairs of proposal and class above a threshold, and the proposal of each."""
        rows, class_ids = torch.where(self.scores > threshold)
        large = remove_small_boxes(self.boxes[rows, class_ids], min_size=1e-2)
        rows, class_ids = rows[large], class_ids[large]
        scores = self.scores[rows, class_ids]
        return _pairs(self.boxes[rows, class_ids], scores, class_ids + 1), rows.numpy()

    def in_picture(self, boxes: Floats) -> Floats:
        """Convert boxes to pixels of the picture."""
        return self.input.in_picture(boxes)

    def detect(self, score_threshold: float, iou_threshold: float, most: int = 300) -> Found:
        """Return torchvision's detections with these parameters, from its own proposals."""
        return self.input.detect(
            self.input.module.roi_heads, _parameters(score_threshold, iou_threshold, most)
        )


def _parameters(score_threshold: float, iou_threshold: float, most: int) -> dict[str, float]:
    return {
        "score_thresh": score_threshold,
        "nms_thresh": iou_threshold,
        "detections_per_img": most,
    }


def _read(encoded: bytes) -> Tensor:
    """Return an encoded picture as torchvision's models take it: float [3, height, width]."""
    image: Tensor = ObjectDetection()(upright(encoded))
    return image


def _too_thin(module: Any, image: Tensor) -> bool:
    """Return True if torchvision itself refuses the picture: its resize leaves no pixel."""
    transform, (short, long) = module.transform, sorted(image.shape[1:])
    return short * min(transform.min_size[-1] / short, transform.max_size / long) < 1


def _pairs(boxes: Tensor, scores: Tensor, class_ids: Tensor) -> Candidates:
    """Return candidates that have one class each."""
    ids = class_ids.numpy()
    return Candidates(boxes.numpy(), scores.numpy(), ids, np.full(len(ids), -1, np.float32), ids)


class _Recalled(nn.Module):
    """A module that returns its last result again while its input stays the same.

    The receipt asks for one picture with several thresholds.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.given: tuple[Any, ...] = ()
        self.result: Any = None

    def forward(self, *given: Any) -> Any:
        """Return the module's result."""
        if not _equal(given, self.given):
            self.given, self.result = given, self.module(*given)
        return self.result


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one is other or (one.shape == other.shape and torch.equal(one, other))
    if isinstance(one, ImageList) and isinstance(other, ImageList):
        return _equal(one.tensors, other.tensors) and one.image_sizes == other.image_sizes
    if isinstance(one, dict) and isinstance(other, dict):
        return _equal(list(one.values()), list(other.values()))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one is None and other is None


@contextmanager
def _set(part: Any, settings: Mapping[str, float]) -> Iterator[None]:
    """Give a module other settings for a while."""
    before = {name: getattr(part, name) for name in settings}
    for name, value in settings.items():
        setattr(part, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(part, name, value)
