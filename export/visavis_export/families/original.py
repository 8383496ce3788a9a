"""The result of a family: a PyTorch original, the module to export, and the draft document."""

import io
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PillowImage
from torch import Tensor, nn

from visavis_export.checkpoints.pickled import shown
from visavis_export.checkpoints.weights import Weights
from visavis_export.pictures.files import LIMITS
from visavis_server.card import ModelDocument
from visavis_server.vision.image import read_file

Floats = npt.NDArray[np.float32]

# The pictures are the user's own and may have any size.
PillowImage.MAX_IMAGE_PIXELS = None
_Turn = PillowImage.Transpose
# The transposition that undoes each EXIF orientation.
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
    """The detections of one picture, highest score first.

    boxes: xyxy [n, 4] in pixels of the original image. scores, class_ids: [n].
    """

    boxes: Floats
    scores: Floats
    class_ids: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows of a detector's output before suppression, in the original's order.

    boxes: xyxy [n, 4] in pixels of the input. scores, class_ids: of the best class, [n].
    second_scores, second_ids: of the second-best class, [n]; a score of -1 if there is only one.
    """

    boxes: Floats
    scores: Floats
    class_ids: npt.NDArray[np.int64]
    second_scores: Floats
    second_ids: npt.NDArray[np.int64]

    def take(self, which: npt.NDArray[np.integer]) -> "Candidates":
        """Return some of the rows, by index."""
        return Candidates(
            self.boxes[which],
            self.scores[which],
            self.class_ids[which],
            self.second_scores[which],
            self.second_ids[which],
        )


class Considered(Protocol):
    """The candidates of a detector for one picture, from which suppression chooses."""

    def considered(self, threshold: float) -> tuple[Candidates, npt.NDArray[np.int64]]:
        """Return what suppression chooses from if it scores above a threshold, and its rows."""
        ...

    def in_picture(self, boxes: Floats) -> Floats:
        """Convert boxes [n, 4] from pixels of the input to pixels of the picture."""
        ...


class Seen(Considered, Protocol):
    """An original detector's output for one picture, before any threshold."""

    @property
    def candidates(self) -> Candidates:
        """Every row with its two best classes."""
        ...

    @property
    def floor(self) -> float:
        """The lowest score threshold at which every candidate above it is considered."""
        ...

    def other_proposals(self, proposals: Floats) -> int:
        """Return how many proposals [n, 4] are not the original's, or are missing."""
        ...

    def follow(self, proposals: Floats) -> "Seen":
        """Return what the rest of the original computes from these proposals [n, 4], if any.

        Near ties decide which proposals a detector of two stages considers.
        """
        ...

    def detect(self, score_threshold: float, iou_threshold: float, most: int = 300) -> Found:
        """Return the original's detections at these thresholds, at most `most`."""
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

    def look(self, encoded: bytes) -> Seen | None:
        """Return the output for an encoded picture; None if the original refuses it."""
        ...


@runtime_checkable
class MapReference(Protocol):
    """An original whose heat maps can be compared."""

    def heat_map(self, encoded: bytes, class_id: int) -> Floats:
        """Return the map of a class for an encoded picture: [rows, columns] of cells."""
        ...


@dataclass(frozen=True, slots=True)
class Original:
    """A PyTorch model to export, and the reference to compare the exported file with.

    draft: the document without digest, golden sample and receipt. graph: the module that becomes
    the ONNX graph, from one input to the outputs that the document names.
    """

    draft: ModelDocument
    graph: nn.Module
    reference: ClassifierReference | DetectorReference


def upright(encoded: bytes) -> PillowImage.Image:
    """Return a picture as the originals' input: upright RGB.

    Applies the EXIF orientation by the server's rules: Pillow also honours XMP, and reads other
    types of the EXIF tag differently. 16-bit values are truncated to 8 bits; Pillow would clip
    grey pictures to white.
    """
    turn = _TURNS.get(read_file(encoded, LIMITS).orientation)
    picture: PillowImage.Image = PillowImage.open(io.BytesIO(encoded))
    picture.load()
    if picture.mode.startswith("I"):
        picture = PillowImage.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return (picture if turn is None else picture.transpose(turn)).convert("RGB")


def weights_license(weights: Weights | None, publisher: str, license_id: str) -> tuple[str, str]:
    """Return the licence of the weights and the source of this information.

    publisher: the prefix of the publisher's URLs. license_id: the licence of its weights.
    """
    if weights is None:
        return "", "random weights have no licence"
    if weights.source.startswith(publisher):
        return license_id, f"the licence of {publisher}"
    return "", "the weights were given as a file: its source says"


def candidates(boxes: Tensor, scores: Tensor) -> Candidates:
    """Convert boxes xyxy [n, 4] and the scores of all classes [n, classes] to candidates."""
    padded = torch.nn.functional.pad(scores, (0, max(0, 2 - scores.shape[1])), value=-1.0)
    best, class_ids = padded.topk(2, dim=1)
    return Candidates(
        boxes.numpy(),
        best[:, 0].numpy(),
        class_ids[:, 0].numpy(),
        best[:, 1].numpy(),
        class_ids[:, 1].numpy(),
    )


def activation_map(
    module: nn.Module, layer: nn.Module, linear: nn.Module, images: Tensor, class_id: int
) -> Floats:
    """Return the class activation map of an image [1, 3, height, width]: [h, w].

    layer: the one whose output is averaged over the image; a hook reads it. linear: the last layer.
    """
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda *call: seen.append(call[-1]))
    try:
        module(images)
    finally:
        hook.remove()
    assert isinstance(linear, nn.Linear)
    mapped: Floats = torch.tensordot(linear.weight[class_id], seen[0][0], dims=1).numpy()
    return mapped


def first_mismatch(error: RuntimeError) -> str:
    """Return the first line of PyTorch's report on a state_dict that doesn't fit, and the count."""
    _, *lines = str(error).splitlines()
    first = lines[0].strip() if lines else str(error)
    return f"{shown(first, 300)} ({max(1, len(lines))} such lines)"


def parameter_count(module: nn.Module) -> int:
    """Return the number of a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
