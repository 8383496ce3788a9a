"""Runs an exported file through the server's own code."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from visavis_export.families.original import Found
from visavis_server.arrays import Image, Tensor
from visavis_server.card import ModelDocument, output_names
from visavis_server.runtime.session import Session
from visavis_server.vision.families import family_of, preprocess_one
from visavis_server.vision.results import Classified, Detected, Options


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A graph in a session, with the document that describes its input and output."""

    document: ModelDocument
    session: Session

    def run(self, image: Image) -> tuple[list[Tensor], Any]:
        """Return the raw outputs and the geometry that the family's postprocess needs."""
        tensor, geometry = preprocess_one(family_of(self.document), image)
        return self.session.run(tensor, output_names(self.document)), geometry

    def outputs(self, image: Image, names: list[str]) -> list[Tensor]:
        """Return some of the graph's outputs."""
        tensor, _ = preprocess_one(family_of(self.document), image)
        return self.session.run(tensor, names)

    def answer(self, image: Image, options: Options) -> Classified | Detected:
        """Return the answer for an image, uint8 RGB [H, W, 3]."""
        outputs, geometry = self.run(image)
        return family_of(self.document).postprocess(
            outputs, geometry, options.of(self.document.task)
        )


def found(answer: Detected) -> Found:
    """Return a detector's answer in the form that the originals use."""
    boxes = [(d.box.x_min, d.box.y_min, d.box.x_max, d.box.y_max) for d in answer.detections]
    return Found(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([d.score for d in answer.detections], np.float32),
        np.array([d.class_id for d in answer.detections], np.int64),
    )
