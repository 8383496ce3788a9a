"""Pictures as Pillow writes them, and what is made of them."""

import io
import struct
import zlib
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from PIL import Image

from visavis_server.errors import InvalidRequest
from visavis_server.settings import ImageLimits
from visavis_server.vision.image import decode

Order = Literal["<", ">"]
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


def block(*entries: bytes, order: Order = "<", count: int | None = None) -> bytes:
    """Return an EXIF block of one directory."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    number = len(entries) if count is None else count
    return start + struct.pack(order + "H", number) + b"".join(entries) + bytes(4)


def entry(value: int, kind: int = 3, tag: int = 0x0112, order: Order = "<") -> bytes:
    """Return an entry of one number: BYTE is 1, SHORT 3, LONG 4."""
    number = struct.pack(order + {1: "B", 3: "H", 4: "I"}.get(kind, "H"), value)
    return struct.pack(order + "HHI", tag, kind, 1) + number.ljust(4, b"\0")


# EXIF blocks of one picture, and whether they turn it by a quarter.
EXIF_BLOCKS: list[tuple[list[bytes], bool]] = [
    ([], False),
    ([block(entry(6))], True),
    ([b"Exif\0\0" + block(entry(6))], True),
    ([block(entry(6, kind=4, order=">"), order=">")], True),
    ([block(entry(1), entry(6))], False),
    ([block(entry(6)), block(entry(1))], True),
    ([block(entry(1)), block(entry(6))], False),
    ([b"junk" * 9, block(entry(6))], False),
]


def with_exif(form: str, *blocks: bytes, picture: np.ndarray[Any, Any] | None = None) -> bytes:
    """Return a file with EXIF blocks, as JPEG, PNG or WebP; of 20x10 pixels if not given."""
    picture = noise(10, 20, 3) if picture is None else picture
    plain = encoded(picture, form)
    if form == "JPEG":
        segments = (segment(0xE1, b"Exif\0\0" + one) for one in blocks)
        return plain[:2] + b"".join(segments) + plain[2:]
    if form == "PNG":
        chunks = (
            struct.pack(">I", len(one)) + kind + one + struct.pack(">I", zlib.crc32(kind + one))
            for kind, one in ((b"eXIf", one) for one in blocks)
        )
        return plain[:33] + b"".join(chunks) + plain[33:]
    header = struct.pack("<4sI4x", b"VP8X", 10) + b"\x13\0\0" + b"\x09\0\0"
    exif = (b"EXIF" + struct.pack("<I", len(one)) + one + b"\0" * (len(one) % 2) for one in blocks)
    body = b"WEBP" + header + plain[12:] + b"".join(exif)
    return b"RIFF" + struct.pack("<I", len(body)) + body
