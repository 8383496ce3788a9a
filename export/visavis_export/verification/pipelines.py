"""Pre-processing as data: how a picture becomes an input tensor, in the original and elsewhere.

A pipeline is a geometry (which pixels) and values (which numbers). A known mistake is a pipeline
that differs in one field, so a tensor is explained by finding the pipeline that makes it.
"""

import io
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from PIL import Image as PillowImage

from visavis_export.families.original import Floats, upright
from visavis_server.arrays import Image

Rule = Literal["letterbox", "pad first", "stretch", "shorter side", "centre square"]
Filter = Literal[
    "OpenCV bilinear",
    "OpenCV area",
    "OpenCV bicubic",
    "nearest",
    "Pillow bilinear",
    "Pillow bicubic",
]
PerChannel = tuple[float, float, float]

IMAGENET_MEAN: PerChannel = (0.485, 0.456, 0.406)
IMAGENET_STD: PerChannel = (0.229, 0.224, 0.225)

_OPENCV = {
    "OpenCV bilinear": cv2.INTER_LINEAR,
    "OpenCV area": cv2.INTER_AREA,
    "OpenCV bicubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
}
_PILLOW = {
    "Pillow bilinear": PillowImage.Resampling.BILINEAR,
    "Pillow bicubic": PillowImage.Resampling.BICUBIC,
}


@dataclass(frozen=True, slots=True)
class Geometry:
    """Which pixels of a picture become the input, width x height.

    shorter_side: its length before the crop, for that rule. pad: the grey of a letterbox's border.
    centred: whether the picture is in the middle of it, or in the top left corner. upright: whether
    the EXIF orientation is applied.
    """

    rule: Rule
    width: int
    height: int
    filter: Filter = "OpenCV bilinear"
    shorter_side: int = 0
    pad: int = 114
    centred: bool = True
    upright: bool = True

    def pixels(self, encoded: bytes) -> Image:
        """Return the input's pixels, uint8 RGB [height, width, 3], of an encoded picture."""
        picture = upright(encoded) if self.upright else _as_stored(encoded)
        return self.of(np.asarray(picture))

    def of(self, picture: Image) -> Image:
        """Return the input's pixels of a decoded picture, uint8 RGB [H, W, 3]."""
        match self.rule:
            case "letterbox":
                return self._letterboxed(picture)
            case "pad first":
                side = max(picture.shape[:2])
                square = np.full((side, side, 3), self.pad, np.uint8)
                square[: picture.shape[0], : picture.shape[1]] = picture
                return self._resized(square, self.width, self.height)
            case "stretch":
                return self._resized(picture, self.width, self.height)
            case "shorter side":
                return self._cropped(picture)
            case "centre square":
                side = min(picture.shape[:2])
                top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
                square = picture[top : top + side, left : left + side]
                return self._resized(square, self.width, self.height)

    def placement(self, width: int, height: int) -> tuple[float, int, int, int, int]:
        """Return a letterbox's scale, the size of its content, and its left and top padding."""
        scale = min(self.height / height, self.width / width)
        new_width, new_height = max(round(width * scale), 1), max(round(height * scale), 1)
        if not self.centred:
            return scale, new_width, new_height, 0, 0
        # The 0.1 puts an odd pixel at the right and bottom, as YOLOv5 does.
        left = round((self.width - new_width) / 2 - 0.1)
        top = round((self.height - new_height) / 2 - 0.1)
        return scale, new_width, new_height, left, top

    def _letterboxed(self, picture: Image) -> Image:
        height, width = picture.shape[:2]
        _, new_width, new_height, left, top = self.placement(width, height)
        if (new_width, new_height) != (width, height):
            picture = self._resized(picture, new_width, new_height)
        out = np.full((self.height, self.width, 3), self.pad, np.uint8)
        out[top : top + new_height, left : left + new_width] = picture
        return out

    def _cropped(self, picture: Image) -> Image:
        """Resize the shorter side and crop the centre, as torchvision's transforms do."""
        height, width = picture.shape[:2]
        size = self.shorter_side
        new_width, new_height = (
            (size, int(size * height / width))
            if width <= height
            else (int(size * width / height), size)
        )
        resized = self._resized(picture, new_width, new_height)
        left, top = round((new_width - self.width) / 2), round((new_height - self.height) / 2)
        if min(left, top) < 0:  # smaller than the crop: torchvision pads with black
            canvas = np.zeros(
                (max(new_height, self.height), max(new_width, self.width), 3), np.uint8
            )
            x, y = max(-left, 0), max(-top, 0)
            canvas[y : y + new_height, x : x + new_width] = resized
            resized, left, top = canvas, max(left, 0), max(top, 0)
        return resized[top : top + self.height, left : left + self.width]

    def _resized(self, picture: Image, width: int, height: int) -> Image:
        if self.filter in _PILLOW:
            source = PillowImage.fromarray(picture)
            return np.asarray(source.resize((width, height), _PILLOW[self.filter]))
        return cv2.resize(picture, (width, height), interpolation=_OPENCV[self.filter])


@dataclass(frozen=True, slots=True)
class Values:
    """Which numbers stand for a pixel.

    bgr: blue comes first. divisions: how often the pixel is divided by 255. mean, std, normalised:
    the normalisation and how often it is applied.
    """

    bgr: bool = False
    divisions: int = 1
    mean: PerChannel = (0.0, 0.0, 0.0)
    std: PerChannel = (1.0, 1.0, 1.0)
    normalised: int = 0

    def tensor(self, pixels: Image) -> Floats:
        """Return pixels, uint8 RGB [H, W, 3], as float32 [3, H, W]."""
        if self.bgr:
            pixels = pixels[..., ::-1]
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32)
        for _ in range(self.divisions):
            planes /= np.float32(255)
        mean, std = (np.array(one, np.float32)[:, None, None] for one in (self.mean, self.std))
        for _ in range(self.normalised):
            planes = (planes - mean) / std
        return planes

    @property
    def level(self) -> Floats:
        """The step of one grey level, by channel, [3, 1, 1]."""
        step = np.full((3, 1, 1), 255.0**-self.divisions, np.float32)
        return step / np.array(self.std, np.float32)[:, None, None] ** self.normalised


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How a picture becomes an input tensor."""

    geometry: Geometry
    values: Values

    def tensor(self, encoded: bytes) -> Floats:
        """Return the input of an encoded picture, float32 [3, height, width]."""
        return self.values.tensor(self.geometry.pixels(encoded))


def _as_stored(encoded: bytes) -> PillowImage.Image:
    """Return a picture as stored, without its EXIF orientation."""
    picture: PillowImage.Image = PillowImage.open(io.BytesIO(encoded))
    if picture.mode.startswith("I"):
        picture = PillowImage.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return picture.convert("RGB")
