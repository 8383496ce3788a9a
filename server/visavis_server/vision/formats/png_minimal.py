"""The PNG that the decoder is given: its pixels, inflated once, and nothing else.

The image data is inflated to the size that the header implies, and no further, then wrapped in
stored blocks, behind the header and the palette.
Streams: RFC 1950. Stored blocks: RFC 1951.
"""

import math
import threading
import time
import zlib
from collections.abc import Iterator
from functools import cache
from itertools import chain, islice
from typing import Final

import numpy as np

from visavis_server.errors import InvalidRequest
from visavis_server.settings import ImageLimits
from visavis_server.vision.formats.picture_file import check_cost
from visavis_server.vision.formats.png_cost import (
    ENCODED_BYTE_NS,
    INFLATED_BYTE_NS,
    PAETH_BYTE_NS,
)
from visavis_server.vision.formats.png_frame import Frame, damaged

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# The size of a stored block; zlib returns as much without a copy.
_STORED_BYTES = 1 << 15
_WRAPPING_BYTES = 17  # of a block and its chunk
_TAIL_BYTES = 28  # the chunks of a checksum and IEND
_INPUT_BYTES = 1 << 15
_PAETH = b"\x04"
# A large picture on a busy machine takes longer per byte than the one that is measured.
_SLACK: Final = 1.25
# However odd the clock: the limit on time stays one.
_MOST_SLOWNESS: Final = 16.0
_measuring = threading.Lock()


def minimal(
    frame: Frame,
    palette: bytes | None,
    image_data: list[memoryview],
    cost_ns: float,
    limits: ImageLimits,
    field: str,
) -> memoryview:
    """Return a PNG of a frame's pixels alone: header, palette, and image data in stored blocks.

    cost_ns: the estimated cost without the filters. Each block has a separate chunk, because OpenCV
    copies the first chunk. Raises InvalidRequest: damaged, or too slow to decode.
    """
    head = SIGNATURE + _chunk(b"IHDR", frame.header)
    if palette is not None:
        head += _chunk(b"PLTE", palette)
    head += _chunk(b"IDAT", b"\x78\x01")
    left = frame.raw_bytes
    blocks = -(-left // _STORED_BYTES)
    # NumPy does not clear the memory.
    file = np.empty(len(head) + left + blocks * _WRAPPING_BYTES + _TAIL_BYTES, np.uint8).data
    file[: len(head)] = head
    position, block_end, crc, adler, paeth_bytes = len(head), len(head), 0, 1, 0
    counts_filters = cost_ns + left * PAETH_BYTE_NS > 1e6 * limits.decode_ms
    rest_ns = cost_ns - sum(map(len, image_data)) * ENCODED_BYTE_NS - left * INFLATED_BYTE_NS
    slowness = _slowness() if counts_filters else 1.0
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
    if counts_filters:  # Near the limit, the measured time of inflating counts.
        took_ns = 1e9 * (time.thread_time() - began_s) / slowness
        cost_ns = max(cost_ns, took_ns + rest_ns / 2) + paeth_bytes * PAETH_BYTE_NS
    check_cost(
        cost_ns,
        "many rows use the Paeth filter: send a smaller PNG, or a JPEG",
        limits,
        field,
    )
    return file


def _inflated(
    image_data: list[memoryview], left: int, limit_s: float, field: str
) -> Iterator[bytes]:
    """Yield the first `left` bytes of the inflated image data; no piece spans two stored blocks.

    limit_s: the CPU time allowed, on the processor of the costs. A stream of tiny deflate blocks,
    each with its own codes, costs ten times as much per byte as any encoder's, and zlib does not
    report the number of blocks.
    """
    header = int.from_bytes(islice(chain.from_iterable(image_data), 2))
    # Deflate, a window of at most 32 KiB, a checksum, and no dictionary.
    if header & 0x8F20 != 0x0800 or header % 31:
        raise damaged(field, "its image data has no valid zlib header")
    # The checksum at the end is skipped: the chunks have checksums.
    inflater = zlib.decompressobj(-15)
    began_s = time.thread_time()
    wanted = min(left, _STORED_BYTES)
    for encoded in _slices(image_data, 2):
        rest: bytes | memoryview = encoded
        while left:
            try:
                piece = inflater.decompress(rest, wanted)
            except zlib.error as error:
                raise damaged(field, f"its image data can't be inflated: {error}") from None
            if piece:
                yield piece
            left -= len(piece)
            wanted = wanted - len(piece) or min(left, _STORED_BYTES)
            rest = inflater.unconsumed_tail
            if inflater.eof or not (rest or piece):
                break
        if inflater.eof or not left:
            break
        took_s = time.thread_time() - began_s
        if took_s > limit_s:
            if took_s > (most_s := limit_s * _slowness()):
                raise InvalidRequest(
                    field,
                    f"the PNG's image data takes too long to inflate: over {1e3 * most_s:.0f} ms; "
                    "send a smaller PNG, or a JPEG",
                )
            began_s = time.thread_time() - took_s  # without the time of the first _slowness()
    if left:
        raise damaged(field, f"its image data ends {left} bytes too early")


def _slowness() -> float:
    """Return the time that a blank picture takes here, relative to its estimated cost: 1 to 16.

    It scales measured time, so that a slower machine decodes the same pictures.
    """
    with _measuring:  # Threads that measure at once would slow each other down.
        return _measured_slowness()


@cache
def _measured_slowness() -> float:
    frame = Frame(2048, 1365, 8, 2, is_interlaced=False)
    image_data = zlib.compress(bytes(frame.raw_bytes))
    cost_ns = len(image_data) * ENCODED_BYTE_NS + frame.raw_bytes * INFLATED_BYTE_NS

    def took_s() -> float:
        began_s = time.thread_time()
        minimal(frame, None, [memoryview(image_data)], 0.0, ImageLimits(decode_ms=math.inf), "")
        return time.thread_time() - began_s

    slowness = _SLACK * 1e9 * min(took_s() for _ in range(3)) / cost_ns
    return min(max(slowness, 1.0), _MOST_SLOWNESS)


def _slices(image_data: list[memoryview], skipped: int) -> Iterator[memoryview]:
    """Yield the image data after its first bytes in short pieces: zlib copies unconsumed input."""
    for content in image_data:
        for at in range(min(skipped, len(content)), len(content), _INPUT_BYTES):
            yield content[at : at + _INPUT_BYTES]
        skipped = max(0, skipped - len(content))


def _paeth_bytes(block: bytes, frame: Frame, offset: int) -> int:
    """Return about how many bytes of a block of raw image data use the Paeth filter.

    offset: the block's offset in the image data. The first byte of each row names its filter.
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
