"""Calls as the fault tests make them, and how each one ended."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from visavis.v1 import vision_pb2 as pb
from visavis.v1 import vision_pb2_grpc

from tests.server.pictures import BLUE, GREEN, RED, plain
from tests.server.serving import details

OK = grpc.StatusCode.OK
COLORS = {"red": plain(RED), "green": plain(GREEN), "blue": plain(BLUE)}


def classify(model: str = "colors", color: str = "red") -> pb.ClassifyRequest:
    """Return a request about a picture of one colour."""
    return pb.ClassifyRequest(image=pb.Image(encoded=COLORS[color]), model=model)


def channel(address: str) -> grpc.aio.Channel:
    """Return a connection of its own, that doesn't hide a refusal by trying again."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    return grpc.aio.insecure_channel(address, options)


def stub_of(channel: grpc.aio.Channel) -> Any:
    """Return a stub; the generated one has no types."""
    return vision_pb2_grpc.VisionServiceStub(channel)  # type: ignore[no-untyped-call]


@dataclass
class Ended:
    """How a call ended: its code and what came with it."""

    code: grpc.StatusCode
    answer: Any = None
    error: grpc.aio.AioRpcError | None = None
    seconds: float = field(default=0.0)

    @property
    def retry_after_s(self) -> float | None:
        """When the server wants to hear of it again."""
        assert self.error
        found = details(self.error, error_details_pb2.RetryInfo)
        return found[0].retry_delay.ToTimedelta().total_seconds() if found else None


async def ended(call: Any) -> Ended:
    """Return how a call ends."""
    began = asyncio.get_running_loop().time()
    try:
        answer = await call
        code, error = OK, None
    except grpc.aio.AioRpcError as failure:
        answer, code, error = None, failure.code(), failure
    return Ended(code, answer, error, asyncio.get_running_loop().time() - began)


async def health(channel: grpc.aio.Channel) -> int:
    """Return the server's status."""
    stub = health_pb2_grpc.HealthStub(channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)).status)
