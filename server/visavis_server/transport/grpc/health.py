"""grpc.health.v1 for the server, our service, and each model by name."""

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from visavis_server.transport.grpc.handlers import handlers_of

_SERVICE = "visavis.v1.VisionService"

# More would take tens of kilobytes; the protocol allows a server to refuse.
_MAX_LISTED = 1000
# The time that the last status may take to reach watchers.
_LAST_STATUS_S = 0.1


class _Servicer(health.aio.HealthServicer):  # type: ignore[misc, name-defined]  # stubs lack aio
    """gRPC's servicer, but watchers don't prevent the server from stopping."""

    def __init__(self, most_watches: int) -> None:
        super().__init__()
        self.stopping = asyncio.Event()
        self._most_watches = most_watches
        # The watches of each connection, the oldest first.
        self._watches: dict[str, list[asyncio.Task[None]]] = {}

    async def List(
        self, request: health_pb2.HealthListRequest, context: Any
    ) -> health_pb2.HealthListResponse:
        """Return all statuses; gRPC's aio servicer lacks this method."""
        if len(self._server_status) > _MAX_LISTED:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"there are more than {_MAX_LISTED} statuses; call Check for one of them",
            )
        return health_pb2.HealthListResponse(
            statuses={
                name: health_pb2.HealthCheckResponse(status=status)
                for name, status in self._server_status.items()
            }
        )

    async def Watch(self, request: Any, context: Any) -> None:
        """Send each change of a service's status until the client or the server ends the call.

        Of more than `most_watches`, the oldest of the connection with the most gives way.
        """
        peer = context.peer()
        own = self._watches.setdefault(peer, [])
        if sum(map(len, self._watches.values())) >= self._most_watches:
            max(self._watches.values(), key=len).pop(0).cancel()
        watching = asyncio.create_task(super().Watch(request, context))
        stopping = asyncio.create_task(self.stopping.wait())
        own.append(watching)
        try:
            await asyncio.wait((watching, stopping), return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                await asyncio.wait((watching,), timeout=_LAST_STATUS_S)
            elif watching.cancelled():
                await context.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"there are more than {self._most_watches} watches; call Check",
                )
            else:
                await watching
        finally:
            if watching in own:
                own.remove(watching)
            if not self._watches.get(peer):
                self._watches.pop(peer, None)
            watching.cancel()
            stopping.cancel()
            await asyncio.wait((watching, stopping))


class Health:
    """The health service. All statuses are NOT_SERVING at first.

    most_watches: at once. One for each connection that may be open leaves none without.
    """

    def __init__(self, server: grpc.aio.Server, most_watches: int) -> None:
        self._servicer = _Servicer(most_watches)
        self._models: set[str] = set()
        self._sound = True
        service = health_pb2.DESCRIPTOR.services_by_name["Health"]
        server.add_generic_rpc_handlers((handlers_of(service, self._servicer),))

    async def loading(self) -> None:
        """Report that the server runs and is not ready."""
        for name in ("", _SERVICE):
            await self._servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)

    async def ready(self, models: Iterable[str]) -> None:
        """Report the server and these models as serving, and all other models as not serving."""
        names, serving = set(models), health_pb2.HealthCheckResponse.SERVING
        not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._models - names:
            await self._servicer.set(name, not_serving)
        for name in names - self._models:
            await self._servicer.set(name, serving)
        self._models = names
        await self._report_overall()

    async def sound(self, sound: bool) -> None:
        """Report whether the server works; False: it needs a restart."""
        self._sound = sound
        await self._report_overall()

    async def _report_overall(self) -> None:
        serving = bool(self._models) and self._sound
        status = health_pb2.HealthCheckResponse
        for name in (_SERVICE, ""):
            await self._servicer.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def stopping(self) -> None:
        """Report everything as not serving, permanently."""
        await self._servicer.enter_graceful_shutdown()
        self._servicer.stopping.set()
