"""Classification: resize and normalise before, softmax and top-k after."""

import cv2
import numpy as np
from PIL import Image as PillowImage

from visavis_server.arrays import Image, Tensor
from visavis_server.card import CenterSquare, ClassScores, ModelDocument, ShorterSide
from visavis_server.vision.families.finite import require_finite
from visavis_server.vision.families.normalization import normalize, normalized_values
from visavis_server.vision.families.resize import BILINEAR, resize_shorter_side
from visavis_server.vision.results import Classification, Classified, ClassifyOptions


class Classifier:
    """Pre- and post-processing of one classifier."""

    def __init__(self, document: ModelDocument) -> None:
        assert isinstance(document.output, ClassScores)
        self._input = document.input
        self._labels = document.label_set.labels
        self._logits = document.output.layout == "logits"
        self._values = normalized_values(document.input)
        self.input_shape = (3, document.input.height, document.input.width)

    def shape_for(self, image: Image) -> tuple[int, int, int]:
        """Return the shape of the input, which is the same for every image."""
        return self.input_shape

    def preprocess(self, image: Image, out: Tensor) -> None:
        """Write the image into `out` [3, height, width], resized and normalised."""
        width, height = self._input.width, self._input.height
        match self._input.resize:
            case ShorterSide(size=size):
                pixels = resize_shorter_side(image, size, width, height)
            case CenterSquare():
                pixels = resize_center_square(image, width, height)
            case _:
                picture = PillowImage.fromarray(image)
                pixels = np.asarray(picture.resize((width, height), BILINEAR))
        normalize(pixels, self._values, out)

    def postprocess(
        self, outputs: list[Tensor], geometry: None, options: ClassifyOptions
    ) -> Classified:
        """Return the top k labels; outputs: one tensor [1, classes].

        Raises ModelFailed if one of them is not finite.
        """
        scores = outputs[0][0].astype(np.float32)
        require_finite(scores)
        probabilities = _softmax(scores) if self._logits else scores
        top = np.argsort(-probabilities, kind="stable")[: options.top_k]
        return Classified(
            tuple(
                Classification(int(i), self._labels[i], min(float(probabilities[i]), 1.0))
                for i in top
            ),
            probabilities,
        )

    def as_tensor(self, outputs: list[Tensor]) -> Tensor:
        """Return the scores [classes] of the graph."""
        return outputs[0][0].astype(np.float32)


def resize_center_square(image: Image, width: int, height: int) -> Image:
    """Return the largest centred square of an image uint8 RGB [H, W, 3], resized bilinearly."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side]
    return cv2.resize(square, (width, height), interpolation=cv2.INTER_LINEAR)


def _softmax(logits: Tensor) -> Tensor:
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()
