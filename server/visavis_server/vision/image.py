"""Decodes encoded and raw images, within limits that are checked before anything is decoded.

Decoders never receive the client's file, but only the parts that pixels depend on: see
formats.jpeg, formats.png and formats.webp.
"""

import io
from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from PIL import Image as PillowImage

from visavis_server.arrays import Image
from visavis_server.errors import InvalidRequest, Overloaded
from visavis_server.runtime import memory
from visavis_server.settings import ImageLimits
from visavis_server.vision.formats.foreign import describe
from visavis_server.vision.formats.jpeg import read_jpeg
from visavis_server.vision.formats.picture_file import MAX_SIDE, PictureFile, check_size
from visavis_server.vision.formats.png import SIGNATURE as PNG_SIGNATURE
from visavis_server.vision.formats.png import read_png
from visavis_server.vision.formats.webp import read_webp

# With glibc's defaults, 7,500 damaged JPEGs leave 30 MiB behind.
memory.keep_little()
cv2.setNumThreads(1)  # Images are decoded in parallel: the scheduler has a thread for each core.
# Sizes are checked before; Pillow would warn above its limit, and raise above twice that.
PillowImage.MAX_IMAGE_PIXELS = None
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# OpenCV's flip codes, by orientation: 0 upside down, 1 left to right, -1 both.
_MIRRORED = {4: 0, 8: 0, 2: 1, 6: 1, 3: -1, 7: -1}
_DECODED_AS_STORED: Final = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def decode(
    data: bytes,
    limits: ImageLimits,
    field: str = "image.encoded",
    hold: Callable[[int], None] = lambda size_bytes: None,
) -> Image:
    """Return the pixels of a JPEG, PNG or WebP file: uint8 RGB [H, W, 3], upright.

    EXIF orientation is applied, alpha dropped, 16 bits cut to 8. hold: called with the bytes that
    decoding may take, before it begins; its exceptions are passed on. Raises InvalidRequest on
    `field`: an unsupported format, over a limit, or damaged.
    """
    file = read_file(data, limits, field)
    hold(len(data) + file.working_bytes)
    return decode_file(file, field)


def read_file(data: bytes, limits: ImageLimits, field: str = "image.encoded") -> PictureFile:
    """Return the description of an encoded picture, without decoding it. Raises as decode does."""
    if not data:
        raise InvalidRequest(field, "the image is empty; send the bytes of a JPEG, PNG or WebP")
    if len(data) > limits.encoded_bytes:
        raise InvalidRequest(
            field,
            f"the image has {len(data)} bytes; the limit is {limits.encoded_bytes}",
        )
    if data.startswith(b"\xff\xd8\xff"):
        return read_jpeg(data, limits, field)
    if data.startswith(PNG_SIGNATURE):
        return read_png(data, limits, field)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return read_webp(data, limits, field)
    raise InvalidRequest(field, describe(data))


def decode_file(file: PictureFile, field: str = "image.encoded") -> Image:
    """Return the pixels of a described file. Raises as decode does."""
    try:
        data = file.minimal()
        stored: Image | None
        if file.is_cmyk:
            stored = _decode_cmyk(data)
        else:
            stored = cv2.imdecode(np.frombuffer(data, np.uint8), _DECODED_AS_STORED)
        if stored is not None:
            file.check(stored)
            return _turned(_placed(stored, file), file.orientation)
    except (OSError, SyntaxError, ValueError):  # Pillow's
        pass
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise _no_memory() from None
    except MemoryError:
        raise _no_memory() from None
    raise InvalidRequest(field, "the image can't be decoded: it is damaged or incomplete")


def _decode_cmyk(data: memoryview) -> Image:
    """Return a CMYK JPEG as RGB, converted by Pillow: OpenCV is off by a grey level."""
    with PillowImage.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        return np.asarray(picture.convert("RGB"))


def _placed(frame: Image, file: PictureFile) -> Image:
    """Return a frame of an animation on its black canvas."""
    (height, width), (left, top) = frame.shape[:2], file.place
    if (height, width) == (file.height, file.width):
        return frame
    canvas = np.zeros((file.height, file.width, 3), np.uint8)
    canvas[top : top + height, left : left + width] = frame
    return canvas


def _turned(image: Image, orientation: int) -> Image:
    """Return an image upright; orientation: EXIF's, 1 to 8."""
    # 5 to 8 swap the axes; then all but 1 and 5 mirror one or both.
    if orientation in (5, 6, 7, 8):
        image = cv2.transpose(image)
    if orientation in _MIRRORED:
        image = cv2.flip(image, _MIRRORED[orientation])
    return image


def _no_memory() -> Overloaded:
    return Overloaded("out of memory while decoding the image; try again later", 1.0)


def from_raw(
    pixel_format: str,
    width: int,
    height: int,
    data: bytes,
    limits: ImageLimits,
    hold: Callable[[int], None] = lambda size_bytes: None,
) -> Image:
    """Return raw pixels as uint8 RGB [H, W, 3]; hold: as for decode.

    pixel_format: "RGB", "BGR", "GRAY" or "NV12" (BT.601, limited range; even sides).
    Raises InvalidRequest: a side is out of range, or data has the wrong size.
    """
    for name, side in (("width", width), ("height", height)):
        if not 1 <= side <= MAX_SIDE:
            raise InvalidRequest(
                f"image.raw.{name}", f"{name} is {side}; it must be 1 to {MAX_SIDE}"
            )
        if pixel_format == "NV12" and side % 2:
            raise InvalidRequest(
                f"image.raw.{name}", f"{name} is {side}; NV12 needs an even number"
            )
    check_size(width, height, 3, limits, "image.raw")
    rows, channels = {
        "RGB": (height, 3),
        "BGR": (height, 3),
        "GRAY": (height, 1),
        "NV12": (height * 3 // 2, 1),
    }[pixel_format]
    expected = rows * width * channels
    if len(data) != expected:
        raise InvalidRequest(
            "image.raw.data",
            f"data has {len(data)} bytes; {width}x{height} in {pixel_format} takes {expected}",
        )
    hold(len(data) + width * height * 3)
    pixels = np.frombuffer(data, np.uint8).reshape(rows, width, channels)
    match pixel_format:
        case "BGR":
            return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        case "GRAY":
            return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
        case "NV12":
            return cv2.cvtColor(pixels, cv2.COLOR_YUV2RGB_NV12)
        case _:
            return pixels
