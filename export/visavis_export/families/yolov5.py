"""YOLOv5: the anchor-based detectors and ImageNet classifiers of ultralytics/yolov5."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torchvision
from PIL import Image as PillowImage
from torch import Tensor, nn

from visavis_export.checkpoints import modules
from visavis_export.checkpoints.checkpoint import YoloCheckpoint
from visavis_export.checkpoints.description import read_description
from visavis_export.checkpoints.pickled import Inert
from visavis_export.checkpoints.published import SIZES, describe
from visavis_export.checkpoints.weights import Weights
from visavis_export.errors import CheckpointError, ExportError
from visavis_export.families import random_weights
from visavis_export.families.evaluation import evaluate, evaluate_map
from visavis_export.families.original import (
    Candidates,
    Floats,
    Found,
    Original,
    Seen,
    activation_map,
    candidates,
    first_mismatch,
    parameter_count,
    upright,
    weights_license,
)
from visavis_export.families.resnet import imagenet_labels
from visavis_export.families.yolov5_modules import (
    Classify,
    Detect,
    ExplainedClassify,
    Network,
    SplitDetect,
    build_classifier,
    build_detector,
    read_network,
)
from visavis_server.card import (
    CenterSquare,
    ClassActivation,
    ClassScores,
    DetectionDefaults,
    Facts,
    LabelSet,
    Letterbox,
    ModelDocument,
    ModelInput,
    Provenance,
    Task,
    Yolov5Heads,
)
from visavis_server.vision.labels import name_of_label_set

# Custom checkpoints: any network made of YOLOv5's layers, of a published size or not.
ANY_DETECTOR, ANY_CLASSIFIER = "yolov5", "yolov5-cls"
DETECTORS = (*(f"yolov5{size}{six}" for six in ("", "6") for size in SIZES), ANY_DETECTOR)
CLASSIFIERS = (*(f"yolov5{size}-cls" for size in SIZES), ANY_CLASSIFIER)

_README = "README of ultralytics/yolov5"
# Pictures whose outputs are remembered: 8 MiB each, at 640 pixels.
_REMEMBERED = 16
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build_yolov5(
    name: str,
    checkpoint: YoloCheckpoint | None,
    weights: Weights | None,
    provenance: Provenance,
    size: int | None,
) -> Original:
    """Return a YOLOv5 detector; checkpoint None: random weights.

    name: one of DETECTORS. size: side of the input in pixels; None: the training's, or 640
    (1280 for P6). Raises ExportError if the checkpoint is another model or doesn't fit.
    """
    if checkpoint is None:
        random_weights.seed()
        network = build_detector(describe(name[6], 80, name.endswith("6")))
        labels = coco_labels()
        random_weights.calibrate(network, _spreads(network), letterboxed_pictures())
    else:
        require(name, checkpoint)
        check_yaml(checkpoint)
        network = read_network(checkpoint.model)
        load_state(network, checkpoint.state, name)
        labels = checkpoint.names
    head = network.head
    if not isinstance(head, Detect):
        raise ExportError(f"the checkpoint's last layer is not a Detect, as {name} requires")
    usual = 1280 if max(head.strides) > 32 else 640
    side = size or multiple(own_size(checkpoint) or usual, max(head.strides))
    if side % max(head.strides):
        raise ExportError(f"the input size {side} is not a multiple of {max(head.strides)}")
    require_names(labels, head.outputs - 5)
    anchors = head.anchors * torch.tensor(head.strides)[:, None, None]
    draft = ModelDocument(
        name=name,
        task=Task.OBJECT_DETECTION,
        precision="fp32",
        label_set=LabelSet(name=name_of_label_set(labels), labels=labels),
        input=ModelInput(tensor="image", width=side, height=side, resize=Letterbox(unpad="exact")),
        output=Yolov5Heads(
            objectness=tuple(f"objectness_{stride}" for stride in head.strides),
            features=tuple(f"features_{stride}" for stride in head.strides),
            weights=tuple(f"weights_{stride}" for stride in head.strides),
            anchors=tuple(tuple((w, h) for w, h in scale) for scale in anchors.tolist()),
            strides=head.strides,
        ),
        detection_defaults=DetectionDefaults(score_threshold=0.25, iou_threshold=0.45),
        facts=facts(name, checkpoint, network, weights, real_time=True),
        provenance=provenance,
    )
    # Random weights have no checkpoint to evaluate independently.
    rows = evaluation(checkpoint) if checkpoint else lambda x: head.decode(network(x))
    cells = Cells(head.strides, head.anchors.shape[1], _scores)
    reference = YoloReference(rows, side, _candidates, unletterbox, cells)
    return Original(draft, network.with_head(SplitDetect(head)), reference)


def build_yolov5_classifier(
    name: str,
    checkpoint: YoloCheckpoint | None,
    weights: Weights | None,
    provenance: Provenance,
    size: int | None,
) -> Original:
    """Return a YOLOv5 classifier; checkpoint None: random weights.

    name: one of CLASSIFIERS. size: side of the input in pixels; None: the training's, or 224.
    Raises ExportError if the checkpoint is another model or doesn't fit.
    """
    if checkpoint is None:
        random_weights.seed()
        network = build_classifier(describe(name[6], 80), 1000)
        labels = imagenet_labels()
        assert isinstance(network.head, Classify)
        spread = random_weights.Spread(
            network.head.linear, torch.zeros(1000), torch.full((1000,), 6.0)
        )
        images = random_weights.images(lambda picture: picture.resize((224, 224)))
        random_weights.calibrate(network, [spread], (images - 0.45) / 0.225)
    else:
        require(name, checkpoint)
        labels = checkpoint.names or imagenet_labels()
        network = read_network(checkpoint.model)
        load_state(network, checkpoint.state, name)
        if not isinstance(network.head, Classify):
            raise ExportError(f"the checkpoint's last layer is not a Classify, as {name} requires")
        require_names(labels, network.head.linear.out_features)
    side = size or own_size(checkpoint) or 224
    draft = ModelDocument(
        name=name,
        task=Task.CLASSIFICATION,
        precision="fp32",
        label_set=LabelSet(name=name_of_label_set(labels), labels=labels),
        input=ModelInput(
            tensor="image",
            width=side,
            height=side,
            resize=CenterSquare(),
            mean=_MEAN,
            std=_STD,
        ),
        output=ClassScores(
            layout="logits",
            tensor="logits",
            activation=ClassActivation(features="features", weights=""),
        ),
        facts=facts(name, checkpoint, network, weights, real_time=None),
        provenance=provenance,
    )
    logits = evaluation(checkpoint) if checkpoint else network
    head = network.head
    assert isinstance(head, Classify)

    def mapped(images: Tensor, class_id: int) -> Floats:
        if checkpoint:
            return evaluate_map(checkpoint.model, images, class_id)
        return activation_map(network, head.conv, head.linear, images, class_id)

    graph = network.with_head(ExplainedClassify(head))
    return Original(draft, graph, _ClassifierReference(logits, mapped, side))


def require_names(labels: tuple[str, ...], classes: int) -> None:
    """Raise ExportError unless each of a model's classes has a name."""
    if len(labels) != classes:
        raise ExportError(
            f"the model has {classes} classes, but {len(labels)} class names; name each class once "
            "with --class-names FILE, one per line"
        )


def check_yaml(checkpoint: YoloCheckpoint) -> None:
    """Raise CheckpointError if a checkpoint has a yaml that does not describe its modules."""
    if checkpoint.yaml is None:
        return
    description = read_description(checkpoint.yaml)
    layers = modules.sequence(*modules.children(checkpoint.model, "model"))
    rows = [*description["backbone"], *description["head"]]
    described = [(row[2].removeprefix("nn."), row[0]) for row in rows]
    built = [(_repeated(layer), _plain(layer.state.get("f"))) for layer in layers]
    if described != built:
        shorter = min(len(described), len(built))
        pairs = enumerate(zip(described, built, strict=False))
        index = next((i for i, (one, other) in pairs if one != other), shorter)
        raise CheckpointError(
            f"its yaml has {len(described)} layers and its model {len(built)}, and they differ at "
            f"layer {index}; save the model as it was trained"
        )


def evaluation(checkpoint: YoloCheckpoint) -> Callable[[Tensor], Tensor]:
    """Return a function that evaluates a checkpoint independently of the exported network."""
    return lambda images: evaluate(checkpoint.model, images)


def own_size(checkpoint: YoloCheckpoint | None) -> int | None:
    """Return the side of a checkpoint's training images in pixels; None if unknown."""
    return checkpoint.image_size if checkpoint else None


def require(name: str, checkpoint: YoloCheckpoint) -> None:
    """Raise ExportError, naming the model, unless a checkpoint can be exported as `name`."""
    identity = checkpoint.identity
    if name not in identity.names:
        raise ExportError(f"the checkpoint is {identity.title}, not {name}; {identity.advice}")


def load_state(module: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load a checkpoint's tensors; raises ExportError unless they fit exactly."""
    # Releases up to v6.0 store the anchors a second time.
    state = {key: value for key, value in state.items() if not key.endswith("anchor_grid")}
    try:
        module.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ExportError(f"the checkpoint doesn't fit {name}: {first_mismatch(error)}") from None


def coco_labels() -> tuple[str, ...]:
    """Return the names of COCO's 80 classes: torchvision's 91 without the unused ones."""
    weights = torchvision.models.detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1
    unused = ("__background__", "N/A")
    return tuple(label for label in weights.meta["categories"] if label not in unused)


def facts(
    name: str,
    checkpoint: YoloCheckpoint | None,
    module: nn.Module,
    weights: Weights | None,
    real_time: bool | None,
) -> Facts:
    """Return the card's facts for a model of the YOLOv5 family."""
    classifies = name.endswith("-cls")
    license_id, license_source = weights_license(
        weights, "https://github.com/ultralytics", "AGPL-3.0-only"
    )
    return Facts(
        architecture=(
            checkpoint.identity.title.removeprefix("a ")
            if checkpoint
            else name.replace("yolov5", "YOLOv5")
        ),
        organization="Ultralytics",
        category="open",
        modality="vision",
        release_date="2022-08-17" if classifies else "2020-06",
        parameter_count=parameter_count(module),
        code_license="AGPL-3.0-only",
        weights_license=license_id,
        real_time=real_time,
        sources={
            "architecture": "ultralytics/yolov5, models/",
            "organization": _README,
            "category": "weights and code are published",
            "release_date": "ultralytics/yolov5, release v6.2, the first with classifiers"
            if classifies
            else "first release, v1.0, in June 2020; the repository's CITATION.cff says "
            "2020-05-29 and its first README 2020-05-27",
            "parameter_count": "counted from the PyTorch module",
            "code_license": "ultralytics/yolov5, LICENSE; GPL-3.0 until 2023",
            "weights_license": license_source,
            **({"real_time": f"speeds in the {_README}"} if real_time else {}),
        },
    )


@dataclass(frozen=True, slots=True)
class Place:
    """The placement of a picture of [height, width] in a square input of `side` pixels."""

    height: int
    width: int
    side: int

    @property
    def scale(self) -> float:
        """Pixels of the input per pixel of the picture."""
        return min(self.side / self.height, self.side / self.width)


@dataclass(frozen=True, slots=True)
class Cells:
    """The order of a detector's rows: for each scale and anchor one per cell, line by line.

    strides: pixels per cell, by scale. scores: rows to the scores of all classes, [n, classes].
    """

    strides: tuple[int, ...]
    anchors: int
    scores: Callable[[Tensor], Tensor]

    def map(self, scores: Tensor, side: int) -> Tensor:
        """Return the largest of the scores [n] of one class for each of the smallest cells."""
        sides = [side // stride for stride in self.strides]
        parts = torch.split(scores, [self.anchors * cells * cells for cells in sides])
        maps = [
            part.reshape(1, self.anchors, cells, cells).amax(1, keepdim=True)
            for part, cells in zip(parts, sides, strict=True)
        ]
        scaled = [torch.nn.functional.interpolate(one, (max(sides),) * 2) for one in maps]
        return torch.stack(scaled).amax(0)[0, 0]


@dataclass(frozen=True, slots=True)
class YoloReference:
    """An original detector: letterbox, network, suppression, conversion to the picture's pixels.

    network: images [1, 3, side, side] to rows. candidates: rows to candidates. unletterbox:
    boxes [n, 4] in pixels of the input to pixels of the picture. cells: what the rows are.
    """

    network: Callable[[Tensor], Tensor]
    side: int
    candidates: Callable[[Tensor], Candidates]
    unletterbox: Callable[[Floats, Place], Floats]
    cells: Cells
    # A receipt asks for the rows and for a heat map of each picture, once for each precision.
    _latest: dict[bytes, tuple[Tensor, Place]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @torch.inference_mode()
    def look(self, encoded: bytes) -> Seen:
        """Return the network's output for an encoded picture."""
        rows, place = self._rows(encoded)
        return _Seen(self.candidates(rows), place, self.unletterbox)

    @torch.inference_mode()
    def heat_map(self, encoded: bytes, class_id: int) -> Floats:
        """Return the best score of a class in each of the smallest cells that show the picture."""
        rows, place = self._rows(encoded)
        values = self.cells.map(self.cells.scores(rows)[:, class_id], self.side)
        cell = min(self.cells.strides)
        height, width = (max(round(n * place.scale), 1) for n in (place.height, place.width))
        top, left = (round((self.side - n) / 2 - 0.1) for n in (height, width))
        shown: Floats = values[
            top // cell : math.ceil((top + height) / cell),
            left // cell : math.ceil((left + width) / cell),
        ].numpy()
        return shown

    def _rows(self, encoded: bytes) -> tuple[Tensor, Place]:
        """Return the network's output; that of the latest pictures is remembered."""
        if encoded not in self._latest:
            if len(self._latest) == _REMEMBERED:
                del self._latest[next(iter(self._latest))]
            self._latest[encoded] = self._evaluated(encoded)
        return self._latest[encoded]

    def _evaluated(self, encoded: bytes) -> tuple[Tensor, Place]:
        picture = np.asarray(upright(encoded))
        place = Place(picture.shape[0], picture.shape[1], self.side)
        image = torch.from_numpy(letterboxed(picture, self.side).transpose(2, 0, 1).copy())
        return self.network(image[None].float() / 255)[0], place


@dataclass(frozen=True, slots=True)
class _Seen:
    candidates: Candidates
    place: Place
    unletterbox: Callable[[Floats, Place], Floats]

    @property
    def floor(self) -> float:
        """0: candidates are only limited to 30,000, which `find_difference` allows for."""
        return 0.0

    def other_proposals(self, proposals: Floats) -> int:
        """Return 0: it has no proposals."""
        return 0

    def follow(self, proposals: Floats) -> "_Seen":
        """Return the same: it has no proposals."""
        return self

    def considered(self, threshold: float) -> tuple[Candidates, npt.NDArray[np.int64]]:
        """Return the rows above a threshold, each with its best class, and their indices."""
        rows = np.flatnonzero(self.candidates.scores > threshold)
        return self.candidates.take(rows), rows

    def in_picture(self, boxes: Floats) -> Floats:
        """Convert boxes to pixels of the picture."""
        return self.unletterbox(boxes, self.place)

    def detect(self, score_threshold: float, iou_threshold: float, most: int = 300) -> Found:
        """Return YOLOv5's detections: best class per box, suppression by torchvision."""
        every = self.candidates
        above = np.flatnonzero(every.scores > score_threshold)
        above = above[np.argsort(-every.scores[above], kind="stable")][:30_000]
        # Offset each class by 7680 pixels, so that suppression never compares two classes.
        shifted = torch.from_numpy(every.boxes[above])
        shifted = shifted + torch.from_numpy(every.class_ids[above])[:, None] * 7680
        kept = torchvision.ops.nms(shifted, torch.from_numpy(every.scores[above]), iou_threshold)
        best = above[kept[:most].numpy()]
        return Found(self.in_picture(every.boxes[best]), every.scores[best], every.class_ids[best])


def letterboxed_pictures() -> Tensor:
    """Return letterboxed synthetic pictures, to calibrate random weights with."""

    def fit(picture: PillowImage.Image) -> PillowImage.Image:
        return PillowImage.fromarray(letterboxed(np.asarray(picture), 640))

    return random_weights.images(fit)


def letterboxed(picture: np.ndarray, side: int) -> np.ndarray:
    """Return a picture [H, W, 3] scaled to fit a square and padded with grey, as in YOLOv5."""
    height, width = picture.shape[:2]
    scale = min(side / height, side / width)
    new_width, new_height = max(round(width * scale), 1), max(round(height * scale), 1)
    if (new_width, new_height) != (width, height):
        picture = cv2.resize(picture, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    half_x, half_y = (side - new_width) / 2, (side - new_height) / 2
    return cv2.copyMakeBorder(
        picture,
        round(half_y - 0.1),
        round(half_y + 0.1),
        round(half_x - 0.1),
        round(half_x + 0.1),
        cv2.BORDER_CONSTANT,
        value=(114, 114, 114),
    )


def unletterbox(boxes: Floats, place: Place) -> Floats:
    """Convert boxes to pixels of the picture and clip them, as YOLOv5's scale_boxes does."""
    pad_x = (place.side - place.width * place.scale) / 2
    pad_y = (place.side - place.height * place.scale) / 2
    moved = torch.from_numpy(boxes) - torch.tensor([pad_x, pad_y, pad_x, pad_y])
    moved = moved / place.scale
    moved[:, 0::2].clamp_(0, place.width)
    moved[:, 1::2].clamp_(0, place.height)
    result: Floats = moved.numpy()
    return result


def _candidates(rows: Tensor) -> Candidates:
    """Convert rows [n, 5 + classes] to candidates: score = objectness * class score."""
    boxes = torchvision.ops.box_convert(rows[:, :4], "cxcywh", "xyxy")
    return candidates(boxes, _scores(rows))


def _scores(rows: Tensor) -> Tensor:
    """Return the scores [n, classes] of rows [n, 5 + classes]."""
    return rows[:, 5:] * rows[:, 4:5]


def _spreads(network: Network) -> list[random_weights.Spread]:
    """Return the target ranges of the head's channels: few cells with an object, varied classes."""
    head = network.head
    assert isinstance(head, Detect)
    median = torch.zeros(head.outputs)
    median[4], median[5:] = -3.0, -2.0
    reach = torch.full((head.outputs,), 3.0)
    spreads = []
    for conv in head.m:
        assert isinstance(conv, nn.Conv2d)
        repeats = conv.out_channels // head.outputs
        spreads.append(random_weights.Spread(conv, median.repeat(repeats), reach.repeat(repeats)))
    return spreads


def _repeated(layer: Inert) -> str:
    """Return a layer's class; for a Sequential of repeated layers, the class of the first."""
    if modules.kind(layer) == "Sequential" and (parts := modules.sequence(layer)):
        return modules.kind(parts[0])
    return modules.kind(layer)


def _plain(source: object) -> object:
    return list(source) if isinstance(source, tuple) else source


def multiple(side: int, stride: int) -> int:
    """Return a side rounded up to a multiple of the stride, as in YOLOv5."""
    return math.ceil(side / stride) * stride


@dataclass(frozen=True, slots=True)
class _ClassifierReference:
    """YOLOv5's classification pipeline: centre square, OpenCV's resize, ImageNet's mean."""

    network: Callable[[Tensor], Tensor]
    map: Callable[[Tensor, int], Floats]
    side: int

    @torch.inference_mode()
    def probabilities(self, encoded: bytes) -> Floats:
        probabilities: Floats = self.network(self._input(encoded)).softmax(1)[0].numpy()
        return probabilities

    @torch.inference_mode()
    def heat_map(self, encoded: bytes, class_id: int) -> Floats:
        return self.map(self._input(encoded), class_id)

    def _input(self, encoded: bytes) -> Tensor:
        picture = np.asarray(upright(encoded))
        height, width = picture.shape[:2]
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        square = picture[top : top + short, left : left + short]
        resized = cv2.resize(square, (self.side, self.side), interpolation=cv2.INTER_LINEAR)
        image = torchvision.transforms.functional.to_tensor(resized)
        image = torchvision.transforms.functional.normalize(image, list(_MEAN), list(_STD))
        return image[None]
