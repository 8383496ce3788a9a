"""JPEG files: their segments, what decoding them costs, and the file without metadata.

libjpeg reads any number of segments and scans, in any order. Here each is counted, and the decoder
is given the tables, frame and scans alone, byte for byte as they came.
Markers and segments: ITU-T T.81, annex B.
"""

import dataclasses
import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from visavis_server.arrays import Image
from visavis_server.errors import InvalidRequest
from visavis_server.settings import ImageLimits
from visavis_server.vision.formats import exif
from visavis_server.vision.formats.exif import UPRIGHT
from visavis_server.vision.formats.jpeg_end import (
    PROBE,
    PROBE_WITH_RESTARTS,
    decoded_share,
    ends_in_grey,
)
from visavis_server.vision.formats.picture_file import PictureFile, check_cost, check_size

# An honest file has some 20, and one more for each 64 KB of a colour profile.
MAX_SEGMENTS: Final = 1000
# Some cameras align segments with fill bytes.
_MAX_SKIPPED_BYTES = 1 << 16
_LARGEST_WINDOW_BYTES = 1 << 18

_EOI, _SOS, _DNL = 0xD9, 0xDA, 0xDC
_APP0, _APP1, _APP14, _APP15, _COM = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})  # DHT, DAC, DQT, DRI
_DRI = 0xDD
_SEQUENTIAL, _PROGRESSIVE, _LOSSLESS = (
    frozenset({0xC0, 0xC1, 0xC9}),
    frozenset({0xC2, 0xCA}),
    frozenset({0xC3, 0xCB}),
)
_FRAMES = _SEQUENTIAL | _PROGRESSIVE | _LOSSLESS
_ARITHMETIC = frozenset({0xC9, 0xCA, 0xCB})
# Of arithmetic coding, zeros at the end need not be written; lossless files have none to fill.
_HUFFMAN = frozenset({0xC0, 0xC1, 0xC2})
# What zeros are decoded to, as RGB and as RGB of four inks.
_GREY, _INKS_GREY = 128, 64
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM and restarts have no length
_MARKER = re.compile(rb"\xff([^\x00\xff])")
# In a scan's data libjpeg reads up to one of these and no further. Any fill bytes before it count
# as data: a pattern that took them in would cost the square of their number.
_STOPS = re.compile(rb"\xff[^\x00\xff]")
_STOPS_WITH_RESTARTS = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# A version other than 1 makes libjpeg complain on stderr.
_JFIF_1 = b"JFIF\0\1"

# What the parts of a file cost in libjpeg-turbo 3.1, in ns: the worst that was found, by
# `python -m tests.faults.costly` and on photographs of 25 MP. A block is 8x8 samples.
_PIXEL_NS, _PIXEL_AS_CMYK_NS = 3.0, 14.0
_BLOCK_NS, _KEPT_BLOCK_NS, _SMOOTHED_BLOCK_NS, _LOSSLESS_SAMPLE_NS = 25.0, 40.0, 160.0, 7.0
_BYTE_NS, _BYTE_IN_PARTS_NS = 20.0, 48.0
_VISIT_NS, _VISIT_DC_NS, _REFINEMENT_NS, _ARITHMETIC_NS = 30.0, 20.0, 60.0, 300.0
_RESTART_NS = 1200.0


@dataclass
class _Component:
    blocks: int  # of 8x8 samples
    # How many of its low bits each of the first coefficients still lacks; None: all.
    lacking: list[int | None] = dataclasses.field(default_factory=lambda: [None] * 10)


@dataclass
class _Frame:
    """What a file has shown so far, and what that costs."""

    kind: int
    width: int
    height: int
    components: dict[int, _Component]
    mcus: int
    mcu: tuple[int, int]  # height and width in pixels
    cost_ns: float = 0.0
    scan_bytes: int = 0
    scans: int = 0
    in_parts: bool = False  # Coefficients are kept until the last scan.

    @property
    def blocks(self) -> int:
        return sum(component.blocks for component in self.components.values())

    def add_scan(self, ids: bytes, band: bytes, restart_mcus: int) -> None:
        """Count a scan of these components; band: its Ss, Se, Ah and Al."""
        scanned = [self.components[number] for number in ids]
        self.scans += 1
        self.in_parts |= self.kind in _PROGRESSIVE or len(ids) < len(self.components)
        first, last, high, low = band[0], band[1], band[2] >> 4, band[2] & 15
        if self.kind in _LOSSLESS:
            each_ns = 64 * _LOSSLESS_SAMPLE_NS
        elif self.kind in _ARITHMETIC:
            each_ns = _ARITHMETIC_NS
        elif self.kind in _SEQUENTIAL:
            each_ns = _VISIT_NS
        elif high and last:
            each_ns = _REFINEMENT_NS
        else:
            each_ns = _VISIT_NS if last else _VISIT_DC_NS
        blocks = sum(component.blocks for component in scanned)
        self.cost_ns += blocks * each_ns
        if restart_mcus:
            # A scan of one component has as many MCUs as that has blocks.
            mcus = self.mcus if len(scanned) > 1 else blocks
            self.cost_ns += mcus / restart_mcus * _RESTART_NS
        for component in scanned:
            component.lacking[first : last + 1] = [low] * (min(last, 9) + 1 - min(first, 10))

    @property
    def whole_cost_ns(self) -> float:
        """The cost of the scans, and of turning them into pixels."""
        is_smoothed = self.kind in _PROGRESSIVE and any(
            any(component.lacking) or None in component.lacking
            for component in self.components.values()
        )
        block_ns = _BLOCK_NS + self.in_parts * _KEPT_BLOCK_NS + is_smoothed * _SMOOTHED_BLOCK_NS
        pixel_ns = _PIXEL_AS_CMYK_NS if len(self.components) == 4 else _PIXEL_NS
        return (
            self.cost_ns
            + self.scan_bytes * (_BYTE_IN_PARTS_NS if self.in_parts else _BYTE_NS)
            + self.width * self.height * pixel_ns
            + self.blocks * block_ns
        )


def read_jpeg(data: bytes, limits: ImageLimits, field: str) -> PictureFile:
    """Return what a JPEG's segments say.

    Raises InvalidRequest on `field`: damaged, over a limit, of a kind that isn't decoded, or more
    segments than any encoder writes.
    """
    frame: _Frame | None = None
    kept = [(0, 2)]
    scans: dict[tuple[int, int], int] = {}  # Where the data of each kept scan begins.
    orientation, restart_mcus = UPRIGHT, 0
    has_jfif = has_exif = False
    position, skipped = 2, 0
    for _ in range(MAX_SEGMENTS):
        marker = _MARKER.search(data, position, position + _MAX_SKIPPED_BYTES)
        if marker is None:
            if len(data) - position >= _MAX_SKIPPED_BYTES:
                raise _damaged(field, f"no segment begins at byte {position} or soon after")
            break  # The file ends here: libjpeg decides what that is worth.
        between = data[position : marker.start()]
        skipped += len(between)
        if skipped > _MAX_SKIPPED_BYTES:
            raise _damaged(field, f"over {_MAX_SKIPPED_BYTES} bytes lie between its segments")
        if frame is not None and frame.scans and between.strip(b"\0\xff"):
            raise _damaged(field, f"{len(between)} bytes after a scan belong to no segment")
        kind, start, position = data[marker.start() + 1], marker.start(), marker.end()
        if kind == _EOI:
            kept.append((start, position))
            break
        if kind in _ALONE:
            continue
        length = int.from_bytes(data[position : position + 2])
        segment = data[position + 2 : position + length]
        position += length
        if position > len(data):
            break
        if length < 2:
            raise _damaged(field, f"the length of a segment is {length}")
        if kind == _SOS:
            if frame is None:
                raise _damaged(field, "a scan comes before the frame header")
            ids, band = _read_scan_header(segment, frame, field)
            frame.add_scan(ids, band, restart_mcus)
            if frame.scans > limits.jpeg_scans:
                raise InvalidRequest(field, f"the JPEG has more than {limits.jpeg_scans} scans")
            begun, position = position, _end_of_scan(data, position)
            frame.scan_bytes += position - begun
            scans[start, position] = begun
        elif kind in _FRAMES:
            if frame is not None:
                raise _damaged(field, "it has two frame headers")
            frame = _read_frame(kind, segment, field)
            check_size(frame.width, frame.height, max(len(frame.components), 3), limits, field)
        elif kind == _APP1 and segment[:6] == b"Exif\0\0":
            if not has_exif:
                orientation = exif.orientation(segment[6:])
            has_exif = True
            continue
        elif kind == _APP0:
            if has_jfif or not segment.startswith(_JFIF_1):
                continue
            has_jfif = True
        elif kind == _DRI:
            restart_mcus = int.from_bytes(segment[:2])
        elif kind == _APP14:
            if not segment.startswith(b"Adobe"):
                continue
        elif kind in (_COM, _DNL) or _APP0 < kind <= _APP15:
            continue
        elif kind not in _TABLES:
            raise _damaged(field, f"the marker ff {kind:02x} is none that is decoded")
        kept.append((start, position))
    else:
        raise InvalidRequest(field, f"the JPEG has more than {MAX_SEGMENTS} segments")
    if frame is None:
        raise _damaged(field, "it has no frame header")
    check_cost(
        frame.whole_cost_ns,
        f"{frame.scans} scans of {frame.width}x{frame.height} pixels, {frame.scan_bytes} bytes: "
        "send the JPEG smaller, or not progressive",
        limits,
        field,
    )
    pixels, is_cmyk = frame.width * frame.height, len(frame.components) == 4
    # Pillow holds CMYK and RGB in 4 bytes each, and copies the RGB twice. OpenCV holds the pixels
    # twice, once the coefficients are gone.
    pixel_bytes = (14 if is_cmyk else 3) + (3 if orientation != UPRIGHT else 0)
    kept_bytes = 128 * frame.blocks if frame.in_parts else 0
    slices = _merged(kept)
    # Looking at its end takes two more runs through all scans, and two copies of the file.
    looks = 3 if frame.in_parts else 2
    can_check = frame.kind in _HUFFMAN and looks * frame.whole_cost_ns <= 1e6 * limits.decode_ms
    mcu = frame.mcu

    def check(pixels: Image) -> None:
        if can_check and ends_in_grey(pixels, mcu, _INKS_GREY if is_cmyk else _GREY):
            probed = _probed(data, kept, scans, has_restarts=restart_mcus > 0)
            if (share := decoded_share(_cut(data, slices), probed)) < 1:
                raise _damaged(
                    field,
                    f"its data ends after {int(100 * share)} % of the picture; send the whole file",
                )

    return PictureFile(
        frame.width,
        frame.height,
        working_bytes=pixels * pixel_bytes
        + (kept_bytes if is_cmyk else max(kept_bytes, 3 * pixels))
        + (2 * len(data) if can_check else 0),
        minimal=lambda: _cut(data, slices),
        orientation=orientation,
        is_cmyk=is_cmyk,
        check=check,
    )


def _read_frame(kind: int, segment: bytes, field: str) -> _Frame:
    """Return the frame that a frame header (SOFn) describes."""
    if len(segment) < 6 or len(segment) != 6 + 3 * segment[5]:
        raise _damaged(field, "the length of its frame header is wrong")
    if segment[0] != 8:
        raise InvalidRequest(field, f"the JPEG has {segment[0]} bits a sample; only 8 are decoded")
    height, width = int.from_bytes(segment[1:3]), int.from_bytes(segment[3:5])
    if not (width and height):
        raise _damaged(field, "its header gives no width and height")
    factors = {segment[at]: divmod(segment[at + 1], 16) for at in range(6, len(segment), 3)}
    if len(factors) not in (1, 3, 4) or len(factors) != segment[5]:
        raise InvalidRequest(field, f"the JPEG has {segment[5]} components; 1, 3 or 4 are decoded")
    if not all(1 <= factor <= 4 for pair in factors.values() for factor in pair):
        raise _damaged(field, "a sampling factor is not 1 to 4")
    columns, rows = (max(pair[axis] for pair in factors.values()) for axis in (0, 1))
    mcus = -(-width // (8 * columns)) * -(-height // (8 * rows))
    return _Frame(
        kind,
        width,
        height,
        {number: _Component(mcus * across * down) for number, (across, down) in factors.items()},
        mcus,
        (8 * rows, 8 * columns),
    )


def _read_scan_header(segment: bytes, frame: _Frame, field: str) -> tuple[bytes, bytes]:
    """Return a scan's component ids, and the four numbers of its band in three bytes."""
    count = segment[0] if segment else 0
    ids, band = segment[1 : 1 + 2 * count : 2], segment[1 + 2 * count :]
    if not 1 <= count <= 4 or len(band) != 3 or not set(ids) <= set(frame.components):
        raise _damaged(field, "a scan's header is wrong")
    return ids, band


def _end_of_scan(data: bytes, position: int) -> int:
    """Return where the marker begins that ends the entropy-coded data at a position.

    libjpeg reads through stuffed and fill bytes, restarts and reserved markers.
    """
    size = 1 << 15
    while position + 1 < len(data):
        window = np.frombuffer(data, np.uint8)[position : position + size + 1]
        these, following = window[:-1], window[1:]
        found = (these == 0xFF) & (following >= 0xC0)
        if found.any():
            found &= (following != 0xFF) & (following & 0xF8 != 0xD0)
            if found.any():
                return position + int(found.argmax())
        position += size
        size = min(2 * size, _LARGEST_WINDOW_BYTES)
    return len(data)


def _merged(slices: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return slices of a file with adjacent ones as one."""
    merged = [slices[0]]
    for start, end in slices[1:]:
        if start == merged[-1][1]:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def _cut(data: bytes, slices: list[tuple[int, int]]) -> memoryview:
    """Return the slices of a file one after the other; a single one isn't copied."""
    whole = memoryview(data)
    parts = [whole[start:end] for start, end in slices]
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _probed(
    data: bytes,
    slices: list[tuple[int, int]],
    scans: dict[tuple[int, int], int],
    *,
    has_restarts: bool,
) -> bytes:
    """Return the slices of a file with more data wherever that of a scan may end."""
    stops, probe = _STOPS, PROBE
    if has_restarts:
        stops, probe = _STOPS_WITH_RESTARTS, PROBE_WITH_RESTARTS
    parts = []
    for start, end in slices:
        begun = scans.get((start, end), end)
        scan = stops.sub(lambda found: probe + found[0], data[begun:end], count=1)
        parts += [data[start:begun], scan]
        if begun < end:
            parts.append(probe)
    return b"".join(parts)


def _damaged(field: str, why: str) -> InvalidRequest:
    return InvalidRequest(field, f"the JPEG is damaged: {why}")
