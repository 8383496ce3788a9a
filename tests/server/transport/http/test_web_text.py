"""gRPC-Web in text: the messages of gRPC-Web in base64, both ways."""

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from visavis.v1 import vision_pb2 as pb

from visavis_server.app import App

from ...serving import Served, image, served_by, settings
from .test_listener import RPC, Answered, ask, framed, frames, without_timings

TEXT = "application/grpc-web-text"


@pytest_asyncio.fixture
async def web(models: Path) -> AsyncIterator[Served]:
    async with served_by(App(settings(models, http="127.0.0.1:0"))) as served:
        yield served


async def post(served: Served, method: str, body: bytes, kind: str = TEXT) -> Answered:
    return await ask(served.app, RPC + method, body, content_type=kind)


def decoded(text: bytes) -> bytes:
    """Return the bytes of base64 whose parts have their own padding, four characters at a time."""
    return b"".join(b64decode(text[at : at + 4], validate=True) for at in range(0, len(text), 4))


@pytest.mark.parametrize("kind", [TEXT, f"{TEXT}+proto"])
async def test_a_message_in_text_gets_what_grpc_gets(web: Served, kind: str) -> None:
    request = pb.ClassifyRequest(model="colors", image=image(), annotate=True)
    over_grpc = await web.stub.Classify(request)
    body = b64encode(framed(request.SerializeToString()))
    answered = await post(web, "Classify", body, kind)
    assert answered.status == 200
    assert answered.headers["content-type"] == f"{TEXT}+proto"
    (flags, message), (last, trailers) = frames(decoded(answered.body))
    assert (flags, last) == (0, 128)
    assert b"grpc-status: 0" in trailers
    over_web = pb.ClassifyResponse.FromString(message)
    assert without_timings(over_web) == without_timings(over_grpc)


async def test_a_comparison_streams_in_text(web: Served) -> None:
    body = b64encode(framed(pb.CompareStreamRequest(image=image()).SerializeToString()))
    answered = await post(web, "CompareStream", body)
    *events, (last, trailers) = frames(decoded(answered.body))
    assert last == 128
    assert b"grpc-status: 0" in trailers
    kinds = [pb.CompareStreamResponse.FromString(e).WhichOneof("event") for _, e in events]
    assert kinds == ["answer"] * 5 + ["summary"]


async def test_parts_with_their_own_padding_and_large_messages_are_read(web: Served) -> None:
    request = pb.ClassifyRequest(model="colors", image=image())
    request.image.encoded += bytes(2_000_000)  # after the end of a PNG
    data = framed(request.SerializeToString())
    for cut in (1, 5, 7, 1_000_000):
        body = b64encode(data[:cut]) + b64encode(data[cut:])
        answered = await post(web, "Classify", body)
        (_, message), (_, trailers) = frames(decoded(answered.body))
        assert b"grpc-status: 0" in trailers
        assert pb.ClassifyResponse.FromString(message).classifications[0].label == "red"


async def test_errors_come_in_text(web: Served) -> None:
    body = b64encode(framed(pb.ClassifyRequest(model="nobody", image=image()).SerializeToString()))
    answered = await post(web, "Classify", body)
    ((last, trailers),) = frames(decoded(answered.body))
    assert last == 128
    assert b"grpc-status: 5" in trailers
    assert b"nobody" in trailers


async def test_other_than_base64_is_explained(web: Served) -> None:
    endless = b"AA==" * 100
    for body in (b"*", b"====", b"AAAA=", b"AA A", b"AAA", b"AAAA\n", b"\xff" * 100, endless):
        answered = await post(web, "Classify", body)
        assert answered.status == 400
        assert "must be base64" in answered.json["message"]


async def test_an_unknown_method_is_explained_in_plain_text(web: Served) -> None:
    answered = await post(web, "Nope", b"AAAAAAA=")
    assert answered.status == 404
    assert b"no such method" in answered.body
