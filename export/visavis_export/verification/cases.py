"""A picture of a verification, with what the original makes of it."""

from dataclasses import dataclass

import numpy as np

from visavis_export.errors import ExportError
from visavis_export.families.original import Floats, Found
from visavis_export.pictures.files import read_image
from visavis_export.verification.foreign_file import ForeignFile
from visavis_export.verification.originals import Original, Seen
from visavis_export.verification.pipelines import Geometry
from visavis_server.arrays import Image
from visavis_server.vision.results import Box, Classification, Classified, Detected, Detection

# Score thresholds to try after the usual one, until a picture has something to compare.
_THRESHOLDS = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True, slots=True)
class Case:
    """One picture: encoded, decoded, and the original's input and raw output.

    fitted: the original's pipeline at the file's size. tensor, raw: its input and the output for
    it.
    """

    name: str
    encoded: bytes
    image: Image
    fitted: Geometry
    tensor: Floats
    raw: Floats

    def seen(self, original: Original) -> Seen:
        """Return what the original sees."""
        height, width = self.image.shape[:2]
        return original.seen(self.raw, self.fitted, width, height)


def case_of(name: str, encoded: bytes, file: ForeignFile, original: Original) -> Case:
    """Return a picture with the original's input and output at the file's size.

    Raises ExportError if the picture can't be decoded, or the original computes no numbers.
    """
    image = read_image(name, encoded)
    fitted = fit(original, file.size)
    tensor = original.pipeline.values.tensor(fitted.pixels(encoded))
    raw = original.network(tensor)
    if not np.isfinite(raw).all():
        raise ExportError(
            f"PyTorch itself gives NaN or infinity on {name!r}; the weights are unusable: give an "
            "earlier checkpoint"
        )
    return Case(name, encoded, image, fitted, tensor, raw)


def fit(original: Original, size: tuple[int, int]) -> Geometry:
    """Return the original's geometry for an input of another width and height."""
    own = original.pipeline.geometry
    if size == (own.width, own.height):
        return own
    width, height = size
    shorter = round(own.shorter_side * max(size) / own.width)
    return Geometry(own.rule, width, height, own.filter, shorter, own.pad)


def threshold_of(seen: Seen, usual: float) -> float:
    """Return the usual score threshold, or the highest one with enough candidates to compare."""
    for threshold in (usual, *_THRESHOLDS):
        if np.count_nonzero(seen.candidates.scores > threshold) >= 1:
            return threshold
    return usual


def detected(one: Found, labels: tuple[str, ...]) -> Detected:
    """Return an original's detections in the server's form."""
    return Detected(
        tuple(
            Detection(
                Box(*map(float, box)),
                int(class_id),
                labels[class_id] if class_id < len(labels) else str(class_id),
                float(score),
            )
            for box, class_id, score in zip(one.boxes, one.class_ids, one.scores, strict=True)
        )
    )


def classified(scores: Floats, labels: tuple[str, ...]) -> Classified:
    """Return an original's probabilities in the server's form, its five best labels."""
    best = np.argsort(-scores, kind="stable")[:5]
    return Classified(
        tuple(Classification(int(i), labels[i], float(scores[i])) for i in best), scores
    )
