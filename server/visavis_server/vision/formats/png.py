"""PNG files: their chunks, and the file without metadata.

libpng inflates all of IDAT, texts and profiles, and writes warnings to standard error. Here the
pixels alone are inflated, and the decoder is given a file without anything else.
Chunks and filters: W3C PNG (third edition).
"""

import zlib
from collections.abc import Iterator
from typing import Final

from visavis_server.errors import InvalidRequest
from visavis_server.settings import ImageLimits
from visavis_server.vision.formats import exif
from visavis_server.vision.formats.exif import UPRIGHT
from visavis_server.vision.formats.picture_file import PictureFile, check_cost, check_size
from visavis_server.vision.formats.png_cost import estimated_cost_ns
from visavis_server.vision.formats.png_frame import KINDS, Frame, damaged
from visavis_server.vision.formats.png_minimal import SIGNATURE, minimal

__all__ = ["MAX_CHUNKS", "SIGNATURE", "read_png"]

# Encoders make chunks of 8 KiB or more, in a file of a few MiB.
MAX_CHUNKS: Final = 20_000
_PALETTE = 3


def read_png(data: bytes, limits: ImageLimits, field: str) -> PictureFile:
    """Return the description of a PNG, from its chunks; of an animation, of its first frame.

    Raises InvalidRequest on `field`: damaged, over a limit, or more chunks than any encoder writes.
    """
    frame = canvas = _read_header(data, limits, field)
    palette: bytes | None = None
    image_data: list[memoryview] = []
    orientation: int | None = None
    place = None
    is_animated = has_begun = has_control = False
    for kind, content in _chunks(data, field):
        if kind == b"IDAT":
            has_begun = True
            if place is None:
                image_data.append(content)
        elif kind == b"PLTE" and canvas.color == _PALETTE:
            if palette is not None or has_begun or len(content) % 3 or len(content) > 768:
                raise damaged(field, "its palette is repeated, misplaced or of an invalid length")
            palette = bytes(content)
        elif kind == b"eXIf" and orientation is None:
            orientation = exif.orientation(bytes(content[: 1 << 16]))
        elif kind == b"acTL" and not has_begun:
            is_animated = int.from_bytes(content[:4]) > 1
        elif kind == b"fcTL" and is_animated:
            if has_control:
                break  # The second frame begins.
            has_control = True
            if has_begun:  # The image so far is for readers without animation.
                frame, place = _read_frame_control(content, canvas, field)
                image_data.clear()
        elif kind == b"fdAT" and place is not None:
            image_data.append(content[4:])
    if canvas.color == _PALETTE and palette is None:
        raise damaged(field, "it has no palette")
    cost_ns = estimated_cost_ns(frame, canvas, sum(map(len, image_data)))
    check_cost(cost_ns, "send a smaller PNG, or a JPEG", limits, field)
    pixels = canvas.width * canvas.height
    # OpenCV holds the pixels twice. An animation's canvas or a turned picture is a third copy.
    orientation = UPRIGHT if orientation is None or is_animated else orientation
    copies = 2 + (place is not None or orientation != UPRIGHT)
    return PictureFile(
        canvas.width,
        canvas.height,
        working_bytes=frame.raw_bytes + 3 * pixels * copies,
        minimal=lambda: minimal(frame, palette, image_data, cost_ns, limits, field),
        orientation=orientation,
        place=place or (0, 0),
    )


def _read_header(data: bytes, limits: ImageLimits, field: str) -> Frame:
    """Return the header (IHDR), which must be the first chunk."""
    header = data[8:33]
    if header[:8] != b"\0\0\0\x0dIHDR" or zlib.crc32(header[4:21]) != int.from_bytes(header[21:]):
        raise damaged(field, "it does not begin with a valid IHDR")
    width, height = int.from_bytes(header[8:12]), int.from_bytes(header[12:16])
    depth, color, compression, filtering, interlacing = header[16:21]
    _, depths = KINDS.get(color, (0, ()))
    if depth not in depths or compression or filtering or interlacing > 1:
        raise damaged(field, f"its header has invalid values: {header[16:21].hex(' ')}")
    if not (width and height):
        raise damaged(field, "its width or height is 0")
    bytes_per_pixel = (4 if color & 4 else 3) * (2 if depth == 16 else 1)
    check_size(width, height, bytes_per_pixel, limits, field)
    return Frame(width, height, depth, color, bool(interlacing))


def _read_frame_control(
    content: memoryview, canvas: Frame, field: str
) -> tuple[Frame, tuple[int, int]]:
    """Return the frame of a fcTL, and its left and top on the canvas."""
    width, height, left, top = (int.from_bytes(content[at : at + 4]) for at in range(4, 20, 4))
    if not (width and height and left + width <= canvas.width and top + height <= canvas.height):
        raise damaged(field, "its first frame exceeds the canvas")
    return (
        Frame(width, height, canvas.depth, canvas.color, canvas.is_interlaced),
        (left, top),
    )


def _chunks(data: bytes, field: str) -> Iterator[tuple[bytes, memoryview]]:
    """Yield each chunk's type and content up to IEND. Checks the checksums that pixels depend on.

    A chunk longer than the rest of the file is rejected: OpenCV would allocate its length first, up
    to 2 GB.
    """
    whole = memoryview(data)
    position = 33
    for _ in range(MAX_CHUNKS):
        length, kind = (
            int.from_bytes(data[position : position + 4]),
            data[position + 4 : position + 8],
        )
        position += 8
        if position > len(data):
            raise damaged(field, "it ends before its IEND")
        if length > len(data) - position:
            raise damaged(field, f"a chunk claims {length} bytes, more than the file has left")
        if kind == b"IEND":
            return
        end = position + length
        if kind in (b"IDAT", b"PLTE"):
            if zlib.crc32(whole[position - 4 : end]) != int.from_bytes(data[end : end + 4]):
                raise damaged(field, f"the checksum of its {kind.decode()} is wrong")
        elif not kind[0] & 0x20:  # a capital letter: the chunk is critical
            raise damaged(field, f"it has a critical chunk of an unknown type: {kind.hex(' ')}")
        yield kind, whole[position:end]
        position = end + 4
    raise InvalidRequest(field, f"the PNG has more than {MAX_CHUNKS} chunks")
