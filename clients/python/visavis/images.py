"""The pictures that a client accepts: encoded bytes, a path, an open file, or pixels.

Pixels may be any object with the buffer protocol or `__array_interface__`, such as a NumPy array
or a Pillow image. NumPy itself is never imported.
"""

import math
import os
import re
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

from visavis.connection import MESSAGE_BYTES_MAX
from visavis.errors import FieldViolation, InvalidRequest
from visavis.exif import orientation
from visavis.v1 import vision_pb2 as pb

# The bytes or the path of a JPEG, PNG or WebP file, or one opened in binary mode; or upright uint8
# pixels, RGB [H, W, 3] or grey [H, W], as an array or a Pillow image. OpenCV's arrays are BGR and
# need channels="BGR". NV12 needs a `visavis.v1.vision_pb2.Image`. Any, because arrays have no
# common type without NumPy.
ImageSource: TypeAlias = (
    bytes | bytearray | memoryview | str | PathLike[str] | BinaryIO | pb.Image | Any
)

Channels: TypeAlias = Literal["RGB", "BGR"]
"""The colour order of an array [H, W, 3]; cv2.imread returns BGR, Pillow RGB."""

# A colon alone does not make a path a URL.
_URL = re.compile(r"data:[^/]*/|[a-z][a-z0-9+.-]*://")
_FORMATS = {"RGB": pb.PIXEL_FORMAT_RGB, "BGR": pb.PIXEL_FORMAT_BGR}
# Pillow's modes that it converts to RGB without loss, but for transparency, as the server does.
_CONVERTIBLE_MODES = ("1", "P", "PA", "LA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
_SIDE_MAX = 65535
_BYTES_MAX = MESSAGE_BYTES_MAX - 64 * 1024  # Leaves room for the rest of the request.


def image_message(source: ImageSource, channels: Channels = "RGB") -> pb.Image:
    """Return the picture as a message.

    channels: colour order of an array [H, W, 3]; ignored for encoded pictures and messages.
    Raises InvalidRequest for an unusable picture, and OSError for an unreadable path.
    """
    if channels not in _FORMATS:
        message = f"channels is {channels!r}; use RGB, or BGR for OpenCV arrays"
        raise InvalidRequest(message, violations=(FieldViolation("channels", message),))
    if isinstance(source, pb.Image):
        return source
    if isinstance(source, str | PathLike):
        return pb.Image(encoded=_checked_size(file_bytes(source)))
    if callable(read := getattr(source, "read", None)):
        return pb.Image(encoded=_checked_size(_contents(read)))
    _require_upright(source)
    pixels = _view(_without_palette(source))
    shape = list(pixels.shape or ())
    if len(shape) == 1:
        return pb.Image(encoded=_checked_size(pixels.tobytes()))
    if len(shape) == 2:
        pixel_format = pb.PIXEL_FORMAT_GRAY
    elif len(shape) == 3 and shape[2] == 3:
        pixel_format = _FORMATS[channels]
    else:
        raise _invalid(
            f"image has shape {shape}; use {channels} [H, W, 3] or grey [H, W]{_hint(shape)}"
        )
    height, width = shape[:2]
    if not (0 < height <= _SIDE_MAX and 0 < width <= _SIDE_MAX):
        raise _invalid(
            f"image has shape {shape}; height and width must be between 1 and {_SIDE_MAX}"
        )
    data = _checked_size(pixels.tobytes())
    raw = pb.RawImage(format=pixel_format, width=width, height=height, data=data)
    return pb.Image(raw=raw)


def file_bytes(path: str | PathLike[str]) -> bytes:
    """Return the contents of a file.

    Raises InvalidRequest for a URL, or a file that no request can hold; and OSError.
    """
    if isinstance(path, str) and (url := _URL.match(path)):
        action = "decode its base64" if url[0].startswith("data:") else "download it"
        raise _invalid(f"image is a URL, {path[:60]!r}; {action} and pass its bytes")
    with Path(path).open("rb") as file:
        # A sparse file of a terabyte takes no room on the disk.
        _require_fits(os.fstat(file.fileno()).st_size)
        return file.read(_BYTES_MAX + 1)  # A device has no size, and no end.


def _contents(read: Callable[[int], object]) -> bytes:
    """Return the rest of an open file, of which no more is read than a request can hold."""
    contents = bytearray()
    while len(contents) <= _BYTES_MAX:
        part = read(_BYTES_MAX + 1 - len(contents))
        if not isinstance(part, bytes):
            raise _invalid('image is a file in text mode; open it in binary mode, "rb"')
        if not part:
            break
        contents += part
    if not contents:
        raise _invalid("image is an open file at its end; seek(0) before it is read again")
    return bytes(contents)


def _require_upright(source: Any) -> None:
    """Raise InvalidRequest for a Pillow image whose EXIF block says that it is rotated."""
    info = getattr(source, "info", None)
    block = info.get("exif") if isinstance(info, dict) else None
    turn = orientation(block.removeprefix(b"Exif\0\0")) if isinstance(block, bytes) else 1
    if turn != 1:
        raise _invalid(
            f"image has EXIF orientation {turn}, so its pixels may not be upright; "
            "pass ImageOps.exif_transpose(image), or the file itself"
        )


def _without_palette(source: Any) -> Any:
    """Return a Pillow image as RGB if its pixels are something else; anything else as it is.

    The elements of a palette image are indexes, and those of HSV are not colours: both have the
    shape of pixels, and would give wrong scores.
    """
    mode = getattr(source, "mode", None)
    if not isinstance(mode, str) or not callable(getattr(source, "convert", None)):
        return source
    if mode in _CONVERTIBLE_MODES:
        return source.convert("RGB")
    if mode not in ("RGB", "L"):
        raise _invalid(f"image has Pillow's mode {mode}; convert its pixels to uint8 RGB")
    return source


def _view(source: Any) -> memoryview:
    """Return a view of uint8 elements in any number of dimensions, by either protocol."""
    try:
        view = memoryview(source)
    except TypeError:
        view = _interface_view(source)
    if view.format not in {"B", "<B", ">B", "=B", "|B"}:
        kind = getattr(source, "dtype", None) or f"format {view.format!r}"
        raise _invalid(f"image has {kind} pixels; use uint8, from 0 to 255")
    return view


def _interface_view(source: Any) -> memoryview:
    # Pillow exposes its pixels as bytes. Objects that expose an address instead nearly always
    # support the buffer protocol too.
    interface = getattr(source, "__array_interface__", None)
    data = interface.get("data") if isinstance(interface, dict) else None
    if not isinstance(interface, dict) or not isinstance(data, bytes) or interface.get("strides"):
        raise _invalid(
            f"image is a {type(source).__name__}; use bytes, a path, an open file, or a uint8 "
            "array [H, W, 3]"
        )
    if interface["typestr"] != "|u1":
        raise _invalid(f"image has {interface['typestr']} pixels; convert them to uint8 RGB")
    shape = tuple(interface["shape"])
    if math.prod(shape) != len(data) or not data:
        raise _invalid(
            f"image has shape {list(shape)} but {len(data)} bytes of pixels; they must match"
        )
    return memoryview(data).cast("B", shape)


def _hint(shape: list[int]) -> str:
    if len(shape) == 3 and shape[2] == 4:
        return "; drop the alpha channel"
    if len(shape) == 3 and shape[0] in {1, 3}:
        return "; move the channels to the end"
    if len(shape) == 4:
        return "; pass one picture at a time"
    return ""


def _checked_size(data: bytes) -> bytes:
    if not data:
        raise _invalid("image is empty")
    _require_fits(len(data))
    return data


def _require_fits(size: int) -> None:
    if size > _BYTES_MAX:
        raise _invalid(f"image is {size} bytes; the limit is {_BYTES_MAX}")


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(message, violations=(FieldViolation("image", message),))
