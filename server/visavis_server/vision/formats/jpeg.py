"""JPEG files: their cost, and the file without metadata.

The decoder is given the tables, frame and scans alone, byte for byte as they were received.
"""

import re

from visavis_server.arrays import Image
from visavis_server.settings import ImageLimits
from visavis_server.vision.formats.exif import UPRIGHT
from visavis_server.vision.formats.jpeg_end import (
    PROBE,
    PROBE_WITH_RESTARTS,
    decoded_share,
    ends_in_grey,
)
from visavis_server.vision.formats.jpeg_segments import Segments, damaged
from visavis_server.vision.formats.picture_file import PictureFile, check_cost

# Arithmetic coding may omit zeros at the end, and lossless files have no missing data to fill.
_HUFFMAN = frozenset({0xC0, 0xC1, 0xC2})
# The grey that zeros decode to, as RGB and as RGB of four inks.
_GREY, _INKS_GREY = 128, 64
# libjpeg reads a scan's data up to one of these. Fill bytes before it count as data: a pattern that
# included them would take quadratic time.
_STOPS = re.compile(rb"\xff[^\x00\xff]")
_STOPS_WITH_RESTARTS = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def read_jpeg(data: bytes, limits: ImageLimits, field: str) -> PictureFile:
    """Return the description of a JPEG, from its segments.

    Raises InvalidRequest on `field`: damaged, over a limit, of an unsupported kind, or more
    segments than any encoder writes.
    """
    segments = Segments(data, limits, field)
    frame = segments.frame
    check_cost(
        frame.whole_cost_ns,
        f"{frame.scans} scans of {frame.width}x{frame.height} pixels, {frame.scan_bytes} bytes: "
        "send a smaller JPEG, or one that is not progressive",
        limits,
        field,
    )
    pixels, is_cmyk = frame.width * frame.height, len(frame.components) == 4
    # Pillow holds CMYK and RGB in 4 bytes each, and copies the RGB twice. OpenCV holds the pixels
    # twice, once the coefficients are freed.
    pixel_bytes = (14 if is_cmyk else 3) + (3 if segments.orientation != UPRIGHT else 0)
    kept_bytes = 128 * frame.blocks if frame.in_parts else 0
    slices = _merged(segments.kept)
    # To check its end takes two more passes through all scans, and two copies of the file.
    passes = 3 if frame.in_parts else 2
    can_check = frame.kind in _HUFFMAN and passes * frame.whole_cost_ns <= 1e6 * limits.decode_ms
    kept, scans, mcu = segments.kept, segments.scans, frame.mcu
    has_restarts, grey = segments.restart_mcus > 0, _INKS_GREY if is_cmyk else _GREY

    def check(pixels: Image) -> None:
        if can_check and ends_in_grey(pixels, mcu, grey):
            probed = _probed(data, kept, scans, has_restarts=has_restarts)
            if (share := decoded_share(_cut(data, slices), probed)) < 1:
                raise damaged(
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
        orientation=segments.orientation,
        is_cmyk=is_cmyk,
        check=check,
    )


def _merged(slices: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return slices of a file with adjacent ones joined."""
    merged = [slices[0]]
    for start, end in slices[1:]:
        if start == merged[-1][1]:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def _cut(data: bytes, slices: list[tuple[int, int]]) -> memoryview:
    """Return the joined slices of a file; a single slice is not copied."""
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
    """Return the joined slices of a file, with more data wherever a scan's data may end."""
    stops, probe = _STOPS, PROBE
    if has_restarts:
        stops, probe = _STOPS_WITH_RESTARTS, PROBE_WITH_RESTARTS
    parts = []
    for start, end in slices:
        begun = scans.get((start, end), end)
        scan = stops.sub(lambda stop: probe + stop[0], data[begun:end], count=1)
        parts += [data[start:begun], scan]
        if begun < end:
            parts.append(probe)
    return b"".join(parts)
