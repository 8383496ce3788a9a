"""Families of models: pre-processing before the session, and post-processing after it."""

from typing import Any, Protocol

import numpy as np

from visavis_server.arrays import Image, Tensor
from visavis_server.card import FasterRcnnRows, ModelDocument, RetinanetHeads, Task
from visavis_server.vision.boxes import Boxes
from visavis_server.vision.families.candidates import Rows
from visavis_server.vision.families.classifier import Classifier
from visavis_server.vision.families.detector import Detector
from visavis_server.vision.families.torchvision_detector import TorchvisionDetector
from visavis_server.vision.heat_maps import Explain, HeatMap
from visavis_server.vision.results import Classified, Detected, DetectOptions


class Family(Protocol):
    """Converts an image to a model's input, and the outputs to an answer. Stateless."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of one image in a batch: 3, height, width; the largest if they vary."""
        ...

    def shape_for(self, image: Image) -> tuple[int, int, int]:
        """Return the shape of an image's input: 3, height, width."""
        ...

    def preprocess(self, image: Image, out: Tensor) -> Any:
        """Write the image's input into `out`; return the geometry that postprocess needs.

        image: uint8 RGB [H, W, 3]. out: float32, C-contiguous, of the shape for the image, one
        item of a batch; overwritten completely.
        """
        ...

    def postprocess(
        self, outputs: list[Tensor], geometry: Any, options: Any
    ) -> Classified | Detected:
        """Return the answer; outputs: one tensor per output of the graph, batch of 1.

        options: ClassifyOptions or DetectOptions, as the family's task requires.

        Raises ModelFailed if a number that the answer depends on is NaN or infinite.
        """
        ...

    def require_explainable(self, explain: Explain) -> None:
        """Raise InvalidRequest if `explain` can't give this heat map, whatever the picture."""
        ...

    def explain(self, outputs: list[Tensor], geometry: Any, answer: Any, options: Any) -> HeatMap:
        """Return the heat map that options.explain asks for.

        outputs: the graph's for a batch of 1, also those that only heat maps need, and then the
        initializers in `explanation_constants`. geometry, options: as for postprocess, which
        returned the answer.

        Raises as postprocess does, and InvalidRequest if the outputs can't be explained.
        """
        ...

    def as_tensor(self, outputs: list[Tensor]) -> Tensor:
        """Return the output for clients of the tensor API, which hides the graph's own outputs.

        outputs: as for postprocess. Classifiers: scores [classes], as in the graph.
        Detectors: [4 + classes, n], boxes cxcywh in pixels of the input, then class scores.
        """
        ...


class DetectorFamily(Family, Protocol):
    """A family of detectors; a receipt compares their steps one by one."""

    def proposals(self, outputs: list[Tensor]) -> Boxes:
        """Return what the first of two stages found, xyxy [n, 4]; empty if there is one stage."""
        ...

    def rows(self, outputs: list[Tensor], geometry: Any) -> Rows:
        """Return every row with its best class, before any threshold."""
        ...

    def kept(self, outputs: list[Tensor], geometry: Any, options: DetectOptions) -> Rows:
        """Return what remains after thresholds and suppression, highest score first."""
        ...


def family_of(document: ModelDocument) -> Family:
    """Return the family that serves a document's task."""
    if document.task is Task.CLASSIFICATION:
        return Classifier(document)
    return detector_of(document)


def detector_of(document: ModelDocument) -> DetectorFamily:
    """Return the family that serves a detector's document."""
    if isinstance(document.output, RetinanetHeads | FasterRcnnRows):
        return TorchvisionDetector(document)
    return Detector(document)


def preprocess_one(family: Family, image: Image) -> tuple[Tensor, Any]:
    """Return the input for one image, a batch of 1, and the geometry that postprocess needs."""
    tensor = np.empty((1, *family.shape_for(image)), np.float32)
    return tensor, family.preprocess(image, tensor[0])
