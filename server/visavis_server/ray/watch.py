"""grpc.health.v1.Health/Watch, answered in a proxy by what the ingress lists."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from visavis_server.errors import InvalidRequest
from visavis_server.ray.methods import VISION
from visavis_server.ray.proxied_call import ProxiedCall

_STATUS: Final = health_pb2.HealthCheckResponse
# Between two questions to the ingress, and how long an answer may take.
_INTERVAL_S: Final = 1.0
_PATIENCE_S: Final = 10.0


class Watch:
    """Asks the ingress for all statuses while there are watchers, who share the answer."""

    def __init__(self) -> None:
        self._statuses: Mapping[str, int] = {}
        self._asked = -_INTERVAL_S
        self._asking: asyncio.Task[None] | None = None

    async def responses(
        self,
        message: bytes,
        call: ProxiedCall,
        listed: Callable[[bytes, ProxiedCall], Awaitable[bytes]],
    ) -> AsyncGenerator[bytes, None]:
        """Yield a service's status, then each change of it, until the client leaves.

        message: the request. listed: calls List. Raises InvalidRequest.
        """
        try:
            name = health_pb2.HealthCheckRequest.FromString(message).service
        except DecodeError:
            raise InvalidRequest(
                "request", "the request is not a message of the method's request type"
            ) from None
        last = None
        while True:
            await self._refresh(call, listed)
            status = self._statuses.get(name, _STATUS.SERVICE_UNKNOWN)
            if status != last:
                last = status
                yield _STATUS(status=status).SerializeToString()
            await asyncio.sleep(_INTERVAL_S)

    async def _refresh(
        self, call: ProxiedCall, listed: Callable[[bytes, ProxiedCall], Awaitable[bytes]]
    ) -> None:
        """Ask for the statuses, unless they are fresh or being asked for."""
        if self._asking is None:
            if time.monotonic() - self._asked < _INTERVAL_S:
                return
            self._asking = asyncio.create_task(self._ask(call.again(), listed))
        # The watcher that asks may leave while others wait.
        await asyncio.shield(self._asking)

    async def _ask(
        self, call: ProxiedCall, listed: Callable[[bytes, ProxiedCall], Awaitable[bytes]]
    ) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                response = await listed(b"", call)
            if not call.failed:
                found = health_pb2.HealthListResponse.FromString(response).statuses
                self._statuses = {name: each.status for name, each in found.items()}
        except TimeoutError:
            call.set_code(grpc.StatusCode.DEADLINE_EXCEEDED)
        finally:
            self._asked, self._asking = time.monotonic(), None
        if call.failed and call.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            names = {"", VISION.full_name, *self._statuses}
            self._statuses = dict.fromkeys(names, _STATUS.NOT_SERVING)
