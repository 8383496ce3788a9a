"""JPEG files: the pixels of the original, bit for bit, at a cost that its segments bound."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from visavis_server.settings import ImageLimits
from visavis_server.vision.image import decode, read_file

from ...pictures import (
    block,
    cmyk,
    encoded,
    entry,
    noise,
    opened,
    refusal,
    seen_by_opencv,
    segment,
    smooth,
    with_exif,
)

LIMITS = ImageLimits()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "how",
    [
        {"quality": 30},
        {"quality": 95, "subsampling": 0},
        {"quality": 75, "subsampling": 1},
        {"progressive": True},
        {"progressive": True, "quality": 95, "subsampling": 0},
        {"restart_marker_blocks": 1},
        {"restart_marker_rows": 1, "progressive": True},
        {"optimize": True},
        {"comment": b"a comment", "icc_profile": bytes(70_000), "dpi": (300, 300)},
        {"keep_rgb": True},
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (17, 9), (120, 201)])
def test_every_kind_has_the_pixels_of_the_original(
    mode: str, how: dict[str, Any], size: tuple[int, int]
) -> None:
    if mode == "L":
        how = {key: value for key, value in how.items() if key not in ("subsampling", "keep_rgb")}
    data = encoded(Image.fromarray(noise(*size, 3)).convert(mode), "JPEG", **how)
    np.testing.assert_array_equal(decode(data, LIMITS), seen_by_opencv(data))
    np.testing.assert_array_equal(decode(data, LIMITS), opened(data))


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"quality": 30}])
def test_cmyk_has_the_pixels_of_pillow(how: dict[str, Any]) -> None:
    np.testing.assert_array_equal(decode(cmyk(**how), LIMITS), opened(cmyk(**how)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_cmyk_is_turned_upright_too(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = cmyk(exif=exif)
    with Image.open(io.BytesIO(data)) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    np.testing.assert_array_equal(decode(data, LIMITS), expected)


def test_a_plain_file_is_not_copied() -> None:
    data = encoded(smooth(40, 50), "JPEG")
    assert read_file(data, LIMITS).minimal().obj is data


def test_neither_metadata_nor_trailing_bytes_reach_the_decoder() -> None:
    plain = encoded(smooth(40, 50), "JPEG")
    metadata = b"".join(segment(kind, b"metadata" * 9) for kind in (*range(0xE0, 0xF0), 0xFE))
    data = plain[:2] + metadata + plain[2:] + b"a film" * 1000
    assert bytes(read_file(data, LIMITS).minimal()) == plain


@pytest.mark.parametrize("form", ["RGB", "CMYK"])
@pytest.mark.parametrize("kind", [0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xDB, 0xDD, 0xC4, 0xDC])
@pytest.mark.usefixtures("quick", "undecoded")
def test_a_flood_of_segments_is_refused(form: str, kind: int) -> None:
    data = cmyk() if form == "CMYK" else encoded(smooth(40, 50), "JPEG")
    assert "more than 1000 segments" in refusal(data[:2] + segment(kind) * 4_000_000 + data[2:])
    assert "more than 1000 segments" in refusal(data[:-2] + segment(kind) * 4_000_000 + data[-2:])


@pytest.mark.parametrize("form", ["RGB", "CMYK"])
@pytest.mark.usefixtures("quick")
def test_large_metadata_costs_nothing(form: str) -> None:
    plain = cmyk() if form == "CMYK" else encoded(smooth(40, 50), "JPEG")
    exif = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + b"\xff" * 65_000)
    profile = segment(0xE2, b"ICC_PROFILE\0" + b"\xff" * 65_000)
    data = plain[:2] + (exif + profile) * 120 + plain[2:]
    np.testing.assert_array_equal(decode(data, LIMITS), decode(plain, LIMITS))


@pytest.mark.parametrize("filling", [b"\xff", b"\0", b"\xff\0", b"\xff\xd0", b"junk"])
@pytest.mark.usefixtures("quick", "undecoded")
def test_a_flood_between_segments_is_refused(filling: bytes) -> None:
    data = encoded(smooth(40, 50), "JPEG")
    flood = filling * (15_000_000 // len(filling))
    assert refusal(data[:20] + flood + data[20:])


@pytest.mark.parametrize("filling", [b"\xff" * 40, b"\0" * 40, b"\xff\0" * 20, b"\xff\x01"])
def test_a_little_between_segments_is_skipped_as_libjpeg_does(
    filling: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    data = encoded(smooth(40, 50), "JPEG")
    np.testing.assert_array_equal(
        decode(data[:20] + filling + data[20:], LIMITS), decode(data, LIMITS)
    )
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("undecoded")
def test_expensive_scans_are_refused_even_if_few() -> None:
    data = bytearray(encoded(smooth(64, 64), "JPEG", progressive=True))
    last = bytes(data[data.rindex(b"\xff\xda") : -2])
    frame = data.index(b"\xff\xc2")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 4000, 4000)
    why = refusal(bytes(data[:-2]) + last * 60 + b"\xff\xd9")
    assert "may take" in why and "70 scans of 4000x4000 pixels" in why


def test_a_large_photograph_passes_progressive_or_not() -> None:
    photograph = Image.fromarray(smooth(60, 80)).resize((4000, 3000))
    for how in ({"quality": 85}, {"quality": 85, "progressive": True}):
        data = encoded(photograph, "JPEG", **how)
        assert read_file(data, LIMITS).width == 4000


def test_a_phones_48_megapixels_pass_in_the_largest_file() -> None:
    data = bytearray(encoded(smooth(64, 64), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 6048, 8064)
    scan = data.rindex(b"\xff\xd9")
    data[scan:scan] = bytes(LIMITS.encoded_bytes - len(data))
    assert read_file(bytes(data), LIMITS).width == 8064


@pytest.mark.usefixtures("undecoded")
def test_restarts_count() -> None:
    data = encoded(smooth(64, 64), "JPEG", restart_marker_blocks=1)
    few = read_file(data, ImageLimits(decode_ms=1.0))
    assert few.width == 64
    frame = data.index(b"\xff\xc0")
    large = data[: frame + 5] + struct.pack(">HH", 4000, 4000) + data[frame + 9 :]
    assert read_file(large.replace(b"\xff\xdd\0\4\0\1", b"\xff\xdd\0\4\0\xfa"), LIMITS)
    assert "may take" in refusal(large, ImageLimits(decode_ms=100.0))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ((b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"), "12 bits per sample"),
        ((b"\xff\xc0", b"\xff\xc5"), "ff c5"),
        ((b"\x01\x22\x00", b"\x01\x52\x00"), "sampling factor"),
        ((b"\x01\x22\x00\x02", b"\x01\x22\x00\x01"), "components"),
        ((b"\xff\xda\x00\x0c\x03\x01", b"\xff\xda\x00\x0c\x03\x09"), "a scan header is invalid"),
        ((b"\xff\xda\x00\x0c", b"\xff\xda\x00\x01"), "the length of a segment is 1"),
        ((b"\xff\xc0", b"\xff\xd8"), "ff d8"),
    ],
)
@pytest.mark.usefixtures("undecoded")
def test_damaged_files_are_refused(change: tuple[bytes, bytes], why: str) -> None:
    data = encoded(smooth(40, 50), "JPEG")
    assert data.count(change[0]) == 1
    assert why in refusal(data.replace(*change))


@pytest.mark.usefixtures("undecoded")
def test_two_frame_headers_are_refused() -> None:
    data = encoded(smooth(40, 50), "JPEG")
    frame = data[data.index(b"\xff\xc0") :][:19]
    assert "two frame headers" in refusal(data.replace(frame, frame + frame))


def test_a_file_without_its_end_is_refused() -> None:
    assert "damaged or incomplete" in refusal(encoded(smooth(40, 50), "JPEG")[:-2])
    assert "damaged or incomplete" in refusal(cmyk()[:-200])


@pytest.mark.parametrize("form", ["RGB", "CMYK"])
@pytest.mark.parametrize(
    "exif",
    [b"", b"junk" * 9, b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 99],
)
def test_junk_in_the_exif_block_is_ignored(form: str, exif: bytes) -> None:
    plain = cmyk() if form == "CMYK" else encoded(smooth(40, 50), "JPEG")
    data = plain[:2] + segment(0xE1, b"Exif\0\0" + exif) + plain[2:]
    np.testing.assert_array_equal(decode(data, LIMITS), opened(plain))


def test_unknown_versions_of_jfif_write_nothing_to_stderr(
    capfd: pytest.CaptureFixture[str],
) -> None:
    plain = encoded(smooth(40, 50), "JPEG")
    odd = plain.replace(b"JFIF\0\1\1", b"JFIF\0\7\1")
    assert odd != plain
    np.testing.assert_array_equal(decode(odd, LIMITS), decode(plain, LIMITS))
    assert capfd.readouterr().err == ""


def test_kept_coefficients_count_as_memory() -> None:
    files = [encoded(smooth(64, 64), "JPEG", progressive=kept) for kept in (False, True)]
    # The file is copied twice to check its end.
    sequential, progressive = (
        read_file(data, LIMITS).working_bytes - 2 * len(data) for data in files
    )
    # Pixels twice; or once beside the coefficients. Of 4:2:0: one block of luma in four, and two
    # of chroma, with 128 bytes each.
    assert sequential == 64 * 64 * 6
    assert progressive == 64 * 64 * 3 + max(64 * 64 * 3, (64 + 16 + 16) * 128)


def test_other_metadata_before_the_exif_block_does_not_hide_it() -> None:
    upright = with_exif("JPEG", block(entry(6)))
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>")
    assert decode(upright[:2] + xmp + upright[2:], LIMITS).shape == (20, 10, 3)
