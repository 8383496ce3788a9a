"""Connections to the server, over which bytes go as they are."""

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeAlias

import grpc

from visavis import connection
from visavis.bench.workload import Call

Send: TypeAlias = Callable[[Call, int], Awaitable[bytes]]
"""Sends a call on behalf of the caller of that number; returns the answer's bytes."""

_PATHS = {
    "classify": "/visavis.v1.VisionService/Classify",
    "detect": "/visavis.v1.VisionService/Detect",
    "compare": "/visavis.v1.VisionService/Compare",
}


class Channels:
    """Some connections to one server, each shared by the callers whose numbers fall to it.

    timeout: seconds that a call may take. Nothing is tried again: a refusal is a result.
    """

    def __init__(self, address: str, count: int, timeout: float) -> None:
        where = connection.endpoint(address)
        options = [
            *connection.channel_options(where),
            ("grpc.enable_retries", 0),
            # Channels to one address would share one connection otherwise.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._channels = [grpc.aio.insecure_channel(where.target, options) for _ in range(count)]
        self._timeout = timeout
        # No serializers: requests are bytes already, and answers are read when the round is over.
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
        """Return the answer's bytes. Raises grpc.aio.AioRpcError."""
        send = self._calls[call.method][caller % len(self._channels)]
        response: bytes = await send(call.request, timeout=self._timeout)
        return response
