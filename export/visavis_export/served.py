"""An exported file, answering through the very code that will serve it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from visavis_export.errors import ExportError
from visavis_export.original import LIMITS, Found
from visavis_server.arrays import Image, Tensor
from visavis_server.card import ModelDocument, output_names
from visavis_server.errors import InvalidRequest
from visavis_server.runtime.session import Session
from visavis_server.vision.families import family_of, preprocess_one
from visavis_server.vision.image import decode
from visavis_server.vision.results import Classified, Detected, Options


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A graph in a session, and the document that says how to use it."""

    document: ModelDocument
    session: Session

    def run(self, image: Image) -> tuple[list[Tensor], Any]:
        """Return the outputs that the family reads, and what its postprocess needs beside them."""
        tensor, geometry = preprocess_one(family_of(self.document), image)
        return self.session.run(tensor, output_names(self.document)), geometry

    def answer(self, image: Image, options: Options) -> Classified | Detected:
        """Return the answer on an image, uint8 RGB [H, W, 3]."""
        outputs, geometry = self.run(image)
        return family_of(self.document).postprocess(
            outputs, geometry, options.of(self.document.task)
        )


def read_image(name: str, encoded: bytes) -> Image:
    """Return a picture as the server decodes it; raises ExportError, naming it, if it can't."""
    try:
        return decode(encoded, LIMITS)
    except InvalidRequest as error:
        raise ExportError(f"the picture {name!r}: {error}") from None


def found(answer: Detected) -> Found:
    """Return a detector's answer as the originals give theirs."""
    boxes = [(d.box.x_min, d.box.y_min, d.box.x_max, d.box.y_max) for d in answer.detections]
    return Found(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([d.score for d in answer.detections], np.float32),
        np.array([d.class_id for d in answer.detections], np.int64),
    )
