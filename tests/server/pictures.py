"""Pictures as Pillow writes them, and what is made of them."""

import io
import struct
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from server.errors import InvalidRequest
from server.image import decode
from server.settings import ImageLimits

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)


def encoded(picture: np.ndarray[Any, Any] | Image.Image, form: str = "PNG", **how: Any) -> bytes:
    """Return the bytes of a file."""
    file = io.BytesIO()
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(picture)
    picture.save(file, form, **how)
    return file.getvalue()


def plain(color: tuple[int, int, int] = RED, width: int = 64, height: int = 64) -> bytes:
    """Return a PNG of one colour."""
    return encoded(Image.new("RGB", (width, height), color))


def noise(height: int, width: int, *channels: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Return random pixels, uint8 [height, width, …]."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (height, width, *channels), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray[Any, Any]:
    """Return gentle ramps, as lossy formats keep them: uint8 RGB [height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    planes = (x * 255 / width, y * 255 / height, 255 - (x + y) * 255 / (width + height))
    return np.stack(planes, axis=2).astype(np.uint8)


def opened(data: bytes) -> np.ndarray[Any, Any]:
    """Return what Pillow reads: uint8 RGB [height, width, 3]."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def cmyk(**how: Any) -> bytes:
    """Return a JPEG of four inks."""
    return encoded(Image.fromarray(smooth(40, 50)).convert("CMYK"), "JPEG", **how)


def segment(kind: int, content: bytes = b"") -> bytes:
    """Return a segment of a JPEG."""
    return bytes((0xFF, kind)) + struct.pack(">H", len(content) + 2) + content


def seen_by_opencv(data: bytes) -> np.ndarray[Any, Any]:
    """Return what OpenCV makes of the file as it is."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return image


def refusal(data: bytes, limits: ImageLimits | None = None) -> str:
    """Return why a file is refused; fail if it isn't, or names another field."""
    with pytest.raises(InvalidRequest) as refused:
        decode(data, limits or ImageLimits())
    assert refused.value.field == "image.encoded"
    return str(refused.value)
