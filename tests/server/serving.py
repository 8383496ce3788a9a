"""A server for the tests: its settings, what calls it, and what its errors carry."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from visavis.v1 import vision_pb2 as pb
from visavis.v1 import vision_pb2_grpc

from visavis_server.app import App
from visavis_server.settings import Settings

from . import pictures


@dataclass(frozen=True)
class Served:
    """A running server, and a channel and a stub that reach it."""

    app: App
    channel: grpc.aio.Channel
    stub: Any

    async def refused(self, rpc: str, request: Message, **how: Any) -> grpc.aio.AioRpcError:
        """Return the error that a call ends with; fail if there is none."""
        try:
            answer = await getattr(self.stub, rpc)(request, **how)
        except grpc.aio.AioRpcError as error:
            return error
        raise AssertionError(f"{rpc} answered: {answer}")


def settings(models: Path, **changes: Any) -> Settings:
    """Return settings for a server on a free port."""
    fields: dict[str, Any] = {
        "models": models,
        "grpc": "127.0.0.1:0",
        "device": "cpu",
        "cores": 2,
        "grace_s": 10.0,
    }
    return Settings(**{**fields, **changes})


@asynccontextmanager
async def served_by(app: App) -> AsyncIterator[Served]:
    """Start a server and connect to it; stop it at the end, whatever happens."""
    try:
        await app.start()
        async with grpc.aio.insecure_channel(app.address) as channel:
            yield Served(app, channel, vision_pb2_grpc.VisionServiceStub(channel))
    finally:
        await app.stop()


def look_again(app: App) -> None:
    """Read certificates and tokens again, as happens each second."""
    for files in app._doors._watched_files:
        files.look()


def image(
    color: tuple[int, int, int] = pictures.RED, width: int = 64, height: int = 64
) -> pb.Image:
    """Return a picture of one colour as it goes into a request."""
    return pb.Image(encoded=pictures.plain(color, width, height))


def raw(pixel_format: int, width: int, height: int, data: bytes) -> pb.Image:
    """Return raw pixels as they go into a request."""
    return pb.Image(raw=pb.RawImage(format=pixel_format, width=width, height=height, data=data))


def details(error: grpc.aio.AioRpcError, kind: Callable[[], Message]) -> list[Any]:
    """Return the google.rpc details of one type that came with an error."""
    status = rpc_status.from_call(error)
    assert status is not None
    found = []
    for packed in status.details:
        message = kind()
        if packed.Unpack(message):
            found.append(message)
    return found


def violations(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """Return the fields that an error calls wrong, with what it says of each."""
    return {
        violation.field: violation.description
        for detail in details(error, error_details_pb2.BadRequest)
        for violation in detail.field_violations
    }
