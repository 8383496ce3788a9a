"""PNG files: the pixels of the original, bit for bit, at a cost that its header bounds."""

import re
import struct
import time
import zlib
from functools import cache

import numpy as np
import pytest
from PIL import Image

from visavis_server.errors import InvalidRequest
from visavis_server.settings import ImageLimits
from visavis_server.vision.formats import png_minimal
from visavis_server.vision.image import decode, read_file

from ...pictures import encoded, noise, refusal, seen_by_opencv

LIMITS = ImageLimits()
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
KINDS = [(color, depth) for color, depths in DEPTHS.items() for depth in depths]
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    """Return a chunk."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def image_data(width: int, height: int, color: int, depth: int, interlaced: bool) -> bytes:
    """Return random rows, each with one of the five filters."""
    random = np.random.default_rng(width + 7 * color + depth)
    rows = []
    for left, top, across, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, count = len(range(left, width, across)), len(range(top, height, down))
        if columns:
            size = (columns * depth * SAMPLES[color] + 7) // 8
            rows += [bytes((int(random.integers(5)),)) + random.bytes(size) for _ in range(count)]
    return b"".join(rows)


def png(
    raw: bytes,
    width: int,
    height: int,
    color: int = 2,
    depth: int = 8,
    interlaced: bool = False,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """Return a PNG of raw image data, in chunks of 1,000 bytes."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    palette = np.random.default_rng(depth).bytes(3 << min(depth, 8)) if color == 3 else b""
    data = zlib.compress(raw)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"PLTE", palette) if palette else b"",
            before,
            *(chunk(b"IDAT", data[at : at + 1000]) for at in range(0, len(data), 1000)),
            after,
            chunk(b"IEND"),
        )
    )


@pytest.mark.parametrize(("color", "depth"), KINDS)
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 5), (37, 22), (301, 140)])
def test_every_kind_has_the_pixels_of_the_original(
    color: int, depth: int, interlaced: bool, width: int, height: int
) -> None:
    raw = image_data(width, height, color, depth, interlaced)
    data = png(raw, width, height, color, depth, interlaced)
    np.testing.assert_array_equal(decode(data, LIMITS), seen_by_opencv(data))


@pytest.mark.parametrize(
    ("color", "content"), [(0, b"\0\7"), (2, bytes(6)), (3, bytes(range(200)))]
)
def test_transparency_changes_no_colour(color: int, content: bytes) -> None:
    raw = image_data(40, 30, color, 8, False)
    data = png(raw, 40, 30, color, before=chunk(b"tRNS", content))
    np.testing.assert_array_equal(decode(data, LIMITS), seen_by_opencv(data))


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"gAMA", struct.pack(">I", 220_000)),
        (b"cHRM", struct.pack(">8I", *range(20_000, 28_000, 1000))),
        (b"sRGB", b"\1"),
        (b"sBIT", b"\3\4\5"),
        (b"bKGD", bytes(6)),
        (b"cICP", bytes((9, 16, 0, 1))),
        (b"iCCP", b"name\0\0" + zlib.compress(bytes(500))),
        (b"pHYs", bytes(9)),
        (b"tIME", bytes(7)),
    ],
)
def test_colour_spaces_change_no_pixel_as_in_opencv(kind: bytes, content: bytes) -> None:
    raw = image_data(40, 30, 2, 8, False)
    data = png(raw, 40, 30, before=chunk(kind, content))
    np.testing.assert_array_equal(decode(data, LIMITS), seen_by_opencv(data))


def test_a_chunk_for_each_byte_changes_nothing() -> None:
    raw = image_data(16, 16, 2, 8, False)
    data = png(raw, 16, 16)
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    stream = zlib.compress(raw)
    chunks = b"".join(chunk(b"IDAT", stream[at : at + 1]) for at in range(len(stream)))
    np.testing.assert_array_equal(
        decode(data[:start] + chunk(b"IDAT") + chunks + data[end:], LIMITS), decode(data, LIMITS)
    )


@pytest.mark.parametrize("has_default", [False, True])
def test_the_first_frame_of_an_animation_is_decoded_as_by_opencv(has_default: bool) -> None:
    frames = [Image.fromarray(noise(20, 30, 3, seed=seed)) for seed in range(3)]
    data = encoded(frames[0], save_all=True, append_images=frames[1:], default_image=has_default)
    np.testing.assert_array_equal(decode(data, LIMITS), seen_by_opencv(data))
    np.testing.assert_array_equal(decode(data, LIMITS), np.asarray(frames[has_default]))


def test_a_first_frame_smaller_than_the_canvas_is_placed_on_it() -> None:
    raw = image_data(8, 6, 2, 8, False)
    control = struct.pack(">IIIIIHHBB", 0, 8, 6, 5, 3, 1, 10, 0, 0)
    frame = chunk(b"fcTL", control) + chunk(b"fdAT", bytes(4) + zlib.compress(raw))
    last = chunk(b"fcTL", b"\0\0\0\2" + control[4:]) + chunk(
        b"fdAT", b"\0\0\0\3" + zlib.compress(raw)
    )
    data = png(
        image_data(20, 16, 2, 8, False),
        20,
        16,
        before=chunk(b"acTL", struct.pack(">II", 2, 0)),
        after=frame + last,
    )
    np.testing.assert_array_equal(decode(data, LIMITS), seen_by_opencv(data))


@pytest.mark.parametrize("late", [False, True])
def test_the_orientation_counts_before_and_after_the_pixels(late: bool) -> None:
    exif = chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0")
    raw = image_data(9, 5, 2, 8, False)
    where = {"after": exif} if late else {"before": exif}
    data = png(raw, 9, 5, **where)  # type: ignore[arg-type]
    assert decode(data, LIMITS).shape == (9, 5, 3)
    np.testing.assert_array_equal(decode(data, LIMITS), seen_by_opencv(data))


# What attacks with many chunks sent: 64 x 64 pixels, and a core for a minute.
TEXT = zlib.compress(bytes(7_000_000), 9)
FLOODS = {
    "zTXt": chunk(b"zTXt", b"a\0\0" + TEXT) * 1900,
    "iTXt": chunk(b"iTXt", b"a\0\1\0\0\0" + TEXT) * 1900,
    "tEXt": chunk(b"tEXt", b"a\0" + bytes(800)) * 15_000,
    "iCCP": chunk(b"iCCP", b"a\0\0" + TEXT) * 1900,
    "sPLT": chunk(b"sPLT", b"a\0\x08" + bytes(600)) * 15_000,
    "hIST": chunk(b"hIST", bytes(512)) * 15_000,
    "eXIf": chunk(b"eXIf", b"II*\0\x08\0\0\0" + b"\xff" * 60_000) * 200,
    "unknown": chunk(b"abCd", bytes(700)) * 15_000,
}


@pytest.mark.parametrize("kind", sorted(FLOODS))
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.usefixtures("quick")
def test_no_flood_of_chunks_reaches_the_decoder(
    kind: str, late: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    raw = image_data(64, 64, 2, 8, False)
    where = {"after": FLOODS[kind]} if late else {"before": FLOODS[kind]}
    data = png(raw, 64, 64, **where)  # type: ignore[arg-type]
    np.testing.assert_array_equal(decode(data, LIMITS), decode(png(raw, 64, 64), LIMITS))
    assert len(read_file(data, LIMITS).minimal()) < len(raw) + 500
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.usefixtures("quick")
def test_no_more_is_inflated_than_the_header_implies(interlaced: bool) -> None:
    raw = image_data(64, 64, 2, 8, interlaced)
    deflater = zlib.compressobj(9)
    start = deflater.compress(raw) + deflater.flush(zlib.Z_FULL_FLUSH)
    zeros = zlib.compressobj(9, wbits=-15)
    sixteen_mib = zeros.compress(bytes(1 << 24)) + zeros.flush(zlib.Z_FULL_FLUSH)
    bomb = start + sixteen_mib * 250 + b"\1\0\0\xff\xff" + bytes(4)  # 4 GiB
    plain = png(raw, 64, 64, interlaced=interlaced)
    head = plain[: plain.index(b"IDAT") - 4]
    data = head + chunk(b"IDAT", bomb) + chunk(b"IEND")
    np.testing.assert_array_equal(decode(data, LIMITS), decode(plain, LIMITS))


def tiny_blocks(count: int) -> bytes:
    """Return empty deflate blocks, each with separate codes: 90 bits."""

    def bits(value: int, size: int) -> list[int]:
        return [value >> bit & 1 for bit in range(size)]

    order = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1)
    block = [*bits(4, 3), *bits(0, 5), *bits(0, 5), *bits(14, 4)]
    for symbol in order:
        block += bits(symbol in (1, 18), 3)
    # 138 and 118 unused literals, the end of the block, one distance; then the end.
    block += [1, *bits(127, 7), 1, *bits(107, 7), 0, 0, 0]
    return np.packbits(np.tile(np.array(block, np.uint8), count), bitorder="little").tobytes()


@pytest.mark.usefixtures("quick")
def test_a_stream_of_tiny_blocks_with_separate_codes_is_refused() -> None:
    plain = png(bytes(6001 * 2000), 2000, 2000)
    head = plain[: plain.index(b"IDAT") - 4]
    data = head + chunk(b"IDAT", b"\x78\x01" + tiny_blocks(1_400_000)) + chunk(b"IEND")
    refused = refusal(data, ImageLimits(decode_ms=300.0))
    assert re.search(r"takes too long to inflate: over \d+ ms; send a smaller PNG, or", refused)


def test_a_slow_machine_decodes_the_same_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The costs are those of one processor; of another, the measured time counts by its speed."""
    plain = png(bytes(6001 * 2000), 2000, 2000)
    clock = time.thread_time
    monkeypatch.setattr("time.thread_time", lambda: 5 * clock())
    anew = cache(png_minimal._measured_slowness.__wrapped__)
    monkeypatch.setattr(png_minimal, "_measured_slowness", anew)
    assert decode(plain, ImageLimits(decode_ms=110.0)).shape == (2000, 2000, 3)
    head = plain[: plain.index(b"IDAT") - 4]
    data = head + chunk(b"IDAT", b"\x78\x01" + tiny_blocks(1_400_000)) + chunk(b"IEND")
    assert "takes too long to inflate" in refusal(data, ImageLimits(decode_ms=300.0))


@pytest.mark.usefixtures("quick")
def test_a_stream_of_empty_blocks_is_refused() -> None:
    plain = png(bytes(6001 * 2000), 2000, 2000)
    head = plain[: plain.index(b"IDAT") - 4]
    blocks = b"\0\0\0\xff\xff" * 3_200_000
    data = head + chunk(b"IDAT", b"\x78\x01" + blocks) + chunk(b"IEND")
    assert "bytes too early" in refusal(data)


def test_pixels_that_cost_too_much_are_refused_before_anything_is_inflated() -> None:
    raw = image_data(100, 100, 2, 8, False)
    with pytest.raises(InvalidRequest, match=r"may take .* ms to decode; the limit is 0\.01"):
        read_file(png(raw, 100, 100), ImageLimits(decode_ms=0.01))


def test_the_slow_filter_counts_and_the_others_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    # The count alone: the measured time also counts, but differs by machine.
    monkeypatch.setattr("time.thread_time", lambda: 0.0)

    def filtered(kind: int) -> bytes:
        return png((bytes((kind,)) + bytes(1200)) * 400, 400, 400)

    limits = ImageLimits(decode_ms=4.5)
    assert "Paeth" in refusal(filtered(4), limits)
    assert decode(filtered(1), limits).shape == (400, 400, 3)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (chunk(b"ABCD"), b"", "critical chunk of an unknown type"),
        (chunk(b"PLTE", bytes(9)), b"", "palette is repeated"),
        (b"", chunk(b"PLTE", bytes(9)), "palette is repeated"),
        (chunk(b"IDAT", b"\x79\x9c"), b"", "no valid zlib header"),
        (chunk(b"IDAT", b"\x78\x9c\x07"), b"", "can't be inflated"),
    ],
)
def test_damaged_files_are_refused(before: bytes, after: bytes, why: str) -> None:
    raw = image_data(9, 5, 3, 8, False)
    assert why in refusal(png(raw, 9, 5, color=3, before=before, after=after))


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"IDAT"])
def test_a_wrong_checksum_is_refused(kind: bytes) -> None:
    data = bytearray(png(image_data(9, 5, 3, 8, False), 9, 5, color=3))
    at = data.index(kind)
    data[at + 4 + int.from_bytes(data[at - 4 : at])] ^= 1
    assert "damaged" in refusal(bytes(data))


def test_a_pixel_beyond_the_palette_is_black_and_silent(capfd: pytest.CaptureFixture[str]) -> None:
    data = png(b"\0\0\1\xfe" * 1, 3, 1, color=3)
    at = data.index(b"PLTE") - 4
    short = data[:at] + chunk(b"PLTE", b"abcdef") + data[at + 12 + 768 :]
    np.testing.assert_array_equal(decode(short, LIMITS)[0], [list(b"abc"), list(b"def"), [0, 0, 0]])
    assert capfd.readouterr().err == ""


def test_no_content_of_a_chunk_reaches_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    forged = b'\n{"event": "forged"}\x1b[31m'
    odd = (
        chunk(b"iCCP", forged + b"\0\0" + zlib.compress(bytes(99)))
        + chunk(b"tRNS", bytes(999))
        + chunk(b"gAMA", bytes(4)) * 3
        + chunk(b"hIST", b"1")
        + chunk(b"sBIT", bytes(9))
        + chunk(b"bKGD", b"")
    )
    raw = image_data(9, 5, 2, 8, False)
    np.testing.assert_array_equal(
        decode(png(raw, 9, 5, before=odd, after=odd), LIMITS), decode(png(raw, 9, 5), LIMITS)
    )
    assert capfd.readouterr().err == ""


def test_decoding_takes_no_more_than_its_working_bytes() -> None:
    file = read_file(png(image_data(640, 480, 2, 8, False), 640, 480), LIMITS)
    # The image data, OpenCV's canvas and the pixels.
    assert file.working_bytes == (640 * 3 + 1) * 480 + 2 * 640 * 480 * 3
    assert len(file.minimal()) < file.working_bytes - 2 * 640 * 480 * 3 + 1000


def test_every_byte_of_the_height_counts() -> None:
    data = png(image_data(8, 8, 2, 8, False), 8, 8)
    header = struct.pack(">IIBBBBB", 8, 8 + (1 << 24), 8, 2, 0, 0, 0)
    assert "8x16777224 pixels" in refusal(data[:8] + chunk(b"IHDR", header) + data[33:])


@pytest.mark.parametrize(("color", "depth"), KINDS)
def test_the_size_of_the_pixels_is_limited_in_every_kind(color: int, depth: int) -> None:
    """OpenCV decodes four channels where there is transparency, and keeps 16 bits."""
    pixel_bytes = (4 if color in (4, 6) else 3) * (2 if depth == 16 else 1)
    data = png(image_data(40, 30, color, depth, False), 40, 30, color, depth)
    size = 40 * 30 * pixel_bytes
    assert f"{size} bytes decoded" in refusal(data, ImageLimits(decoded_bytes=size - 1))
    read_file(data, ImageLimits(decoded_bytes=size))
