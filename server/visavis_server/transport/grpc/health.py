"""grpc.health.v1: the server overall, our service, and each model by name."""

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from visavis_server.transport.grpc.handlers import handlers_of

_SERVICE = "visavis.v1.VisionService"


# More than this would be a message of tens of kilobytes; the protocol allows to refuse then.
_MAX_LISTED = 1000
# So long may the last status take to reach those who watch.
_FAREWELL_S = 0.1


class _Servicer(health.aio.HealthServicer):  # type: ignore[misc, name-defined]  # stubs lack aio
    """gRPC's own, except that a watcher doesn't keep a server from stopping."""

    def __init__(self) -> None:
        super().__init__()
        self.stopping = asyncio.Event()

    async def List(
        self, request: health_pb2.HealthListRequest, context: Any
    ) -> health_pb2.HealthListResponse:
        """Return the status of everything; gRPC's own aio servicer lacks it."""
        if len(self._server_status) > _MAX_LISTED:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"there are over {_MAX_LISTED} statuses; ask Check for one",
            )
        return health_pb2.HealthListResponse(
            statuses={
                name: health_pb2.HealthCheckResponse(status=status)
                for name, status in self._server_status.items()
            }
        )

    async def Watch(self, request: Any, context: Any) -> None:
        """Send each change of a service's status, until the caller or the server leaves."""
        watching = asyncio.create_task(super().Watch(request, context))
        stopping = asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait((watching, stopping), return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                await asyncio.wait((watching,), timeout=_FAREWELL_S)
            else:
                await watching
        finally:
            watching.cancel()
            stopping.cancel()
            await asyncio.wait((watching, stopping))


class Health:
    """Says NOT_SERVING until told otherwise."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._servicer = _Servicer()
        self._models: set[str] = set()
        self._sound = True
        service = health_pb2.DESCRIPTOR.services_by_name["Health"]
        server.add_generic_rpc_handlers((handlers_of(service, self._servicer),))

    async def loading(self) -> None:
        """Say that the server is up and not ready."""
        for name in ("", _SERVICE):
            await self._servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)

    async def ready(self, models: Iterable[str]) -> None:
        """Say that the server and each of these models answer; others, that did, no more."""
        names, serving = set(models), health_pb2.HealthCheckResponse.SERVING
        not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._models - names:
            await self._servicer.set(name, not_serving)
        for name in names - self._models:
            await self._servicer.set(name, serving)
        self._models = names
        await self._tell_overall()

    async def sound(self, sound: bool) -> None:
        """Say whether the server works at all, or is to be started again."""
        self._sound = sound
        await self._tell_overall()

    async def _tell_overall(self) -> None:
        answers = bool(self._models) and self._sound
        status = health_pb2.HealthCheckResponse
        for name in (_SERVICE, ""):
            await self._servicer.set(name, status.SERVING if answers else status.NOT_SERVING)

    async def stopping(self) -> None:
        """Say NOT_SERVING for everything, for good."""
        await self._servicer.enter_graceful_shutdown()
        self._servicer.stopping.set()
