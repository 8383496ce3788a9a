"""What a family hands over: a PyTorch original, the graph to export, and the draft of its card."""

import io
import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PillowImage
from torch import Tensor, nn

from visavis_export.pickled import shown
from visavis_export.weights import Weights
from visavis_server.card import ModelDocument
from visavis_server.settings import ImageLimits
from visavis_server.vision.image import read_file

Floats = npt.NDArray[np.float32]

# Pictures for a receipt are one's own, of any size; the server's limits are for strangers.
LIMITS = ImageLimits(encoded_bytes=1 << 30, decoded_bytes=1 << 31, decode_ms=math.inf)
PillowImage.MAX_IMAGE_PIXELS = None
_Turn = PillowImage.Transpose
# What undoes each EXIF orientation.
_TURNS = {
    2: _Turn.FLIP_LEFT_RIGHT,
    3: _Turn.ROTATE_180,
    4: _Turn.FLIP_TOP_BOTTOM,
    5: _Turn.TRANSPOSE,
    6: _Turn.ROTATE_270,
    7: _Turn.TRANSVERSE,
    8: _Turn.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class Found:
    """The original's detections, highest score first.

    boxes: xyxy [n, 4] in pixels of the original image. scores, class_ids: [n].
    """

    boxes: Floats
    scores: Floats
    class_ids: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Every candidate before suppression, in the original's order.

    boxes: xyxy [n, 4] in pixels of the input. scores, class_ids: of the best class, [n].
    second_scores, second_ids: of the second best, [n]; -1 where there is only one class.
    """

    boxes: Floats
    scores: Floats
    class_ids: npt.NDArray[np.int64]
    second_scores: Floats
    second_ids: npt.NDArray[np.int64]


class Seen(Protocol):
    """What an original detector made of one picture, before any threshold."""

    @property
    def candidates(self) -> Candidates:
        """All of them."""
        ...

    def detect(self, score_threshold: float, iou_threshold: float) -> Found:
        """Return what the original answers at these thresholds, 300 boxes at most."""
        ...

    def in_picture(self, boxes: Floats) -> Floats:
        """Return boxes [n, 4] of the input in pixels of the picture, as the original does."""
        ...


@runtime_checkable
class ClassifierReference(Protocol):
    """The PyTorch original of a classifier, from encoded picture to probabilities."""

    def probabilities(self, encoded: bytes) -> Floats:
        """Return all probabilities [classes]."""
        ...


@runtime_checkable
class DetectorReference(Protocol):
    """The PyTorch original of a detector, from encoded picture to boxes."""

    def look(self, encoded: bytes) -> Seen:
        """Return what it sees in a picture."""
        ...


@dataclass(frozen=True, slots=True)
class Original:
    """A PyTorch model, ready to be exported and to be compared with.

    draft: the document without digest, golden sample and receipt. graph: what becomes the
    ONNX graph, one input to the outputs that the document names.
    """

    draft: ModelDocument
    graph: nn.Module
    reference: ClassifierReference | DetectorReference


def upright(encoded: bytes) -> PillowImage.Image:
    """Return a picture as RGB, turned as a person sees it, as the originals are given it.

    Turned as the server turns it: Pillow believes XMP too, and reads other types of EXIF's
    orientation differently. 16 bits are cut to 8; Pillow would clip grey ones to white.
    """
    turn = _TURNS.get(read_file(encoded, LIMITS).orientation)
    picture: PillowImage.Image = PillowImage.open(io.BytesIO(encoded))
    picture.load()
    if picture.mode.startswith("I"):
        picture = PillowImage.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return (picture if turn is None else picture.transpose(turn)).convert("RGB")


def weights_license(weights: Weights | None, publisher: str, license_id: str) -> tuple[str, str]:
    """Return the licence of the weights and where that is known from.

    publisher: how the publisher's URLs begin, whose weights are under license_id.
    """
    if weights is None:
        return "", "random weights, nobody's"
    if weights.source.startswith(publisher):
        return license_id, f"the licence of {publisher}"
    return "", "the weights were given as a file: its source says"


def candidates(boxes: Tensor, scores: Tensor) -> Candidates:
    """Return boxes xyxy [n, 4] and the scores of all classes [n, classes] as candidates."""
    padded = torch.nn.functional.pad(scores, (0, max(0, 2 - scores.shape[1])), value=-1.0)
    best, class_ids = padded.topk(2, dim=1)
    return Candidates(
        boxes.numpy(),
        best[:, 0].numpy(),
        class_ids[:, 0].numpy(),
        best[:, 1].numpy(),
        class_ids[:, 1].numpy(),
    )


def first_mismatch(error: RuntimeError) -> str:
    """Return the first of the many lines in which PyTorch says that a state doesn't fit."""
    _, *lines = str(error).splitlines()
    first = lines[0].strip() if lines else str(error)
    return f"{shown(first, 300)} ({max(1, len(lines))} such lines)"


def parameter_count(module: nn.Module) -> int:
    """Return how many trained values a module has."""
    return sum(parameter.numel() for parameter in module.parameters())
