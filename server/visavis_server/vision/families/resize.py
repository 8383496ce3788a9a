"""torchvision's Resize and CenterCrop, bit for bit, but computed only for the crop.

In C if a compiler was available at installation, else by Pillow: the same result, slower.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from visavis_server.arrays import Image

BILINEAR: Final = PillowImage.Resampling.BILINEAR

# The most pixels of the intermediate picture: beyond, Pillow would take too much memory. Only
# pictures with an aspect ratio of about 300 reach it.
_MAX_INTERMEDIATE_PIXELS = 16 << 20


class Axis(ctypes.Structure):
    """An axis resized from `size` to `new_size` pixels; `count` of these are kept, from `first`."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("size", "new_size", "first", "count"))
    size: int
    new_size: int
    first: int
    count: int

    def needed(self) -> tuple[int, int]:
        """Return the range of old pixels that the kept ones depend on, or one more on each side."""
        scale = self.size / self.new_size
        reach = max(scale, 1.0)
        low = int(self.first * scale - reach)
        high = int((self.first + self.count) * scale + reach) + 1
        return max(low, 0), min(high, self.size)

    @property
    def kept(self) -> tuple[float, float]:
        """The range of the old axis that the kept pixels show."""
        scale = self.size / self.new_size
        return self.first * scale, (self.first + self.count) * scale


def resize_shorter_side(image: Image, size: int, crop_width: int, crop_height: int) -> Image:
    """Return an image resized and cropped as by torchvision's Resize(size) and CenterCrop.

    image: uint8 RGB [H, W, 3]; returns [crop_height, crop_width, 3], equal bit for bit. size is at
    least as large as the crop.
    """
    x, y = shorter_side_axes(image.shape[1], image.shape[0], size, crop_width, crop_height)
    # Each pass rounds to 8 bits, so their order matters; this is the order of Pillow 13.
    if y.size - y.new_size > max(0, 2 * (x.size - x.new_size)):
        return _columns_first(image, x, y)
    return (rows_first_in_c or rows_first)(image, x, y)


def shorter_side_axes(
    width: int, height: int, size: int, crop_width: int, crop_height: int
) -> tuple[Axis, Axis]:
    """Return x and y of a picture that is resized and cropped, as for resize_shorter_side."""
    # torchvision truncates the long side and rounds the crop's offset (half to even).
    if width <= height:
        new_width, new_height = size, int(size * height / width)
    else:
        new_width, new_height = int(size * width / height), size
    x = Axis(width, new_width, round((new_width - crop_width) / 2), crop_width)
    y = Axis(height, new_height, round((new_height - crop_height) / 2), crop_height)
    return x, y


def rows_first(image: Image, x: Axis, y: Axis) -> Image:
    """Return an image resized along x, then along y, by Pillow.

    image: uint8 RGB [H, W, 3]; returns [y.count, x.count, 3].
    """
    first, last = y.needed()
    if max(x.new_size * y.size, y.new_size * x.count) > _MAX_INTERMEDIATE_PIXELS:
        strip = _mixed(image[first:last].transpose(1, 0, 2), _taps(x)).transpose(1, 0, 2)
        index, weight = _taps(y)
        return _mixed(strip, (index - first, weight))
    # The second pass needs the rows at their original position: the crop pads with black beyond
    # the border.
    columns = PillowImage.fromarray(image[first:last])
    columns = columns.resize((x.new_size, last - first), BILINEAR)
    columns = columns.crop((x.first, -first, x.first + x.count, y.size - first))
    rows = columns.resize((x.count, y.new_size), BILINEAR)
    return np.asarray(rows)[y.first : y.first + y.count]


def _columns_first(image: Image, x: Axis, y: Axis) -> Image:
    """Return an image resized along y, then along x, by Pillow."""
    first, last = x.needed()
    rows = PillowImage.fromarray(image[:, first:last])
    rows = rows.resize((last - first, y.new_size), BILINEAR)
    rows = rows.crop((-first, y.first, x.size - first, y.first + y.count))
    columns = rows.resize((x.new_size, y.count), BILINEAR)
    return np.asarray(columns)[:, x.first : x.first + x.count]


_Taps = tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]


def _taps(axis: Axis) -> _Taps:
    """Return the pixels that Pillow's bilinear resize mixes for each kept pixel, and their weights.

    Indices [count, taps] into the axis, and weights [count, taps] that sum to about 2**22.
    """
    scale = axis.size / axis.new_size
    reach = max(scale, 1.0)
    center = (np.arange(axis.first, axis.first + axis.count) + 0.5) * scale
    low = np.maximum((center - reach + 0.5).astype(np.int64), 0)
    high = np.minimum((center + reach + 0.5).astype(np.int64), axis.size)
    index = low[:, None] + np.arange(int((high - low).max()))
    weight = np.maximum(1 - np.abs((index - center[:, None] + 0.5) / reach), 0)
    weight[index >= high[:, None]] = 0
    weight /= weight.sum(axis=1, keepdims=True)
    # Pillow's fixed point: 32 bits less 8 for the pixel and 2 for the sum.
    fixed = (weight * (1 << 22) + 0.5).astype(np.int64)
    return np.minimum(index, high[:, None] - 1), fixed


def _mixed(pixels: Image, taps: _Taps) -> Image:
    """Return pixels [n, m, 3] mixed along the first axis, rounded as in Pillow: [count, m, 3]."""
    index, weight = taps
    total = np.full((len(index), *pixels.shape[1:]), 1 << 21, np.int64)
    for tap in range(index.shape[1]):
        total += pixels[index[:, tap]] * weight[:, tap, None, None]
    return np.clip(total >> 22, 0, 255).astype(np.uint8)


def _compiled() -> Callable[[Image, Axis, Axis], Image] | None:
    """Return rows_first in C, which may raise MemoryError; None if it was not compiled."""
    try:
        in_c = ctypes.CDLL(str(Path(__file__).with_name("rows_first.so"))).rows_first
    except OSError:
        return None
    in_c.argtypes = (ctypes.c_void_p, ctypes.c_int64, Axis, Axis, ctypes.c_void_p)

    def rows_first_in_c(image: Image, x: Axis, y: Axis) -> Image:
        if image.strides[0] < 3 * x.size or image.strides[1:] != (3, 1):
            image = np.ascontiguousarray(image)
        out = np.empty((y.count, x.count, 3), np.uint8)
        if not in_c(image.ctypes.data, image.strides[0], x, y, out.ctypes.data):
            raise MemoryError
        return out

    return rows_first_in_c


rows_first_in_c: Final = _compiled()
