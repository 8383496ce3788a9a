"""WebP files: their chunks, their cost, and the file without metadata.

The decoder is given only the chunk with the colours, since the alpha channel is dropped anyway.
Container: https://developers.google.com/speed/webp/docs/riff_container. Frame header: RFC 6386.
"""

from collections.abc import Iterator
from typing import Final

from visavis_server.errors import InvalidRequest
from visavis_server.settings import ImageLimits
from visavis_server.vision.formats import exif
from visavis_server.vision.formats.exif import UPRIGHT
from visavis_server.vision.formats.picture_file import PictureFile, check_cost, check_size
from visavis_server.vision.formats.webp_lossless import count_groups

# A still picture has at most seven, an animation one for each frame.
MAX_CHUNKS: Final = 10_000
_RIFF_HEADER_BYTES = 12
_IS_ANIMATED = 0x02  # among VP8X's flags
_FRAME_HEADER_BYTES = 16  # of ANMF

# Costs in libwebp 1.6, in ns: the worst case of `python -m tests.faults.costly` and of files of
# 18 MP.
_PIXEL_NS, _BYTE_NS = 8.0, 55.0
_LOSSLESS_PIXEL_NS, _LOSSLESS_BYTE_NS = 17.0, 8.0
_GROUP_NS, _SYMBOL_NS = 20_000.0, 1500.0
# The most memory of a group's five tables, reached by codes of 15 bits.
_GROUP_BYTES = 12 << 10


def read_webp(data: bytes, limits: ImageLimits, field: str) -> PictureFile:
    """Return the description of a WebP, from its chunks; of an animation, of its first frame.

    Raises InvalidRequest on `field`: damaged, over a limit, or more chunks than any encoder writes.
    """
    canvas: tuple[int, int] | None = None
    place: tuple[int, int] | None = None
    frame: tuple[bytes, memoryview] | None = None
    orientation: int | None = None
    is_animated = False
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    for kind, content in _chunks(memoryview(data)[_RIFF_HEADER_BYTES:end], field):
        if kind == b"VP8X" and len(content) >= 10 and canvas is None and frame is None:
            is_animated = bool(content[0] & _IS_ANIMATED)
            canvas = 1 + _uint24(content, 4), 1 + _uint24(content, 7)
        elif kind in (b"VP8 ", b"VP8L") and not is_animated and frame is None:
            frame = kind, content
            if canvas is None:
                break  # A simple file has no other chunks.
        elif kind == b"ANMF" and is_animated and len(content) >= _FRAME_HEADER_BYTES:
            place = 2 * _uint24(content, 0), 2 * _uint24(content, 3)
            for kind, within in _chunks(content[_FRAME_HEADER_BYTES:], field):
                if kind in (b"VP8 ", b"VP8L"):
                    frame = kind, within
                    break
            break
        elif kind == b"EXIF" and orientation is None:
            orientation = exif.orientation(bytes(content[: 1 << 16]))
    if frame is None:
        raise _damaged(field, "it has no image data")
    kind, content = frame
    width, height = _read_size(kind, content, field)
    canvas_width, canvas_height = canvas or (width, height)
    left, top = place or (0, 0)
    if place is None and (width, height) != (canvas_width, canvas_height):
        raise _damaged(field, "its two headers give different sizes")
    if left + width > canvas_width or top + height > canvas_height:
        raise _damaged(field, "its first frame exceeds the canvas")
    check_size(canvas_width, canvas_height, 4, limits, field)
    pixels = width * height
    if kind == b"VP8 ":
        groups = 0
        cost_ns = pixels * _PIXEL_NS + len(content) * _BYTE_NS
    else:
        groups, symbols = count_groups(bytes(content), field)
        cost_ns = pixels * _LOSSLESS_PIXEL_NS + len(content) * _LOSSLESS_BYTE_NS
        cost_ns += groups * _GROUP_NS + symbols * _SYMBOL_NS
    check_cost(cost_ns, "send a smaller WebP, or a JPEG", limits, field)
    orientation = UPRIGHT if orientation is None else orientation
    # OpenCV holds the pixels twice. A canvas or a turned picture is a third copy.
    copies = 2 + (place is not None or orientation != UPRIGHT)
    return PictureFile(
        canvas_width,
        canvas_height,
        working_bytes=3 * canvas_width * canvas_height * copies
        + (4 * pixels if kind == b"VP8L" else 0)
        + groups * _GROUP_BYTES,
        minimal=lambda: _simple(kind, content),
        orientation=orientation,
        place=place or (0, 0),
    )


def _chunks(data: memoryview, field: str) -> Iterator[tuple[bytes, memoryview]]:
    """Yield each chunk's type and content."""
    position = 0
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data):
            return
        kind = bytes(data[position : position + 4])
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8
        if length > len(data) - position:
            raise _damaged(field, f"a chunk claims {length} bytes, more than the file has left")
        yield kind, data[position : position + length]
        position += length + (length & 1)
    raise InvalidRequest(field, f"the WebP has more than {MAX_CHUNKS} chunks")


def _read_size(kind: bytes, content: memoryview, field: str) -> tuple[int, int]:
    """Return the width and height of a lossy or lossless image, from its header."""
    if kind == b"VP8L" and len(content) >= 5 and content[0] == 0x2F:
        sizes = int.from_bytes(content[1:5], "little")
        return 1 + (sizes & 0x3FFF), 1 + (sizes >> 14 & 0x3FFF)
    if kind == b"VP8 " and len(content) >= 10 and bytes(content[3:6]) == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(content[at : at + 2], "little") & 0x3FFF for at in (6, 8))
        if width and height:
            return width, height
    raise _damaged(field, "its image has no valid header")


def _simple(kind: bytes, content: memoryview) -> memoryview:
    """Return a simple WebP file with one image."""
    length = len(content)
    riff = b"RIFF" + (12 + length + (length & 1)).to_bytes(4, "little") + b"WEBP"
    head = riff + kind + length.to_bytes(4, "little")
    # OpenCV requires at least 32 bytes; libwebp ignores bytes after the end.
    return memoryview(b"".join((head, content, b"\0" * (length & 1))).ljust(32, b"\0"))


def _uint24(content: memoryview, at: int) -> int:
    return int.from_bytes(content[at : at + 3], "little")


def _damaged(field: str, why: str) -> InvalidRequest:
    return InvalidRequest(field, f"the WebP is damaged: {why}")
