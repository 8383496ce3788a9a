"""Synthetic pictures for a receipt, covering every awkward shape and encoding."""

import io
from collections.abc import Mapping
from functools import cache

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFilter

# name: (width, height, mode, format, EXIF orientation)
_SHAPES = {
    "square": (640, 640, "RGB", "JPEG", 1),
    "wide": (1280, 320, "RGB", "JPEG", 1),
    "tall": (230, 900, "RGB", "JPEG", 1),
    "tiny": (13, 9, "RGB", "PNG", 1),
    "huge": (4096, 1100, "RGB", "JPEG", 1),
    "odd": (333, 251, "RGB", "WEBP", 1),
    "grey": (500, 375, "L", "JPEG", 1),
    "turned": (480, 360, "RGB", "JPEG", 6),
    "alpha": (401, 300, "RGBA", "PNG", 1),
    "thin": (900, 41, "RGB", "PNG", 1),
    "16-bit": (310, 205, "I;16", "PNG", 1),
    "cmyk": (260, 380, "CMYK", "JPEG", 1),
    "line": (1, 3000, "RGB", "PNG", 1),
}


@cache
def synthetic_pictures() -> Mapping[str, bytes]:
    """Return thirteen encoded pictures by name, such as "synthetic wide"."""
    return {
        f"synthetic {name}": _encode(_draw(width, height, seed), mode, file_format, turn)
        for seed, (name, (width, height, mode, file_format, turn)) in enumerate(_SHAPES.items())
    }


def _draw(width: int, height: int, seed: int) -> PillowImage.Image:
    """Return an RGB picture of ramps, hard and soft edges, and noise: detail at every frequency."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    ramps = np.stack((x / width, y / height, (x + y) / (width + height)), axis=2)
    ramps = np.roll(ramps, seed, axis=2) * 200
    picture = PillowImage.fromarray(ramps.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        left, right = sorted(random.integers(0, width + 1, 2).tolist())
        top, bottom = sorted(random.integers(0, height + 1, 2).tolist())
        color = tuple(random.integers(0, 256, 3).tolist())
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        shape((left, top, right, bottom), fill=color)
    picture = picture.filter(ImageFilter.GaussianBlur(random.random() * 1.5))
    noise = random.integers(-12, 13, (height, width, 3))
    return PillowImage.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def _encode(picture: PillowImage.Image, mode: str, file_format: str, orientation: int) -> bytes:
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    if mode == "I;16":
        grey = np.asarray(picture.convert("L")).astype(np.uint16)
        picture = PillowImage.fromarray(grey * 256 + grey[::-1])
    else:
        picture = picture.convert(mode)
    if mode == "RGBA":
        picture.putalpha(PillowImage.linear_gradient("L").resize(picture.size))
    file = io.BytesIO()
    picture.save(file, file_format, quality=92, exif=exif)
    return file.getvalue()
