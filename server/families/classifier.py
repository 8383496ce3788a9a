"""Classification: resize and normalise before, softmax and top-k after."""

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from server.card import CenterSquare, ClassScores, ModelDocument, ShorterSide
from server.families.finite import require_finite
from server.families.normalization import normalize, normalized_values
from server.results import Classification, Classified, Image, Options, Tensor

_BILINEAR = PillowImage.Resampling.BILINEAR

# Pixels of the picture in between above which Pillow would take too much memory. Only pictures
# some 300 times as long as wide, or as wide as long, get there.
_MAX_INTERMEDIATE_PIXELS = 16 << 20


class Classifier:
    """Pre- and post-processing of one classifier."""

    def __init__(self, document: ModelDocument) -> None:
        assert isinstance(document.output, ClassScores)
        self._input = document.input
        self._labels = document.label_set.labels
        self._logits = document.output.layout == "logits"
        self._values = normalized_values(document.input)
        self.input_shape = (3, document.input.height, document.input.width)

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
                pixels = np.asarray(picture.resize((width, height), _BILINEAR))
        normalize(pixels, self._values, out)

    def postprocess(self, outputs: list[Tensor], geometry: None, options: Options) -> Classified:
        """Return the top k labels; outputs: one tensor [1, classes].

        Raises ModelFailed if a number among them is none.
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
        """Return the scores [classes], as the graph gives them."""
        return outputs[0][0].astype(np.float32)


def resize_shorter_side(image: Image, size: int, crop_width: int, crop_height: int) -> Image:
    """Return what torchvision's Resize(size) and CenterCrop give, bit for bit.

    image: uint8 RGB [H, W, 3]; returns [crop_height, crop_width, 3]; size is at least as
    large as the crop. Most of what the crop drops is never computed.
    """
    height, width = image.shape[:2]
    # torchvision truncates the long side and rounds the crop's offset (half to even).
    if width <= height:
        new_width, new_height = size, int(size * height / width)
    else:
        new_width, new_height = int(size * width / height), size
    left = round((new_width - crop_width) / 2)
    top = round((new_height - crop_height) / 2)
    # Each pass rounds to 8 bits, so that their order matters; this is Pillow 13's. The second
    # needs what the first leaves where it was: a crop beyond the border fills up with black.
    if height - new_height > max(0, 2 * (width - new_width)):
        first, last = _needed(width, new_width, left, crop_width)
        rows = PillowImage.fromarray(image[:, first:last])
        rows = rows.resize((last - first, new_height), _BILINEAR)
        rows = rows.crop((-first, top, width - first, top + crop_height))
        columns = rows.resize((new_width, crop_height), _BILINEAR)
        return np.asarray(columns)[:, left : left + crop_width]
    first, last = _needed(height, new_height, top, crop_height)
    if max(new_width * height, new_height * crop_width) > _MAX_INTERMEDIATE_PIXELS:
        column_taps = _taps(width, new_width, left, crop_width)
        strip = _resampled(image[first:last].transpose(1, 0, 2), column_taps).transpose(1, 0, 2)
        index, weight = _taps(height, new_height, top, crop_height)
        return _resampled(strip, (index - first, weight))
    columns = PillowImage.fromarray(image[first:last])
    columns = columns.resize((new_width, last - first), _BILINEAR)
    columns = columns.crop((left, -first, left + crop_width, height - first))
    rows = columns.resize((crop_width, new_height), _BILINEAR)
    return np.asarray(rows)[top : top + crop_height]


def _needed(size: int, new_size: int, first: int, count: int) -> tuple[int, int]:
    """Return the range of an axis that some of its pixels come from, perhaps one more each side.

    The axis is resized from size to new_size; of that, `count` pixels from `first` on.
    """
    scale = size / new_size
    reach = max(scale, 1.0)
    low, high = int(first * scale - reach), int((first + count) * scale + reach) + 1
    return max(low, 0), min(high, size)


_Taps = tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]


def _taps(size: int, new_size: int, first: int, count: int) -> _Taps:
    """Return which pixels Pillow's bilinear resize mixes for some of the new ones, and how.

    The arguments are those of `_needed`. Indices [count, taps] into the axis, and weights
    that sum to about 2**22.
    """
    scale = size / new_size
    reach = max(scale, 1.0)
    center = (np.arange(first, first + count) + 0.5) * scale
    low = np.maximum((center - reach + 0.5).astype(np.int64), 0)
    high = np.minimum((center + reach + 0.5).astype(np.int64), size)
    index = low[:, None] + np.arange(int((high - low).max()))
    weight = np.maximum(1 - np.abs((index - center[:, None] + 0.5) / reach), 0)
    weight[index >= high[:, None]] = 0
    weight /= weight.sum(axis=1, keepdims=True)
    # Pillow's own fixed point: 32 bits less 8 for the pixel and 2 for the sum.
    fixed = (weight * (1 << 22) + 0.5).astype(np.int64)
    return np.minimum(index, high[:, None] - 1), fixed


def _resampled(pixels: Image, taps: _Taps) -> Image:
    """Return pixels [n, m, 3] mixed along their first axis, as Pillow rounds: [count, m, 3]."""
    index, weight = taps
    total = np.full((len(index), *pixels.shape[1:]), 1 << 21, np.int64)
    for tap in range(index.shape[1]):
        total += pixels[index[:, tap]] * weight[:, tap, None, None]
    return np.clip(total >> 22, 0, 255).astype(np.uint8)


def resize_center_square(image: Image, width: int, height: int) -> Image:
    """Return the largest centred square of an image uint8 RGB [H, W, 3], resized bilinearly."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side]
    return cv2.resize(square, (width, height), interpolation=cv2.INTER_LINEAR)


def _softmax(logits: Tensor) -> Tensor:
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()
