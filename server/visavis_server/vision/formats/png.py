"""PNG files: their chunks, what decoding them costs, and the file without metadata.

libpng inflates everything that IDAT, texts and profiles hold, and writes complaints to stderr.
Here the image data is inflated once, to the size that the header asks for and no further. The
decoder is given it in stored blocks, behind the header and the palette.
Chunks and filters: W3C PNG (third edition). Streams: RFC 1950. Stored blocks: RFC 1951.
"""

import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

import numpy as np

from visavis_server.errors import InvalidRequest
from visavis_server.settings import ImageLimits
from visavis_server.vision.formats import exif
from visavis_server.vision.formats.exif import UPRIGHT
from visavis_server.vision.formats.picture_file import PictureFile, check_cost, check_size

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# Encoders make chunks of 8 KiB or more, in a file of a few MiB.
MAX_CHUNKS: Final = 20_000
# By colour type: samples of a pixel, and the bit depths that it may have.
_KINDS = {
    0: (1, (1, 2, 4, 8, 16)),
    2: (3, (8, 16)),
    3: (1, (1, 2, 4, 8)),
    4: (2, (8, 16)),
    6: (4, (8, 16)),
}
_RGB, _PALETTE, _RGBA = 2, 3, 6
# Adam7: left, top, and the steps across and down of each pass.
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
# Of each stored block; zlib returns as much without a copy.
_STORED_BYTES = 1 << 15
_WRAPPING_BYTES = 17  # the block's own, and its chunk's
_TAIL_BYTES = 28  # the chunks of a checksum and IEND
_INPUT_BYTES = 1 << 15
_PAETH = b"\x04"

# What the parts of a file cost in ns, in OpenCV 5 with libpng 1.6: the worst that was found, by
# `python -m tests.faults.costly` and on files of 25 MP. A raw byte is inflated, wrapped, unwrapped
# and unfiltered. The Paeth filter is slow where its branches can't be predicted.
_ENCODED_BYTE_NS, _INFLATED_BYTE_NS, _RAW_BYTE_NS, _PAETH_BYTE_NS = 13.0, 2.0, 3.2, 5.5
_CONVERTED_PIXEL_NS, _INTERLACED_PIXEL_NS = 5.0, 5.0


@dataclass(frozen=True, slots=True)
class _Frame:
    """An image's header (IHDR), or that of an animation's frame."""

    width: int
    height: int
    depth: int
    color: int
    is_interlaced: bool

    @property
    def pixel_bits(self) -> int:
        return self.depth * _KINDS[self.color][0]

    @property
    def header(self) -> bytes:
        """The content of its IHDR."""
        sizes = self.width.to_bytes(4) + self.height.to_bytes(4)
        return sizes + bytes((self.depth, self.color, 0, 0, self.is_interlaced))

    def passes(self) -> Iterator[tuple[int, int]]:
        """Yield how many rows each pass has, and the bytes of one, its filter's included."""
        for left, top, across, down in _PASSES if self.is_interlaced else ((0, 0, 1, 1),):
            columns, rows = -(-(self.width - left) // across), -(-(self.height - top) // down)
            if columns > 0 and rows > 0:
                yield rows, 1 + (columns * self.pixel_bits + 7) // 8

    @property
    def raw_bytes(self) -> int:
        """How many bytes its image data inflates to."""
        return sum(rows * row_bytes for rows, row_bytes in self.passes())


def read_png(data: bytes, limits: ImageLimits, field: str) -> PictureFile:
    """Return what a PNG's chunks say; of an animation, about its first frame.

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
                raise _damaged(field, "its palette is repeated, late or of an odd length")
            palette = bytes(content)
        elif kind == b"eXIf" and orientation is None:
            orientation = exif.orientation(bytes(content[: 1 << 16]))
        elif kind == b"acTL" and not has_begun:
            is_animated = int.from_bytes(content[:4]) > 1
        elif kind == b"fcTL" and is_animated:
            if has_control:
                break  # The second frame begins.
            has_control = True
            if has_begun:  # What came so far is a substitute for readers without animation.
                frame, place = _read_frame_control(content, canvas, field)
                image_data.clear()
        elif kind == b"fdAT" and place is not None:
            image_data.append(content[4:])
    if canvas.color == _PALETTE and palette is None:
        raise _damaged(field, "it has no palette")
    encoded_bytes = sum(map(len, image_data))
    cost_ns = encoded_bytes * _ENCODED_BYTE_NS
    cost_ns += frame.raw_bytes * (_INFLATED_BYTE_NS + _RAW_BYTE_NS)
    pixels = canvas.width * canvas.height
    cost_ns += pixels * (0 if canvas.color in (_RGB, _RGBA) else _CONVERTED_PIXEL_NS)
    cost_ns += pixels * (_INTERLACED_PIXEL_NS if canvas.is_interlaced else 0)
    check_cost(cost_ns, "send the PNG smaller, or as a JPEG", limits, field)
    # OpenCV holds the pixels twice. A frame of an animation lies on a canvas; a turned picture is
    # another.
    orientation = UPRIGHT if orientation is None or is_animated else orientation
    copies = 2 + (place is not None or orientation != UPRIGHT)
    return PictureFile(
        canvas.width,
        canvas.height,
        working_bytes=frame.raw_bytes + 3 * pixels * copies,
        minimal=lambda: _minimal(frame, palette, image_data, cost_ns, limits, field),
        orientation=orientation,
        place=place or (0, 0),
    )


def _read_header(data: bytes, limits: ImageLimits, field: str) -> _Frame:
    """Return what IHDR says, which must come first."""
    header = data[8:33]
    if header[:8] != b"\0\0\0\x0dIHDR" or zlib.crc32(header[4:21]) != int.from_bytes(header[21:]):
        raise _damaged(field, "it doesn't begin with a header")
    width, height = int.from_bytes(header[8:12]), int.from_bytes(header[12:16])
    depth, color, compression, filtering, interlacing = header[16:21]
    _, depths = _KINDS.get(color, (0, ()))
    if depth not in depths or compression or filtering or interlacing > 1:
        raise _damaged(field, f"its header has impossible values: {header[16:21].hex(' ')}")
    if not (width and height):
        raise _damaged(field, "its header gives no width and height")
    bytes_per_pixel = (4 if color & 4 else 3) * (2 if depth == 16 else 1)
    check_size(width, height, bytes_per_pixel, limits, field)
    return _Frame(width, height, depth, color, bool(interlacing))


def _read_frame_control(
    content: memoryview, canvas: _Frame, field: str
) -> tuple[_Frame, tuple[int, int]]:
    """Return the frame that a fcTL describes, and its left and top on the canvas."""
    width, height, left, top = (int.from_bytes(content[at : at + 4]) for at in range(4, 20, 4))
    if not (width and height and left + width <= canvas.width and top + height <= canvas.height):
        raise _damaged(field, "its first frame isn't on the canvas")
    return (
        _Frame(width, height, canvas.depth, canvas.color, canvas.is_interlaced),
        (left, top),
    )


def _chunks(data: bytes, field: str) -> Iterator[tuple[bytes, memoryview]]:
    """Yield each chunk's type and content up to IEND; checksums count where pixels depend on them.

    A chunk that claims to be longer than what is left is refused: OpenCV would make room for it
    first, for 2 GB if it says so.
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
            raise _damaged(field, "it ends before its IEND")
        if length > len(data) - position:
            raise _damaged(field, f"a chunk says that it has {length} bytes, too many")
        if kind == b"IEND":
            return
        end = position + length
        if kind in (b"IDAT", b"PLTE"):
            if zlib.crc32(whole[position - 4 : end]) != int.from_bytes(data[end : end + 4]):
                raise _damaged(field, f"the checksum of its {kind.decode()} is wrong")
        elif not kind[0] & 0x20:  # a capital: one must know it to read the picture
            raise _damaged(field, f"it needs a chunk of an unknown type: {kind.hex(' ')}")
        yield kind, whole[position:end]
        position = end + 4
    raise InvalidRequest(field, f"the PNG has more than {MAX_CHUNKS} chunks")


def _minimal(
    frame: _Frame,
    palette: bytes | None,
    image_data: list[memoryview],
    cost_ns: float,
    limits: ImageLimits,
    field: str,
) -> memoryview:
    """Return the file of a frame's pixels: header, palette, and the image data in stored blocks.

    Each block has a chunk of its own, because OpenCV makes a copy of the first chunk.
    """
    head = SIGNATURE + _chunk(b"IHDR", frame.header)
    if palette is not None:
        head += _chunk(b"PLTE", palette)
    head += _chunk(b"IDAT", b"\x78\x01")
    left = frame.raw_bytes
    blocks = -(-left // _STORED_BYTES)
    # NumPy doesn't clear its memory first.
    file = np.empty(len(head) + left + blocks * _WRAPPING_BYTES + _TAIL_BYTES, np.uint8).data
    file[: len(head)] = head
    position, block_end, crc, adler, paeth_bytes = len(head), len(head), 0, 1, 0
    counts_filters = cost_ns + left * _PAETH_BYTE_NS > 1e6 * limits.decode_ms
    rest_ns = cost_ns - sum(map(len, image_data)) * _ENCODED_BYTE_NS - left * _INFLATED_BYTE_NS
    limit_s = max(0.0, 1e-3 * limits.decode_ms - 1e-9 * rest_ns)
    began_s = time.thread_time()
    for piece in _inflated(image_data, left, limit_s, field):
        if position == block_end:
            size = min(left, _STORED_BYTES)
            block = b"IDAT%c" % (size == left) + _uint16(size) + _uint16(size ^ 0xFFFF)
            file[position : position + 13] = (size + 5).to_bytes(4) + block
            position, crc = position + 13, zlib.crc32(block)
            block_end = position + size
        if counts_filters:
            paeth_bytes += _paeth_bytes(piece, frame, frame.raw_bytes - left)
        left -= len(piece)
        file[position : position + len(piece)] = piece
        position += len(piece)
        crc, adler = zlib.crc32(piece, crc), zlib.adler32(piece, adler)
        if position == block_end:
            file[position : position + 4] = crc.to_bytes(4)
            position = block_end = position + 4
    file[position:] = _chunk(b"IDAT", adler.to_bytes(4)) + _chunk(b"IEND", b"")
    if counts_filters:  # Near the limit, what inflating really took counts.
        took_ns = 1e9 * (time.thread_time() - began_s)
        cost_ns = max(cost_ns, took_ns + rest_ns / 2) + paeth_bytes * _PAETH_BYTE_NS
    check_cost(
        cost_ns,
        "many rows have the Paeth filter: send the PNG smaller, or as a JPEG",
        limits,
        field,
    )
    return file


def _inflated(
    image_data: list[memoryview], left: int, limit_s: float, field: str
) -> Iterator[bytes]:
    """Yield the first `left` bytes of the image data, inflated; no piece has parts of two blocks.

    The time counts too: a stream of tiny blocks, each with its own codes, costs ten times as much
    a byte as any encoder's, and zlib doesn't tell.
    """
    header = int.from_bytes(islice(chain.from_iterable(image_data), 2))
    # Deflate, a window of at most 32 KiB, a checksum, and no dictionary.
    if header & 0x8F20 != 0x0800 or header % 31:
        raise _damaged(field, "its image data has no header")
    # The checksum at the end is not read: the chunks have their own.
    inflater = zlib.decompressobj(-15)
    end_s = time.thread_time() + limit_s
    wanted = min(left, _STORED_BYTES)
    for encoded in _slices(image_data, 2):
        rest: bytes | memoryview = encoded
        while left:
            try:
                piece = inflater.decompress(rest, wanted)
            except zlib.error as error:
                raise _damaged(field, f"its image data can't be inflated: {error}") from None
            if piece:
                yield piece
            left -= len(piece)
            wanted = wanted - len(piece) or min(left, _STORED_BYTES)
            rest = inflater.unconsumed_tail
            if inflater.eof or not (rest or piece):
                break
        if inflater.eof or not left:
            break
        if time.thread_time() > end_s:
            raise InvalidRequest(field, "the PNG's image data takes too long to inflate")
    if left:
        raise _damaged(field, f"its image data ends {left} bytes before the last row")


def _slices(image_data: list[memoryview], skipped: int) -> Iterator[memoryview]:
    """Yield short pieces of the image data behind its first bytes: zlib copies what it leaves."""
    for content in image_data:
        for at in range(min(skipped, len(content)), len(content), _INPUT_BYTES):
            yield content[at : at + _INPUT_BYTES]
        skipped = max(0, skipped - len(content))


def _paeth_bytes(block: bytes, frame: _Frame, offset: int) -> int:
    """Return how many bytes of a block of raw image data, or so, the Paeth filter decodes.

    offset: of the block in the image data. The first byte of each row names its filter.
    """
    total = begin = 0
    for rows, row_bytes in frame.passes():
        end = begin + rows * row_bytes
        first = max(begin, offset + (begin - offset) % row_bytes)
        last = min(end, offset + len(block))
        if first < last:
            total += row_bytes * block[first - offset : last - offset : row_bytes].count(_PAETH)
        begin = end
    return total


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return len(content).to_bytes(4) + kind + content + checksum.to_bytes(4)


def _uint16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _damaged(field: str, why: str) -> InvalidRequest:
    return InvalidRequest(field, f"the PNG is damaged: {why}")
