"""EXIF blocks: one rule for all formats, whatever a decoder makes of them."""

import struct
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.exif import orientation

Order = Literal["<", ">"]


def block(*entries: bytes, order: Order = "<", count: int | None = None) -> bytes:
    """Return a TIFF block of one directory."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    number = len(entries) if count is None else count
    return start + struct.pack(order + "H", number) + b"".join(entries) + bytes(4)


def entry(value: int, kind: int = 3, tag: int = 0x0112, order: Order = "<") -> bytes:
    """Return an entry of one number: BYTE is 1, SHORT 3, LONG 4."""
    number = struct.pack(order + {1: "B", 3: "H", 4: "I"}.get(kind, "H"), value)
    return struct.pack(order + "HHI", tag, kind, 1) + number.ljust(4, b"\0")


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
    ],
)
def test_junk_reads_as_if_it_were_not_there(junk: bytes) -> None:
    assert orientation(junk) == 1


@given(st.binary(max_size=300), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""]))
def test_any_bytes_give_an_orientation(tail: bytes, head: bytes) -> None:
    assert orientation(head + tail) in range(1, 9)
