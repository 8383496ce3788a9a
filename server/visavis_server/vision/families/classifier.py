"""Classification: resize and normalise before, softmax and top-k after."""

import cv2
import numpy as np
from PIL import Image as PillowImage

from visavis_server.arrays import Image, Tensor
from visavis_server.card import CenterSquare, ClassScores, ModelDocument, ShorterSide
from visavis_server.errors import InvalidRequest
from visavis_server.vision.families.finite import require_finite
from visavis_server.vision.families.normalization import normalize, normalized_values
from visavis_server.vision.families.resize import (
    BILINEAR,
    resize_shorter_side,
    shorter_side_axes,
)
from visavis_server.vision.heat_maps import Area, Explain, HeatMap
from visavis_server.vision.results import Classification, Classified, ClassifyOptions


class Classifier:
    """Pre- and post-processing of one classifier."""

    def __init__(self, document: ModelDocument) -> None:
        assert isinstance(document.output, ClassScores)
        self._name = document.name
        self._input = document.input
        self._explainable = document.output.activation is not None
        self._labels = document.label_set.labels
        self._logits = document.output.layout == "logits"
        self._values = normalized_values(document.input)
        self.input_shape = (3, document.input.height, document.input.width)

    def shape_for(self, image: Image) -> tuple[int, int, int]:
        """Return the shape of the input, which is the same for every image."""
        return self.input_shape

    def preprocess(self, image: Image, out: Tensor) -> Area:
        """Write the image into `out` [3, height, width]; return the area that the model sees."""
        seen = self._seen(image.shape[1], image.shape[0])
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
        return seen

    def postprocess(
        self, outputs: list[Tensor], geometry: Area, options: ClassifyOptions
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

    def require_explainable(self, explain: Explain) -> None:
        """Raise InvalidRequest if the file has no class activation maps, or not this label."""
        if not self._explainable:
            raise InvalidRequest(
                "explain",
                f"model {self._name} has no heat maps: its file lacks the features before the last "
                "layer; export the model again with `visavis export`",
            )
        explain.require_label(self._name, self._labels)

    def explain(
        self, outputs: list[Tensor], geometry: Area, answer: Classified, options: ClassifyOptions
    ) -> HeatMap:
        """Return the class activation map: the features, weighted by the class's last layer.

        outputs: the scores, the features [1, channels, h, w], the layer's weights [classes,
        channels], and their steps [classes] if they are integers. Raises ModelFailed if a value is
        not finite.
        """
        assert options.explain is not None
        _, (features,), weights, *scales = outputs
        if options.explain.label is None:
            class_id = answer.classifications[0].class_id
        else:
            class_id = max(
                options.explain.class_ids(self._labels), key=answer.probabilities.__getitem__
            )
        row = weights[class_id].astype(np.float32)
        if scales:
            row *= scales[0][class_id]
        channels, *shape = features.shape
        values = (row @ features.reshape(channels, -1).astype(np.float32)).reshape(shape)
        require_finite(values)
        return HeatMap(class_id, self._labels[class_id], values, geometry)

    def as_tensor(self, outputs: list[Tensor]) -> Tensor:
        """Return the scores [classes] of the graph."""
        return outputs[0][0].astype(np.float32)

    def _seen(self, width: int, height: int) -> Area:
        """Return the area of a picture that the model sees."""
        match self._input.resize:
            case ShorterSide(size=size):
                x, y = shorter_side_axes(width, height, size, self._input.width, self._input.height)
                (left, right), (top, bottom) = x.kept, y.kept
                return Area(left, top, right, bottom)
            case CenterSquare():
                left, top, side = _center_square(width, height)
                return Area(left, top, left + side, top + side)
            case _:
                return Area(0, 0, width, height)


def resize_center_square(image: Image, width: int, height: int) -> Image:
    """Return the largest centred square of an image uint8 RGB [H, W, 3], resized bilinearly."""
    left, top, side = _center_square(image.shape[1], image.shape[0])
    square = image[top : top + side, left : left + side]
    return cv2.resize(square, (width, height), interpolation=cv2.INTER_LINEAR)


def _center_square(width: int, height: int) -> tuple[int, int, int]:
    """Return left, top and side of the largest centred square."""
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side


def _softmax(logits: Tensor) -> Tensor:
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()
