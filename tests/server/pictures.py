"""Pictures, as Pillow writes them."""

import io
from typing import Any

import numpy as np
from PIL import Image

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
