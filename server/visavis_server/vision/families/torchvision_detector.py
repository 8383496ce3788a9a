"""torchvision's detection: GeneralizedRCNNTransform before, per-class suppression after."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from visavis_server.arrays import Image, Tensor
from visavis_server.card import FasterRcnnRows, ModelDocument, RetinanetHeads, ShorterSideWithin
from visavis_server.errors import InvalidRequest
from visavis_server.vision import boxes
from visavis_server.vision.families.box_coding import clip
from visavis_server.vision.families.candidates import Rows, detected, given, suppressed, wanted
from visavis_server.vision.families.faster_rcnn import FasterRcnnDecoder
from visavis_server.vision.families.interpolation import interpolate
from visavis_server.vision.families.retinanet import RetinanetDecoder
from visavis_server.vision.heat_maps import Explain, HeatMap
from visavis_server.vision.results import Detected, DetectOptions


@dataclass(frozen=True, slots=True)
class Scaled:
    """The sizes of a picture before and after its resize, in pixels."""

    width: int
    height: int
    input_width: int
    input_height: int

    def to_original(self, corners: boxes.Boxes) -> boxes.Boxes:
        """Return boxes xyxy [n, 4] of the input in pixels of the picture."""
        scale = np.array(
            [self.width / self.input_width, self.height / self.input_height] * 2, np.float32
        )
        return clip(corners * scale, self.width, self.height)


class _Decoder(Protocol):
    @property
    def most_candidates(self) -> int:
        """The most candidates that the tensor of `as_tensor` holds."""
        ...

    def proposals(self, outputs: list[Tensor]) -> boxes.Boxes:
        """Return what the first of two stages found; empty if there is one stage."""
        ...

    def candidates(self, outputs: list[Tensor], size: tuple[int, int], threshold: float) -> Rows:
        """Return the candidates that score above a threshold."""
        ...

    def rows(self, outputs: list[Tensor], size: tuple[int, int]) -> Rows:
        """Return every anchor or proposal with its best class."""
        ...


class TorchvisionDetector:
    """Pre- and post-processing of one of torchvision's detectors.

    The input is as large as the resized picture; the graph pads it.
    """

    def __init__(self, document: ModelDocument) -> None:
        resize, output = document.input.resize, document.output
        assert isinstance(resize, ShorterSideWithin)
        assert isinstance(output, RetinanetHeads | FasterRcnnRows)
        assert document.detection_defaults is not None
        self._name = document.name
        self._resize = resize
        self._labels = document.label_set.labels
        self._defaults = document.detection_defaults
        self._decoder: _Decoder
        if isinstance(output, RetinanetHeads):
            self._decoder = RetinanetDecoder(output, len(self._labels))
        else:
            self._decoder = FasterRcnnDecoder()
        self._scale = 1 / (255 * np.array(document.input.std, np.float64))
        self._offset = -np.array(document.input.mean) / np.array(document.input.std)
        self.input_shape = (3, document.input.height, document.input.width)

    def shape_for(self, image: Image) -> tuple[int, int, int]:
        """Return the shape of an image's input: 3, height, width."""
        height, width = image.shape[:2]
        short, long = min(height, width), max(height, width)
        # torchvision rounds down. It refuses a picture so thin that no pixel is left.
        scale = min(self._resize.size / short, self._resize.longest / long)
        return 3, max(math.floor(height * scale), 1), max(math.floor(width * scale), 1)

    def preprocess(self, image: Image, out: Tensor) -> Scaled:
        """Write the image, resized and normalised, into `out`; return the sizes."""
        interpolate(image, self._scale.astype(np.float32), self._offset.astype(np.float32), out)
        return Scaled(image.shape[1], image.shape[0], out.shape[2], out.shape[1])

    def postprocess(
        self, outputs: list[Tensor], geometry: Scaled, options: DetectOptions
    ) -> Detected:
        """Return the detections; outputs: the graph's, for a batch of 1.

        Raises ModelFailed if a number that they depend on is not finite.
        """
        kept = self.kept(outputs, geometry, options)
        return detected(kept, geometry.to_original(kept.boxes), self._labels)

    def kept(self, outputs: list[Tensor], geometry: Scaled, options: DetectOptions) -> Rows:
        """Return what remains after thresholds and suppression, highest score first."""
        threshold = given(options.score_threshold, self._defaults.score_threshold)
        size = geometry.input_width, geometry.input_height
        rows = self._decoder.candidates(outputs, size, threshold)
        rows = wanted(rows, self._labels, options)
        return suppressed(rows, self._defaults, options, exact=True)

    def proposals(self, outputs: list[Tensor]) -> boxes.Boxes:
        """Return Faster R-CNN's proposals, xyxy [n, 4] in the input; RetinaNet has none."""
        return self._decoder.proposals(outputs)

    def rows(self, outputs: list[Tensor], geometry: Scaled) -> Rows:
        """Return every anchor or proposal with its best class, before any threshold."""
        return self._decoder.rows(outputs, (geometry.input_width, geometry.input_height))

    def require_explainable(self, explain: Explain) -> None:
        """Raise InvalidRequest: no heat maps are known for these detectors."""
        raise InvalidRequest(
            "explain",
            f"model {self._name} has no heat maps; ResNets and YOLOv5 have them",
        )

    def explain(
        self, outputs: list[Tensor], geometry: Scaled, answer: Detected, options: DetectOptions
    ) -> HeatMap:
        """Raise InvalidRequest, as require_explainable does."""
        assert options.explain is not None
        self.require_explainable(options.explain)
        raise AssertionError("require_explainable raises")

    def as_tensor(self, outputs: list[Tensor]) -> Tensor:
        """Return the best candidates [4 + classes, most_candidates].

        Each is a box with one class; the scores of its other classes are 0. The rest is zeros.
        """
        most = self._decoder.most_candidates
        unlimited = self.input_shape[2], self.input_shape[1]
        rows = self._decoder.candidates(outputs, unlimited, 0.0).best(most)
        tensor = np.zeros((4 + len(self._labels), most), np.float32)
        places = np.arange(len(rows.scores))
        tensor[:4, places] = boxes.xyxy_to_cxcywh(rows.boxes).T
        tensor[4 + rows.class_ids, places] = rows.scores
        return tensor

    @property
    def tensor_shape(self) -> tuple[int, int]:
        """The shape of what `as_tensor` returns."""
        return 4 + len(self._labels), self._decoder.most_candidates
