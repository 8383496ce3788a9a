"""grpc.health.v1: the server overall, our service, and each model by name."""

from collections.abc import Iterable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

_SERVICE = "visavis.v1.VisionService"


class Health:
    """Says NOT_SERVING until told otherwise."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # stubs lack it
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def loading(self) -> None:
        """Say that the server is up and not ready."""
        for name in ("", _SERVICE):
            await self._servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)

    async def ready(self, models: Iterable[str]) -> None:
        """Say that the server and each of these models answer."""
        for name in (*models, _SERVICE, ""):
            await self._servicer.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stopping(self) -> None:
        """Say NOT_SERVING for everything, for good."""
        await self._servicer.enter_graceful_shutdown()
