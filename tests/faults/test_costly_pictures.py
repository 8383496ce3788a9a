"""Pictures made to cost: their callers get an answer, and so do their neighbours, at once."""

import asyncio
import zlib
from collections.abc import Callable

import grpc
import pytest
from visavis.v1 import vision_pb2 as pb

from . import costly
from .calls import OK, channel, classify, ended, health, stub_of
from .conftest import Serve

# What an answer may take on busy cores; each of these pictures held one for 9 to 52 s.
QUICK_S = 8.0


def texts() -> bytes:
    """Return 64x64 pixels behind 1,900 texts of 7 MB."""
    plain = costly.png(
        {
            **dict.fromkeys(("interlaced", "noise", "seed", "strategy", "flush", "surplus"), 0),
            "width": 64,
            "height": 64,
            "depth": 8,
            "color": 2,
            "filters": [0],
            "level": 6,
            "memory": 8,
            "chunk": 1 << 20,
        }
    )
    text = costly.chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(7_000_000), 9))
    return plain[:33] + text * 1900 + plain[33:]


def segments() -> bytes:
    """Return a CMYK JPEG of 4 million segments of nothing."""
    return b"\xff\xd8" + costly.segment(0xE5, b"") * 4_000_000 + b"\xff\xd9"


def groups() -> bytes:
    """Return a lossless WebP of 65,536 groups of codes."""
    return costly.many_groups(1024, 1024, 65_536, False, seed=1)


@pytest.mark.parametrize("make", [texts, segments, groups])
async def test_neighbours_are_answered_while_costly_pictures_arrive(
    serve: Serve, make: Callable[[], bytes]
) -> None:
    data = make()
    server = serve("--cores", "2")
    async with channel(server.address) as first, channel(server.address) as second:
        attack = pb.ClassifyRequest(image=pb.Image(encoded=data), model="colors")
        attacks = [
            asyncio.create_task(ended(stub_of(first).Classify(attack, timeout=60)))
            for _ in range(4)
        ]
        neighbour = await ended(stub_of(second).Classify(classify(), timeout=QUICK_S))
        assert neighbour.code == OK
        assert await health(second) == 1
        for attacked in await asyncio.gather(*attacks):
            assert attacked.code in (OK, grpc.StatusCode.INVALID_ARGUMENT)
            assert attacked.seconds < QUICK_S
        # Nothing was learnt from it that would refuse the next one.
        after = await ended(stub_of(second).Classify(classify(), timeout=2))
        assert after.code == OK
    assert "libpng" not in server.log
