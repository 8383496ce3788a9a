"""EXIF's orientation as the SDK reads it: the server's own rule, for any block."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from visavis.exif import orientation

from tests.server.pictures import block, entry
from visavis_server.vision.formats import exif


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 3, 4])
@pytest.mark.parametrize("value", range(10))
def test_every_type_and_order_is_read_as_the_server_reads_it(order, kind: int, value: int):
    junk = entry(7, tag=0x010F, order=order)
    data = block(junk, entry(value, kind, order=order), entry(3, order=order), order=order)
    assert orientation(data) == exif.orientation(data) == (value if 1 <= value <= 8 else 1)


@given(st.binary(max_size=300), st.sampled_from([b"II*\0\x08\0\0\0", b"Exif\0\0MM\0*\0\0\0\x08"]))
def test_any_bytes_are_read_as_the_server_reads_them(tail: bytes, head: bytes):
    assert orientation(head + tail) == exif.orientation(head + tail)
