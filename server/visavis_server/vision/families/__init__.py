"""Families of models: what happens to an image before the session, and to its output after."""

from typing import Any, Protocol

import numpy as np

from visavis_server.arrays import Image, Tensor
from visavis_server.card import ModelDocument, Task
from visavis_server.vision.families.classifier import Classifier
from visavis_server.vision.families.detector import Detector
from visavis_server.vision.results import Classified, Detected


class Family(Protocol):
    """Turns an image into a model's input and its outputs into an answer. Holds no state."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of one image in a batch: 3, height, width."""
        ...

    def preprocess(self, image: Image, out: Tensor) -> Any:
        """Write the image's input into `out`; return what postprocess needs to know of it.

        image: uint8 RGB [H, W, 3]. out: float32, C-contiguous, of input_shape: a place in a
        batch. All of it is overwritten.
        """
        ...

    def postprocess(
        self, outputs: list[Tensor], geometry: Any, options: Any
    ) -> Classified | Detected:
        """Return the answer; outputs: one tensor per output of the graph, batch of 1.

        options: ClassifyOptions or DetectOptions, as the family's task requires.

        Raises ModelFailed if a number that the answer is made from is NaN or infinite.
        """
        ...

    def as_tensor(self, outputs: list[Tensor]) -> Tensor:
        """Return what clients read who call with tensors, whatever the graph's outputs are.

        outputs: as for postprocess. Classifiers: scores [classes], as the graph gives them.
        Detectors: [4 + classes, n], boxes cxcywh in pixels of the input, then class scores.
        """
        ...


def family_of(document: ModelDocument) -> Family:
    """Return the family that serves a document's task."""
    if document.task is Task.CLASSIFICATION:
        return Classifier(document)
    return Detector(document)


def preprocess_one(family: Family, image: Image) -> tuple[Tensor, Any]:
    """Return the input for one image, a batch of 1, and what postprocess needs to know of it."""
    tensor = np.empty((1, *family.input_shape), np.float32)
    return tensor, family.preprocess(image, tensor[0])
