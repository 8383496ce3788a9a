"""Bytes to pixels: encoded or raw, within limits that are checked before anything is decoded."""

import io
import re
from typing import Final

import cv2
import imagesize
import numpy as np
from PIL import Image as PillowImage

from server import memory
from server.errors import InvalidRequest, Overloaded
from server.results import Image
from server.settings import ImageLimits

# 7,500 damaged JPEGs would leave 30 MiB behind.
memory.keep_little()
cv2.setNumThreads(1)  # Parallelism is across images: the scheduler has a thread for each core.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

MAX_SIDE: Final = 65535

# The markers that libjpeg reads a length after; it skips all others (stuffed and fill bytes,
# restarts, reserved ones) or gives up at them, and whoever skips more can be lied to.
_JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xef\xfe]")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_START_OF_SCAN_MARKER = bytes((0xFF, _START_OF_SCAN))
# Encoders make chunks of 8 KiB or more, in a file of a few MiB.
_MAX_PNG_CHUNKS = 20_000
# C4, C8 and CC lie among them and are something else.
_STARTS_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def decode(data: bytes, limits: ImageLimits, field: str = "image.encoded") -> Image:
    """Return the picture in a JPEG, PNG or WebP file: uint8 RGB [H, W, 3], upright.

    EXIF orientation is applied, alpha dropped, 16 bits cut to 8. Raises InvalidRequest
    on `field`: not such a file, over a limit, or damaged.
    """
    if not data:
        raise InvalidRequest(field, "the image is empty; send the bytes of a JPEG, PNG or WebP")
    if len(data) > limits.encoded_bytes:
        raise InvalidRequest(
            field,
            f"the image is {len(data)} bytes; the limit is {limits.encoded_bytes}",
        )
    width, height, bytes_per_pixel, is_cmyk = _header(data, limits, field)
    if width < 1 or height < 1:
        raise InvalidRequest(field, "the image's header gives no width and height; it is damaged")
    _check_size(width, height, bytes_per_pixel, limits, field)
    try:
        if is_cmyk:
            return _decode_cmyk(data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except (cv2.error, OSError, SyntaxError, ValueError) as error:  # the last three are Pillow's
        if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
            raise _no_memory() from None
        image = None
    except MemoryError:
        raise _no_memory() from None
    if image is None:
        raise InvalidRequest(field, "the image can't be decoded; it is damaged or incomplete")
    return image


def _no_memory() -> Overloaded:
    return Overloaded("there is not enough memory to decode the image; try again later", 1.0)


def from_raw(pixel_format: str, width: int, height: int, data: bytes, limits: ImageLimits) -> Image:
    """Return raw pixels as uint8 RGB [H, W, 3].

    pixel_format: "RGB", "BGR", "GRAY" or "NV12" (BT.601, limited range; even sides).
    Raises InvalidRequest: sides out of range, or data of another size than they ask for.
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
    _check_size(width, height, 3, limits, "image.raw")
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
            f"data is {len(data)} bytes; {width}x{height} in {pixel_format} takes {expected}",
        )
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


def _decode_cmyk(data: bytes) -> Image:
    """Return a CMYK JPEG as RGB, as Pillow converts it: OpenCV's is off by a grey level."""
    with PillowImage.open(io.BytesIO(data)) as picture:
        rgb = np.asarray(picture.convert("RGB"))
        exif = PillowImage.Exif()
        exif.load(picture.info.get("exif", b""))
    # Orientations 5 to 8 swap the axes; then each of 2, 3, 4 and their like mirrors some.
    orientation = exif.get(0x0112, 1)
    if orientation in (5, 6, 7, 8):
        rgb = rgb.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        rgb = rgb[::-1]
    if orientation in (2, 3, 6, 7):
        rgb = rgb[:, ::-1]
    return np.ascontiguousarray(rgb)


def _header(data: bytes, limits: ImageLimits, field: str) -> tuple[int, int, int, bool]:
    """Return what the file's header says, before anything is decoded.

    Width, height, what one pixel takes while decoding, and whether it is a CMYK JPEG.
    """
    if data.startswith(b"\xff\xd8\xff"):
        width, height, channels, scans = _walk_jpeg(data, limits.jpeg_scans)
        if scans > limits.jpeg_scans:
            raise InvalidRequest(field, f"the JPEG has more than {limits.jpeg_scans} scans")
        return width, height, max(channels, 3), channels == 4
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        # IHDR comes first: bit depth at byte 24, colour type at 25 (its bit 2 is alpha).
        bit_depth, color_type = (data[24], data[25]) if len(data) > 25 else (8, 2)
        bytes_per_pixel = (4 if color_type & 4 else 3) * (2 if bit_depth == 16 else 1)
        _walk_png(data, field)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        bytes_per_pixel = 4
    else:
        raise InvalidRequest(
            field, f"the image starts with {data[:8].hex(' ')}; only JPEG, PNG and WebP are read"
        )
    width, height = imagesize.get(io.BytesIO(data))
    return width, height, bytes_per_pixel, False


def _walk_png(data: bytes, field: str) -> None:
    """Refuse a PNG with a chunk that claims to be longer than what is there.

    OpenCV would make room for it first, for 2 GB if it says so.
    """
    position = 8
    for _ in range(_MAX_PNG_CHUNKS):
        length, kind = (
            int.from_bytes(data[position : position + 4]),
            data[position + 4 : position + 8],
        )
        position += 8
        if position > len(data) or kind == b"IEND":
            return
        if length > len(data) - position:
            raise InvalidRequest(
                field, f"the PNG is damaged: a chunk says that it has {length} bytes, too many"
            )
        position += length + 4  # its checksum
    raise InvalidRequest(field, f"the PNG has more than {_MAX_PNG_CHUNKS} chunks")


def _walk_jpeg(data: bytes, max_scans: int) -> tuple[int, int, int, int]:
    """Return width, height, channels and the number of scans as the decoder will meet them.

    0 pixels where there is no frame header; counting stops one above max_scans, and before it has
    begun where the file can't have so many.
    """
    width = height = channels = scans = 0
    position = 2
    few = _occurrences(data, _START_OF_SCAN_MARKER) <= max_scans
    while scans <= max_scans and (marker := _JPEG_MARKER.search(data, position)):
        kind, position = data[marker.start() + 1], marker.end()
        if kind == _END_OF_IMAGE:
            break
        if kind in _STARTS_OF_FRAME and not width:
            # Behind the segment's length and the precision: height, width, channels.
            height = int.from_bytes(data[position + 3 : position + 5])
            width = int.from_bytes(data[position + 5 : position + 7])
            channels = int.from_bytes(data[position + 7 : position + 8])
            if width and few:
                break
        scans += kind == _START_OF_SCAN
        # A segment's bytes are not markers: skip them by the length that they begin with.
        position += int.from_bytes(data[position : position + 2])
    return width, height, channels, scans


def _occurrences(data: bytes, pair: bytes) -> int:
    """Return how often two bytes follow each other."""
    wanted = int.from_bytes(pair, "little")
    starts = [np.frombuffer(data, "<u2", (len(data) - at) // 2, at) for at in (0, 1)]
    return sum(int(np.count_nonzero(pairs == wanted)) for pairs in starts)


def _check_size(
    width: int, height: int, bytes_per_pixel: int, limits: ImageLimits, field: str
) -> None:
    if max(width, height) > MAX_SIDE:
        raise InvalidRequest(
            field,
            f"the image is {width}x{height} pixels; the longest side allowed is {MAX_SIDE}",
        )
    if (size := width * height * bytes_per_pixel) > limits.decoded_bytes:
        raise InvalidRequest(
            field,
            f"the image is {width}x{height} pixels, {size} bytes decoded; "
            f"the limit is {limits.decoded_bytes}",
        )
