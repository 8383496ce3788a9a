"""The gRPC server of one address, which can ask all of its clients to connect anew."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import grpc
from grpc_reflection.v1alpha import reflection

from visavis_server.settings import Settings
from visavis_server.transport import listeners
from visavis_server.transport.certificates import Certificates
from visavis_server.transport.grpc.health import Health

_HEALTH: Final = "grpc.health.v1.Health"
# As for connections that have reached their maximum age.
_OLD_CALLS_S: Final = 600.0


class GrpcListener:
    """Serves some handlers and the health service.

    services: the names that reflection shows, if the settings allow it. Call `bind` before `start`.
    """

    def __init__(
        self,
        settings: Settings,
        certificates: Certificates | None,
        interceptors: Sequence[grpc.aio.ServerInterceptor],  # type: ignore[type-arg]
        handlers: Sequence["grpc.GenericRpcHandler[Any, Any]"],
        services: Sequence[str],
    ) -> None:
        self._settings = settings
        self._certificates = certificates
        self._interceptors = interceptors
        self._services = services
        self.health = Health()
        self._handlers = (*handlers, self.health.handlers)
        self._server = self._new()
        self._leaving: set[asyncio.Task[None]] = set()
        self.port = 0

    def bind(self) -> None:
        """Listen: from now on clients can connect. Raises StartupError."""
        self.port = listeners.bind(self._server, self._settings, self._certificates)

    async def start(self) -> None:
        """Answer calls."""
        await self._server.start()

    async def reconnect(self) -> None:
        """Ask all clients to connect anew; their calls in flight go on.

        For workers: a second server listens beside the first, which stops. gRPC can't ask one
        connection to leave.
        """
        old, self._server = self._server, self._new()
        self.bind()
        await self._server.start()
        leaving = asyncio.create_task(old.stop(_OLD_CALLS_S))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def stop(self, grace_s: float) -> None:
        """Close all connections, those without calls at once, the others after a time."""
        for leaving in self._leaving:
            leaving.cancel()
        await self._server.stop(grace_s)

    def _new(self) -> grpc.aio.Server:
        settings = self._settings
        server = grpc.aio.server(
            interceptors=self._interceptors, options=listeners.grpc_options(settings)
        )
        server.add_generic_rpc_handlers(self._handlers)
        if settings.reflection:
            names = (*self._services, _HEALTH, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        return server
