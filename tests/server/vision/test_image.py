"""Decoded files and raw images, against Pillow or hand-computed pixels."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from visavis_server.errors import InvalidRequest
from visavis_server.settings import ImageLimits
from visavis_server.vision.image import decode, from_raw

from ..pictures import encoded, noise, opened, smooth

LIMITS = ImageLimits()


def png(width: int, height: int, bit_depth: int, color_type: int, rows: bytes) -> bytes:
    """Return a PNG written by hand: Pillow writes no 16-bit RGB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )


def unfiltered(rows: np.ndarray[Any, Any]) -> bytes:
    """Return the rows of a PNG, each after a filter byte of 0."""
    return b"".join(b"\0" + row.tobytes() for row in rows)


@pytest.mark.parametrize(
    ("form", "how"),
    [
        ("PNG", {}),
        ("JPEG", {"quality": 90}),
        ("JPEG", {"quality": 35, "subsampling": 0}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 80}),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (37, 53), (64, 64)])
def test_files_decode_to_the_pixels_that_pillow_sees(
    form: str, how: dict[str, Any], size: tuple[int, int]
) -> None:
    data = encoded(noise(*size, 3), form, **how)
    image = decode(data, LIMITS)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, opened(data))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(smooth(20, 30), form, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(decode(data, LIMITS), np.asarray(upright))


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_alpha_is_dropped_without_blending(form: str) -> None:
    pixels = noise(9, 11, 4)
    pixels[..., 3] = np.arange(1, 100).reshape(9, 11)  # WebP drops the colours of invisible pixels
    how = {"lossless": True, "exact": True} if form == "WEBP" else {}
    np.testing.assert_array_equal(decode(encoded(pixels, form, **how), LIMITS), pixels[..., :3])


def test_16_bit_grey_is_cut_to_its_high_byte() -> None:
    values = np.linspace(0, 65535, 12 * 7).astype(np.uint16).reshape(7, 12)
    image = decode(encoded(Image.fromarray(values)), LIMITS)
    np.testing.assert_array_equal(image, np.repeat((values >> 8)[..., None], 3, axis=2))


@pytest.mark.parametrize(("color_type", "channels"), [(2, 3), (6, 4)])
def test_16_bit_colour_is_cut_to_its_high_byte(color_type: int, channels: int) -> None:
    values = np.random.default_rng(1).integers(0, 1 << 16, (5, 6, channels), dtype=np.uint16)
    data = png(6, 5, 16, color_type, unfiltered(values.astype(">u2")))
    np.testing.assert_array_equal(decode(data, LIMITS), (values >> 8)[..., :3])


def test_cmyk_jpegs_look_as_in_pillow() -> None:
    data = encoded(Image.fromarray(smooth(40, 50)).convert("CMYK"), "JPEG", quality=95)
    difference = np.abs(decode(data, LIMITS).astype(int) - opened(data))
    assert difference.max() <= 2


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_grey_becomes_three_equal_channels(form: str) -> None:
    data = encoded(noise(8, 9), form)
    np.testing.assert_array_equal(decode(data, LIMITS), opened(data))


@pytest.mark.parametrize("mode", ["P", "1"])
def test_palettes_and_single_bits_become_colours(mode: str) -> None:
    data = encoded(Image.fromarray(smooth(16, 17)).convert(mode))
    np.testing.assert_array_equal(decode(data, LIMITS), opened(data))


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation_is_decoded(form: str) -> None:
    first, second = (Image.new("RGB", (12, 10), color) for color in ("#f00000", "#00f000"))
    how = {"lossless": True} if form == "WEBP" else {}
    data = encoded(first, form, save_all=True, append_images=[second], **how)
    np.testing.assert_array_equal(decode(data, LIMITS), np.asarray(first))


def test_raw_rgb_is_unchanged() -> None:
    pixels = noise(3, 5, 3)
    np.testing.assert_array_equal(from_raw("RGB", 5, 3, pixels.tobytes(), LIMITS), pixels)


def test_raw_bgr_is_reversed() -> None:
    pixels = noise(3, 5, 3)
    image = from_raw("BGR", 5, 3, pixels.tobytes(), LIMITS)
    np.testing.assert_array_equal(image, pixels[..., ::-1])


def test_raw_grey_becomes_three_equal_channels() -> None:
    pixels = noise(3, 5)
    image = from_raw("GRAY", 5, 3, pixels.tobytes(), LIMITS)
    np.testing.assert_array_equal(image, np.stack((pixels,) * 3, axis=2))


def test_raw_nv12_follows_bt601_in_limited_range() -> None:
    width, height = 16, 12
    random = np.random.default_rng(2)
    luma = random.integers(16, 236, (height, width)).astype(np.uint8)
    chroma = random.integers(16, 241, (height // 2, width // 2, 2)).astype(np.uint8)
    # ITU-R BT.601: Y in 16 to 235, Cb and Cr in 16 to 240 around 128.
    y = (luma.astype(float) - 16) / 219
    cb, cr = np.moveaxis((chroma.repeat(2, 0).repeat(2, 1).astype(float) - 128) / 224, 2, 0)
    red = y + 1.402 * cr
    blue = y + 1.772 * cb
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    expected = np.clip(np.stack((red, green, blue), axis=2) * 255, 0, 255)
    image = from_raw("NV12", width, height, luma.tobytes() + chroma.tobytes(), LIMITS)
    assert np.abs(image - expected).max() <= 2


@pytest.mark.parametrize(("level", "grey"), [(16, 0), (235, 255), (126, 128)])
def test_raw_nv12_without_chroma_is_grey(level: int, grey: int) -> None:
    data = bytes([level] * 16 + [128] * 8)
    assert np.abs(from_raw("NV12", 4, 4, data, LIMITS).astype(int) - grey).max() <= 1


@pytest.mark.parametrize("pixel_format", ["RGB", "BGR", "GRAY", "NV12"])
@pytest.mark.parametrize("surplus", [-1, 1])
def test_raw_data_of_another_size_is_refused_with_both_sizes(
    pixel_format: str, surplus: int
) -> None:
    size = {"RGB": 72, "BGR": 72, "GRAY": 24, "NV12": 36}[pixel_format]
    with pytest.raises(InvalidRequest, match=f"{size + surplus} bytes; 6x4 .* {size}") as refusal:
        from_raw(pixel_format, 6, 4, bytes(size + surplus), LIMITS)
    assert refusal.value.field == "image.raw.data"


@pytest.mark.parametrize(("width", "height", "field"), [(5, 4, "width"), (4, 5, "height")])
def test_nv12_with_an_odd_side_is_refused(width: int, height: int, field: str) -> None:
    with pytest.raises(InvalidRequest, match="even") as refusal:
        from_raw("NV12", width, height, bytes(width * height * 3 // 2), LIMITS)
    assert refusal.value.field == f"image.raw.{field}"


@pytest.mark.parametrize("side", [0, -1, 65536, -(1 << 31)])
@pytest.mark.parametrize("field", ["width", "height"])
def test_raw_sides_out_of_range_are_refused(side: int, field: str) -> None:
    with pytest.raises(InvalidRequest, match=str(side)) as refusal:
        from_raw("RGB", **{"width": 1, "height": 1, field: side}, data=b"abc", limits=LIMITS)
    assert refusal.value.field == f"image.raw.{field}"


def test_raw_pixels_over_the_limit_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="the limit is 100") as refusal:
        from_raw("GRAY", 8, 8, bytes(64), ImageLimits(decoded_bytes=100))
    assert refusal.value.field == "image.raw"
