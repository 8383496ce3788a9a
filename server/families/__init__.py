"""Families of models: what happens to an image before the session, and to its output after."""

from typing import Any, Protocol

from server.card import ModelDocument, Task
from server.families.classifier import Classifier
from server.families.detector import Detector
from server.results import Classified, Detected, Image, Options, Tensor


class Family(Protocol):
    """Turns an image into a model's input and its outputs into an answer. Holds no state."""

    def preprocess(self, image: Image) -> tuple[Tensor, Any]:
        """Return the input [1, 3, height, width] and what postprocess needs to know of the image.

        image: uint8 RGB [H, W, 3].
        """
        ...

    def postprocess(
        self, outputs: list[Tensor], geometry: Any, options: Options
    ) -> Classified | Detected:
        """Return the answer; outputs: one tensor per output of the graph, batch of 1."""
        ...


def family_of(document: ModelDocument) -> Family:
    """Return the family that serves a document's task."""
    if document.task is Task.CLASSIFICATION:
        return Classifier(document)
    return Detector(document)
