"""Connections to the server that carry serialised requests and responses."""

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeAlias

import grpc

from visavis import connection
from visavis.bench.workload import Call

Send: TypeAlias = Callable[[Call, int], Awaitable[bytes]]
"""Sends a call for the caller of the given number; returns the serialised response."""

_PATHS = {
    "classify": "/visavis.v1.VisionService/Classify",
    "detect": "/visavis.v1.VisionService/Detect",
    "compare": "/visavis.v1.VisionService/Compare",
}


class Channels:
    """Several connections to one server, shared evenly among the callers.

    timeout: of each call, in seconds. Failed calls are not retried: they are results.
    """

    def __init__(self, address: str, count: int, timeout: float) -> None:
        where = connection.endpoint(address)
        options = [
            *connection.channel_options(where),
            ("grpc.enable_retries", 0),
            # By default, channels to the same address share a connection.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._channels = [grpc.aio.insecure_channel(where.target, options) for _ in range(count)]
        self._timeout = timeout
        # No serializers: requests are bytes already, and responses are parsed after the round.
        self._calls = {
            method: [channel.unary_unary(path, None, None) for channel in self._channels]
            for method, path in _PATHS.items()
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for channel in self._channels:
            await channel.close(None)

    async def send(self, call: Call, caller: int) -> bytes:
        """Return the serialised response. Raises grpc.aio.AioRpcError."""
        send = self._calls[call.method][caller % len(self._channels)]
        response: bytes = await send(call.request, timeout=self._timeout)
        return response
