"""The segments of a JPEG: those that pixels depend on, and the cost of their scans.

libjpeg reads any number of segments and scans, in any order. Here each is counted and checked.
Markers and segments: ITU-T T.81, annex B.
"""

import re
from typing import Final

import numpy as np

from visavis_server.errors import InvalidRequest
from visavis_server.settings import ImageLimits
from visavis_server.vision.formats import exif
from visavis_server.vision.formats.exif import UPRIGHT
from visavis_server.vision.formats.jpeg_cost import (
    LOSSLESS,
    PROGRESSIVE,
    SEQUENTIAL,
    Component,
    Frame,
)
from visavis_server.vision.formats.picture_file import check_size

# Encoders write about 20, and one more for each 64 KB of a colour profile.
MAX_SEGMENTS: Final = 1000
# Some cameras align segments with fill bytes.
_MAX_SKIPPED_BYTES = 1 << 16
_LARGEST_WINDOW_BYTES = 1 << 18

_EOI, _SOS, _DNL = 0xD9, 0xDA, 0xDC
_APP0, _APP1, _APP14, _APP15, _COM = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})  # DHT, DAC, DQT, DRI
_DRI = 0xDD
_FRAMES = SEQUENTIAL | PROGRESSIVE | LOSSLESS
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM and restarts have no length
_MARKER = re.compile(rb"\xff([^\x00\xff])")
# Versions other than 1 make libjpeg write a warning to standard error.
_JFIF_1 = b"JFIF\0\1"


class Segments:
    """A JPEG's segments, read without decoding any data.

    frame: the frame header, with the cost of the scans. kept: the slices of the file that decoding
    needs. scans: where the data of each kept scan begins, by its slice. restart_mcus: the last
    restart interval, in MCUs. Raises InvalidRequest on `field`: damaged, over a limit, of an
    unsupported kind, or more segments than any encoder writes.
    """

    def __init__(self, data: bytes, limits: ImageLimits, field: str) -> None:
        self._data, self._limits, self._field = data, limits, field
        self._frame: Frame | None = None
        self._skipped_bytes = 0
        self._has_jfif = self._has_exif = False
        self.kept = [(0, 2)]
        self.scans: dict[tuple[int, int], int] = {}
        self.orientation, self.restart_mcus = UPRIGHT, 0
        self._read()
        if self._frame is None:
            raise damaged(field, "it has no frame header")
        self.frame: Frame = self._frame

    def _read(self) -> None:
        data, position = self._data, 2
        for _ in range(MAX_SEGMENTS):
            marker = self._next_marker(position)
            if marker is None:
                return  # The file ends here: libjpeg decides whether it is complete.
            kind, start, position = data[marker.start() + 1], marker.start(), marker.end()
            if kind == _EOI:
                self.kept.append((start, position))
                return
            if kind in _ALONE:
                continue
            length = int.from_bytes(data[position : position + 2])
            segment = data[position + 2 : position + length]
            position += length
            if position > len(data):
                return
            if length < 2:
                raise damaged(self._field, f"the length of a segment is {length}")
            if kind == _SOS:
                position = self._add_scan(segment, start, position)
            elif not self._is_needed(kind, segment):
                continue
            self.kept.append((start, position))
        raise InvalidRequest(self._field, f"the JPEG has more than {MAX_SEGMENTS} segments")

    def _next_marker(self, position: int) -> re.Match[bytes] | None:
        """Return the next marker; None: the file ends before one."""
        data, field = self._data, self._field
        marker = _MARKER.search(data, position, position + _MAX_SKIPPED_BYTES)
        if marker is None:
            if len(data) - position >= _MAX_SKIPPED_BYTES:
                raise damaged(field, f"no segment begins at byte {position} or soon after")
            return None
        between = data[position : marker.start()]
        self._skipped_bytes += len(between)
        if self._skipped_bytes > _MAX_SKIPPED_BYTES:
            raise damaged(field, f"more than {_MAX_SKIPPED_BYTES} bytes lie between its segments")
        if self._frame is not None and self._frame.scans and between.strip(b"\0\xff"):
            raise damaged(field, f"{len(between)} bytes after a scan belong to no segment")
        return marker

    def _add_scan(self, segment: bytes, start: int, position: int) -> int:
        """Add a scan, whose data begins at a position; return where it ends."""
        frame, field = self._frame, self._field
        if frame is None:
            raise damaged(field, "a scan precedes the frame header")
        ids, band = _read_scan_header(segment, frame, field)
        frame.add_scan(ids, band, self.restart_mcus)
        if frame.scans > self._limits.jpeg_scans:
            raise InvalidRequest(field, f"the JPEG has more than {self._limits.jpeg_scans} scans")
        end = _end_of_scan(self._data, position)
        frame.scan_bytes += end - position
        self.scans[start, end] = position
        return end

    def _is_needed(self, kind: int, segment: bytes) -> bool:
        """Read a segment other than a scan; return True if decoding needs it."""
        if kind in _FRAMES:
            if self._frame is not None:
                raise damaged(self._field, "it has two frame headers")
            frame = self._frame = _read_frame(kind, segment, self._field)
            samples = max(len(frame.components), 3)
            check_size(frame.width, frame.height, samples, self._limits, self._field)
        elif kind == _APP1 and segment[:6] == b"Exif\0\0":
            if not self._has_exif:
                self.orientation = exif.orientation(segment[6:])
            self._has_exif = True
            return False
        elif kind == _APP0:
            if self._has_jfif or not segment.startswith(_JFIF_1):
                return False
            self._has_jfif = True
        elif kind == _DRI:
            self.restart_mcus = int.from_bytes(segment[:2])
        elif kind == _APP14:
            return segment.startswith(b"Adobe")
        elif kind in (_COM, _DNL) or _APP0 < kind <= _APP15:
            return False
        elif kind not in _TABLES:
            raise damaged(self._field, f"the marker ff {kind:02x} is not supported")
        return True


def _read_frame(kind: int, segment: bytes, field: str) -> Frame:
    """Return the frame of a frame header (SOFn)."""
    if len(segment) < 6 or len(segment) != 6 + 3 * segment[5]:
        raise damaged(field, "its frame header has a wrong length")
    if segment[0] != 8:
        bits = segment[0]
        raise InvalidRequest(field, f"the JPEG has {bits} bits per sample; only 8 are supported")
    height, width = int.from_bytes(segment[1:3]), int.from_bytes(segment[3:5])
    if not (width and height):
        raise damaged(field, "its width or height is 0")
    factors = {segment[at]: divmod(segment[at + 1], 16) for at in range(6, len(segment), 3)}
    if len(factors) not in (1, 3, 4) or len(factors) != segment[5]:
        count = segment[5]
        raise InvalidRequest(field, f"the JPEG has {count} components; 1, 3 or 4 are supported")
    if not all(1 <= factor <= 4 for pair in factors.values() for factor in pair):
        raise damaged(field, "a sampling factor is outside 1 to 4")
    columns, rows = (max(pair[axis] for pair in factors.values()) for axis in (0, 1))
    mcus = -(-width // (8 * columns)) * -(-height // (8 * rows))
    return Frame(
        kind,
        width,
        height,
        {number: Component(mcus * across * down) for number, (across, down) in factors.items()},
        mcus,
        (8 * rows, 8 * columns),
    )


def _read_scan_header(segment: bytes, frame: Frame, field: str) -> tuple[bytes, bytes]:
    """Return a scan's component ids, and its band: Ss, Se, Ah and Al, in three bytes."""
    count = segment[0] if segment else 0
    ids, band = segment[1 : 1 + 2 * count : 2], segment[1 + 2 * count :]
    if not 1 <= count <= 4 or len(band) != 3 or not set(ids) <= set(frame.components):
        raise damaged(field, "a scan header is invalid")
    return ids, band


def _end_of_scan(data: bytes, position: int) -> int:
    """Return the position of the marker that ends the entropy-coded data at a position.

    Like libjpeg, skip stuffed and fill bytes, restarts and reserved markers.
    """
    size = 1 << 15
    while position + 1 < len(data):
        window = np.frombuffer(data, np.uint8)[position : position + size + 1]
        these, following = window[:-1], window[1:]
        ends = (these == 0xFF) & (following >= 0xC0)
        if ends.any():
            ends &= (following != 0xFF) & (following & 0xF8 != 0xD0)
            if ends.any():
                return position + int(ends.argmax())
        position += size
        size = min(2 * size, _LARGEST_WINDOW_BYTES)
    return len(data)


def damaged(field: str, why: str) -> InvalidRequest:
    """Return the error for a damaged JPEG."""
    return InvalidRequest(field, f"the JPEG is damaged: {why}")
