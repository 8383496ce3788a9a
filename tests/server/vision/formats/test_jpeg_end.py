"""Incomplete JPEGs are refused, and no complete one is."""

import random
import struct
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from visavis_server.errors import InvalidRequest
from visavis_server.settings import ImageLimits
from visavis_server.vision.formats.jpeg_end import decoded_share, ends_in_grey
from visavis_server.vision.image import decode

from ...pictures import encoded, noise, opened, refusal, segment

LIMITS = ImageLimits()
HOWS: list[dict[str, Any]] = [
    {},
    {"quality": 95, "subsampling": 0},
    {"quality": 20, "subsampling": 1, "optimize": True},
    {"progressive": True},
    {"restart_marker_rows": 1},
    {"restart_marker_blocks": 1, "progressive": True},
    {"keep_rgb": True},
]


def photograph(mode: str = "RGB", **how: Any) -> bytes:
    """Return a JPEG with detail in every block."""
    picture = Image.fromarray(60 + noise(30, 40, 3) // 2).resize(
        (331, 250), Image.Resampling.BICUBIC
    )
    return encoded(picture.convert(mode), "JPEG", **how)


def grey_below(mode: str, width: int = 203, **how: Any) -> bytes:
    """Return a complete JPEG whose lower half is the grey that libjpeg fills gaps with."""
    picture = Image.new("RGB", (width, 150), (128, 128, 128))
    picture.paste(Image.fromarray(noise(70, width, 3)), (0, 0))
    return encoded(picture.convert(mode), "JPEG", **how)


def first_scan(data: bytes) -> tuple[int, int]:
    """Return the start and end of the data of a file's first scan."""
    start = data.index(b"\xff\xda")
    start += 2 + int.from_bytes(data[start + 2 : start + 4])
    end = start
    while data[end] != 0xFF or data[end + 1] in (0, *range(0xD0, 0xD8)):
        end += 1
    return start, end


@pytest.mark.parametrize("how", [{}, {"restart_marker_rows": 1}])
def test_fill_bytes_cost_no_more_than_other_data(how: dict[str, Any]) -> None:
    data = encoded(Image.new("RGB", (64, 64), (128, 128, 128)), "JPEG", **how)
    end = data.rindex(b"\xff\xd9")
    began = time.thread_time()
    decode(data[:end] + b"\xff" * 100_000 + b"\0" + data[end:], LIMITS)
    # A backtracking pattern took 7 s for 40,000.
    assert time.thread_time() - began < 5


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("how", HOWS)
def test_data_that_ends_early_is_refused_with_its_share(mode: str, how: dict[str, Any]) -> None:
    if mode != "RGB":
        how = {key: value for key, value in how.items() if key not in ("subsampling", "keep_rgb")}
    data = photograph(mode, **how)
    start, end = first_scan(data)
    why = refusal(data[: (start + end) // 2] + data[end:])
    assert "its data ends after" in why
    share = int(why.partition("after ")[2].partition(" %")[0])
    assert 30 < share < 70


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("how", HOWS)
def test_a_whole_picture_may_end_in_the_same_grey(
    mode: str, how: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    if mode != "RGB":
        how = {key: value for key, value in how.items() if key not in ("subsampling", "keep_rgb")}
    for width in (1, 7, 16, 203):
        data = grey_below(mode, width, **how)
        np.testing.assert_array_equal(decode(data, LIMITS), opened(data))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", [0xD3, 0x01, 0x41, 0xE5, 0xD9])
def test_a_marker_in_the_middle_of_the_data_is_refused(kind: int) -> None:
    data = photograph()
    start, end = first_scan(data)
    middle = (start + end) // 2
    assert "damaged" in refusal(data[:middle] + bytes((0xFF, kind)) + data[middle:])


def test_bytes_after_a_scan_that_belong_to_no_segment_are_refused() -> None:
    data = photograph()
    why = refusal(data[:-2] + segment(0xE5, b"metadata") + b"the data goes on" + data[-2:])
    assert "16 bytes after a scan belong to no segment" in why


def test_fill_bytes_after_a_scan_are_not_data() -> None:
    data = photograph()
    filled = data[:-2] + segment(0xE5, b"metadata") + bytes(9) + b"\xff" * 9 + data[-2:]
    np.testing.assert_array_equal(decode(filled, LIMITS), decode(data, LIMITS))


def test_a_picture_too_expensive_to_check_is_answered() -> None:
    whole, (start, end) = photograph(), first_scan(photograph())
    data = whole[: (start + end) // 2] + whole[end:]
    # It may take 0.48 ms, and twice as much to check.
    assert decode(data, ImageLimits(decode_ms=0.7)).shape == (250, 331, 3)
    assert "its data ends" in refusal(data, ImageLimits(decode_ms=1.1))


def test_no_file_with_dropped_bytes_decodes_mostly_grey() -> None:
    chance = random.Random(0)
    for index in range(60):
        data = photograph(**HOWS[index % len(HOWS)])
        start, end = first_scan(data)
        middle = chance.randrange(start, end - 400)
        damaged = data[:middle] + data[chance.randrange(middle + 1, end) :]
        try:
            pixels = decode(damaged, LIMITS)
        except InvalidRequest:
            continue
        grey = (np.abs(pixels.astype(int) - 128) <= 1).all(axis=2)
        assert grey.mean() < 0.1


def test_a_frame_larger_than_the_data_is_refused() -> None:
    data = bytearray(photograph())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 7] = struct.pack(">H", 2000)
    assert "its data ends after 12 % of the picture" in refusal(bytes(data))


def test_the_end_is_the_last_whole_mcu_within_the_tolerance() -> None:
    def ends(height: int, width: int, color: Any, *edges: tuple[slice, slice]) -> bool:
        pixels = np.full((height, width, 3), 7, np.uint8)
        for edge in edges:
            pixels[edge] = color
        return ends_in_grey(pixels, (16, 16), 128)

    last = slice(16, 32), slice(32, 48)
    assert ends(40, 60, 128, last)
    assert not ends(40, 60, 128, (slice(0, 16), slice(0, 16)))
    # Smaller than one: all of it.
    assert ends(9, 5, 128, (slice(None), slice(None)))
    assert not ends(9, 5, 128, (slice(None), slice(4)))
    assert ends(40, 60, 132, last) and ends(40, 60, 124, last)
    for color in (133, 123, (128, 128, 133), (133, 128, 128)):
        assert not ends(40, 60, color, last)


def test_all_of_a_whole_picture_is_decoded() -> None:
    data = photograph()
    assert decoded_share(data, data) == 1.0
