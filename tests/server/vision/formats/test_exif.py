"""EXIF blocks: one rule for all formats, independent of the decoder."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis_server.settings import ImageLimits
from visavis_server.vision.formats.exif import orientation
from visavis_server.vision.image import decode

from ...pictures import EXIF_BLOCKS, Order, block, entry, with_exif


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 3, 4])
@pytest.mark.parametrize("value", range(1, 9))
def test_bytes_shorts_and_longs_give_the_orientation_in_both_orders(
    order: Order, kind: int, value: int
) -> None:
    others = entry(7, tag=0x010F, order=order)
    assert orientation(block(others, entry(value, kind, order=order), order=order)) == value


def test_of_two_orientations_the_first_counts() -> None:
    assert orientation(block(entry(6), entry(3))) == 6


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"II",
        b"II*\0",
        b"junk" * 20,
        block(entry(0)),
        block(entry(9)),
        block(entry(6, kind=2)),
        block(entry(6, tag=0x0113)),
        block(entry(6))[:20],
        b"II*\0\xff\xff\xff\xff" + block(entry(6))[8:],
        block(count=0xFFFF),
        block(entry(6), order="<").replace(b"II*\0", b"MM\0*"),
        b"Exif\0\0junk" * 9,
    ],
)
def test_junk_is_ignored(junk: bytes) -> None:
    assert orientation(junk) == 1


@given(st.binary(max_size=300), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""]))
def test_any_bytes_give_an_orientation(tail: bytes, head: bytes) -> None:
    assert orientation(head + tail) in range(1, 9)


def test_the_prefix_of_jpeg_is_not_part_of_the_block() -> None:
    assert orientation(b"Exif\0\0" + block(entry(6))) == 6


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("blocks", "turned"), EXIF_BLOCKS)
def test_every_format_is_turned_by_its_first_block(
    form: str, blocks: list[bytes], turned: bool
) -> None:
    shape = (20, 10, 3) if turned else (10, 20, 3)
    assert decode(with_exif(form, *blocks), ImageLimits()).shape == shape
