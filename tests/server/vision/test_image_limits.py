"""Pictures that are refused before they are decoded, and damaged files."""

import re
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from visavis_server.errors import InvalidRequest
from visavis_server.settings import ImageLimits
from visavis_server.vision.formats.picture_file import check_size
from visavis_server.vision.image import decode

from ..pictures import encoded, noise, opened, refusal, smooth

LIMITS = ImageLimits()
SCAN = re.compile(rb"\xff\xda")


def gif() -> bytes:
    return encoded(Image.new("P", (4, 4)), "GIF")


def progressive(size: int = 64) -> bytes:
    return encoded(smooth(size, size), "JPEG", progressive=True)


def with_scans(count: int, between: bytes = b"") -> bytes:
    """Return a progressive JPEG whose last scan is repeated until there are `count`."""
    data = progressive()
    last = data.rindex(b"\xff\xda")
    repeats = count - len(SCAN.findall(data))
    return data[:-2] + (between + data[last:-2]) * repeats + data[-2:]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "only JPEG, PNG and WebP"),
        (b"\x00" * 100, "only JPEG, PNG and WebP"),
        (gif(), "only JPEG, PNG and WebP"),
        (encoded(noise(4, 4, 3), "BMP"), "only JPEG, PNG and WebP"),
        (encoded(noise(4, 4, 3), "TIFF"), "only JPEG, PNG and WebP"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "only JPEG, PNG and WebP"),
        (b"\xff\xd8\xff", "damaged"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"RIFF\x00\x00\x00\x00WEBP", "damaged"),
    ],
)
def test_what_is_no_picture_is_refused(data: bytes, why: str, undecoded: None) -> None:
    assert why in refusal(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_file_cut_short_is_refused(form: str, share: float) -> None:
    data = encoded(noise(64, 64, 3), form)
    assert "damaged" in refusal(data[: int(len(data) * share)])


def test_too_many_encoded_bytes_are_refused_with_the_limit(undecoded: None) -> None:
    assert refusal(b"\xff\xd8\xff" + bytes(98), ImageLimits(encoded_bytes=100)) == (
        "the image has 101 bytes; the limit is 100"
    )


def test_a_png_bomb_is_refused_by_its_header(undecoded: None) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + header + struct.pack(">I", zlib.crc32(header))
    assert "12000x12000" in refusal(bomb + bytes(100))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_too_many_pixels_are_refused(form: str, undecoded: None) -> None:
    data = encoded(smooth(100, 200), form)
    assert "200x100 pixels" in refusal(data, ImageLimits(decoded_bytes=59_999))


@pytest.mark.parametrize(("depth", "color_type", "bytes_per_pixel"), [(8, 2, 3), (16, 6, 8)])
def test_deep_pixels_count_with_all_their_bytes(
    depth: int, color_type: int, bytes_per_pixel: int, undecoded: None
) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 10, 10, depth, color_type, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + header + struct.pack(">I", zlib.crc32(header))
    why = refusal(data, ImageLimits(decoded_bytes=100 * bytes_per_pixel - 1))
    assert f"{100 * bytes_per_pixel} bytes decoded" in why


def test_a_side_that_no_drawing_could_hold_is_refused(undecoded: None) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 65_536, 1, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + header + struct.pack(">I", zlib.crc32(header))
    assert "65535" in refusal(data)


def test_a_hundred_scans_are_read() -> None:
    data = with_scans(100)
    assert len(SCAN.findall(data)) == 100
    np.testing.assert_array_equal(decode(data, LIMITS), opened(data))


@pytest.mark.parametrize(
    "between",
    [b"", b"\xff\xff\xff", b"\xff\x01", b"\xff\xd0", b"\xff\xfe\x00\x04ab", b"\xff\x00"],
    ids=["bare", "fill bytes", "TEM", "restart", "comment", "stuffed byte"],
)
def test_more_scans_are_refused_whatever_lies_between_them(between: bytes, undecoded: None) -> None:
    assert "more than 100 scans" in refusal(with_scans(101, between))


@pytest.mark.parametrize(
    "marker", [b"\xff\x00", b"\xff\x01", b"\xff\x02", b"\xff\xbf", b"\xff\xd0"]
)
def test_scans_behind_a_marker_that_the_decoder_skips_alone_are_counted(
    marker: bytes, undecoded: None
) -> None:
    data = encoded(noise(64, 64), "JPEG", progressive=True, restart_marker_blocks=1)
    second = SCAN.search(data, data.index(b"\xff\xda") + 2)
    assert second is not None
    # The decoder reads no length here, so what looks like one segment is 101 scans.
    scans = data[second.start() : second.start() + 10] * 101
    hiding = marker + struct.pack(">H", len(scans) + 2) + scans
    assert "more than 100 scans" in refusal(data[:-2] + hiding + data[-2:])


@pytest.mark.parametrize("skipped", [b"", b"\xff\x00\x00\x06"])
def test_the_size_is_read_off_the_frame_header_that_the_decoder_reads(
    skipped: bytes, undecoded: None
) -> None:
    data = encoded(np.zeros((9000, 9000), np.uint8), "JPEG")
    start = data.index(b"\xff\xc0")
    frame = data[start : start + 2 + int.from_bytes(data[start + 2 : start + 4])]
    # A header of 8 x 8 pixels in a segment of an application: who skips 6 bytes falls into it.
    small = frame[:5] + struct.pack(">HH", 8, 8) + frame[9:] + b"\xff\xda"
    segment = b"\xff\xef" + struct.pack(">H", len(small) + 2) + small
    assert "9000x9000 pixels" in refusal(data[:2] + skipped + segment + data[2:])


def test_scan_markers_inside_a_segment_are_no_scans() -> None:
    data = encoded(smooth(32, 32), "JPEG")
    payload = b"\xff\xda\x00\x02" * 500
    segment = b"\xff\xed" + struct.pack(">H", len(payload) + 2) + payload
    np.testing.assert_array_equal(decode(data[:2] + segment + data[2:], LIMITS), opened(data))


def test_what_follows_the_picture_in_a_motion_photo_is_no_scan() -> None:
    data = encoded(smooth(32, 32), "JPEG")
    film = b"ftypmp42" + b"\xff\xda\x00\x02" * 500
    np.testing.assert_array_equal(decode(data + film, LIMITS), opened(data))


FILES = {
    "jpeg": encoded(smooth(24, 31), "JPEG"),
    "progressive": progressive(24),
    "png": encoded(noise(12, 13, 4)),
    "webp": encoded(noise(12, 13, 3), "WEBP"),
    "lossless": encoded(smooth(12, 13), "WEBP", lossless=True),
}


@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    st.floats(0.5, 1),
)
@example("png", [], 1.0)
def test_a_mutated_file_is_decoded_or_refused_and_nothing_else(
    name: str, changes: list[tuple[float, int]], share: float
) -> None:
    data = bytearray(FILES[name])
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    limits = ImageLimits(decoded_bytes=1_000_000)
    with suppress(InvalidRequest):
        image = decode(bytes(data[: int(len(data) * share)]), limits)
        assert image.dtype == np.uint8
        assert image.ndim == 3 and image.shape[2] == 3
        assert image.size <= limits.decoded_bytes


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]))
def test_random_bytes_are_refused_and_nothing_else(tail: bytes, head: bytes) -> None:
    assert refusal(head + tail)


@pytest.mark.usefixtures("undecoded")
def test_a_png_chunk_longer_than_the_file_is_refused() -> None:
    data = encoded(smooth(8, 8), "PNG")
    at = data.index(b"IDAT") - 4
    for length in (len(data), 0x7FFFFFFF, 0xFFFFFFFF):
        bomb = data[:at] + struct.pack(">I", length) + data[at + 4 :]
        assert f"a chunk claims {length} bytes" in refusal(bomb)
        bomb = bomb[: at + 8]  # It ends where the chunk begins.
        assert f"a chunk claims {length} bytes" in refusal(bomb)


@pytest.mark.usefixtures("undecoded")
def test_a_png_of_nothing_but_chunks_is_refused() -> None:
    data = encoded(smooth(8, 8), "PNG")
    chunk = struct.pack(">I", 0) + b"tEXt" + struct.pack(">I", zlib.crc32(b"tEXt"))
    assert "more than 20000 chunks" in refusal(data[:33] + chunk * 30_000 + data[33:])


def test_the_longest_side_allowed_is_accepted() -> None:
    check_size(65_535, 1, 3, ImageLimits(), "image")
    check_size(1, 65_535, 3, ImageLimits(), "image")
    with pytest.raises(InvalidRequest, match="65536x1 pixels; the limit for a side is 65535"):
        check_size(65_536, 1, 3, ImageLimits(), "image")
