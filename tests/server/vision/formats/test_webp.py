"""WebP files: the pixels of the original, bit for bit, at a cost that its chunks bound."""

import re
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.faults.costly import many_groups
from visavis_server.errors import InvalidRequest
from visavis_server.settings import ImageLimits
from visavis_server.vision.formats.webp_lossless import MAX_GROUPS, count_groups
from visavis_server.vision.image import decode, read_file

from ...pictures import encoded, noise, refusal, seen_by_opencv, smooth

LIMITS = ImageLimits()
ANIMATED = {"save_all": True}


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the chunks of a file."""
    found, at = [], 12
    while at < len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        found.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return found


def riff(*parts: tuple[bytes, bytes]) -> bytes:
    """Return a file of chunks."""
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
        for kind, content in parts
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def extended(data: bytes, *parts: tuple[bytes, bytes], flags: int = 0) -> bytes:
    """Return a simple file of 50x40 pixels as an extended one, with more chunks."""
    header = bytes((flags, 0, 0, 0)) + (49).to_bytes(3, "little") + (39).to_bytes(3, "little")
    return riff((b"VP8X", header), *parts, *chunks(data), *parts)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(
    "how",
    [
        {"quality": 20},
        {"quality": 95},
        {"lossless": True, "method": 0},
        {"lossless": True},
        {"lossless": True, "method": 5, "quality": 60, "exact": True},
        {"quality": 60, "alpha_quality": 30},
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (17, 9), (120, 161)])
@pytest.mark.parametrize("content", ["noise", "smooth", "few colours"])
def test_every_kind_has_the_pixels_of_the_original(
    channels: int, how: dict[str, Any], size: tuple[int, int], content: str
) -> None:
    pixels = noise(*size, 4)
    if content == "smooth":
        pixels[..., :3] = smooth(*size)
    elif content == "few colours":
        pixels = pixels // 90 * 90
    data = encoded(pixels[..., :channels], "WEBP", **how)
    np.testing.assert_array_equal(decode(data, LIMITS), seen_by_opencv(data))


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("channels", [3, 4])
def test_the_first_frame_of_an_animation_is_decoded_as_by_opencv(
    lossless: bool, channels: int
) -> None:
    frames = [Image.fromarray(noise(40, 50, channels, seed=seed)) for seed in range(3)]
    data = encoded(frames[0], "WEBP", lossless=lossless, append_images=frames[1:], **ANIMATED)
    np.testing.assert_array_equal(decode(data, LIMITS), seen_by_opencv(data))


def test_a_first_frame_smaller_than_the_canvas_is_placed_on_it() -> None:
    frames = [Image.fromarray(noise(40, 50, 4, seed=seed)) for seed in range(2)]
    data = encoded(frames[0], "WEBP", append_images=frames[1:], **ANIMATED)
    (_, header), animation, (_, first), (_, last) = chunks(data)
    header = header[:4] + (79).to_bytes(3, "little") + (59).to_bytes(3, "little")
    place = (5).to_bytes(3, "little") + (4).to_bytes(3, "little")
    moved = riff((b"VP8X", header), animation, (b"ANMF", place + first[6:]), (b"ANMF", last))
    image = decode(moved, LIMITS)
    assert image.shape == (60, 80, 3)
    np.testing.assert_array_equal(image, seen_by_opencv(moved))
    beyond = riff((b"VP8X", header), animation, (b"ANMF", b"\x28\0\0" + first[3:]))
    assert "exceeds the canvas" in refusal(beyond)


@pytest.mark.parametrize("lossless", [False, True])
def test_a_simple_file_is_kept_and_others_become_simple(lossless: bool) -> None:
    simple = encoded(smooth(40, 50), "WEBP", lossless=lossless)
    metadata = [(b"ICCP", b"\xff" * 999), (b"XMP ", b"<x/>" * 99), (b"abcd", b"odd")]
    for data in (simple, extended(simple, *metadata, flags=0x24), simple + b"more"):
        assert bytes(read_file(data, LIMITS).minimal()) == simple


def test_a_file_that_becomes_tiny_without_its_metadata_is_read() -> None:
    tiny = encoded(smooth(1, 1), "WEBP", lossless=True, method=6, quality=100, exact=True)
    assert len(tiny) < 32
    data = riff((b"VP8X", bytes((4, *bytes(9)))), *chunks(tiny), (b"XMP ", b"<x/>" * 99))
    np.testing.assert_array_equal(decode(data, LIMITS), seen_by_opencv(data))


@pytest.mark.parametrize("kind", [b"EXIF", b"XMP ", b"ICCP", b"abcd"])
@pytest.mark.usefixtures("quick")
def test_a_flood_of_chunks_never_reaches_the_decoder(kind: bytes) -> None:
    simple = encoded(smooth(40, 50), "WEBP")
    large = extended(simple, *[(kind, b"II*\0\x08\0\0\0" + b"\xff" * 60_000)] * 120)
    np.testing.assert_array_equal(decode(large, LIMITS), decode(simple, LIMITS))
    flood = (kind + bytes(4)) * 1_900_000
    whole = extended(simple)
    data = whole[:30] + flood + whole[30:]
    data = data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]
    assert "more than 10000 chunks" in refusal(data)


@pytest.mark.usefixtures("quick")
def test_a_flood_of_frames_costs_one() -> None:
    frames = [Image.fromarray(noise(40, 50, 3, seed=seed)) for seed in range(2)]
    data = encoded(frames[0], "WEBP", append_images=frames[1:], **ANIMATED)
    header, animation, first, last = chunks(data)
    many = riff(header, animation, first, *[last] * 3000)
    np.testing.assert_array_equal(decode(many, LIMITS), decode(data, LIMITS))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data[:16] + b"\xff\xff\xff\x7f" + data[20:], "a chunk claims"),
        (lambda data: riff((b"VP8 ", b"")), "no valid header"),
        (lambda data: riff((b"EXIF", b"")), "no image data"),
        (lambda data: riff((b"VP8X", bytes(10)), *chunks(data)), "different sizes"),
        (lambda data: data[:23] + b"junk" + data[27:], "no valid header"),
        (lambda data: riff((b"VP8L", b"\x2f" + b"\xff" * 30)), "codes are invalid|pixels"),
    ],
)
def test_damaged_files_are_refused(change: Any, why: str) -> None:
    assert re.search(why, refusal(change(encoded(smooth(40, 50), "WEBP"))))


@pytest.mark.parametrize("groups", [1, 2, 300, 4096])
@pytest.mark.parametrize("full", [False, True])
def test_groups_of_codes_are_counted(groups: int, full: bool) -> None:
    data = many_groups(400, 300, groups, full, seed=1)
    assert count_groups(chunks(data)[0][1], "image.encoded")[0] == groups
    np.testing.assert_array_equal(decode(data, LIMITS), seen_by_opencv(data))


@pytest.mark.usefixtures("quick")
def test_more_groups_than_any_encoder_writes_are_refused() -> None:
    data = many_groups(1024, 1024, 65_536, False, seed=1)
    assert f"65536 groups of prefix codes; the limit is {MAX_GROUPS}" in refusal(data)


def test_groups_count_as_memory() -> None:
    few, many = (
        read_file(many_groups(400, 300, groups, False, seed=1), LIMITS).working_bytes
        for groups in (1, 1001)
    )
    assert many - few == 1000 * 12 * 1024


@given(st.binary(max_size=300))
def test_any_bytes_have_groups_or_are_refused(content: bytes) -> None:
    with suppress(InvalidRequest):
        groups, symbols = count_groups(b"\x2f" + content, "image.encoded")
        assert 1 <= groups <= MAX_GROUPS and symbols >= 0


def test_an_image_that_costs_too_much_is_refused() -> None:
    data = encoded(noise(64, 64, 3), "WEBP")
    with pytest.raises(InvalidRequest, match=r"may take .* ms to decode; the limit is 0\.01"):
        read_file(data, ImageLimits(decode_ms=0.01))
