"""The doors of a server: its gRPC, HTTP and metrics listeners, and what guards them."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc
from grpc_reflection.v1alpha import reflection
from visavis.v1 import vision_pb2

from visavis_server.api.inference import grpc_service_pb2, tensors
from visavis_server.api.inference.service import InferenceService
from visavis_server.api.metrics.prometheus import Metrics
from visavis_server.api.vision.service import VisionService
from visavis_server.errors import StartupError
from visavis_server.models.memory_plan import health_bytes
from visavis_server.runtime.budget import Budget
from visavis_server.settings import Settings
from visavis_server.transport import listeners, shared_listener
from visavis_server.transport.calls import Calls
from visavis_server.transport.certificates import Certificates
from visavis_server.transport.grpc.authentication import Authentication
from visavis_server.transport.grpc.handlers import handlers_of
from visavis_server.transport.grpc.health import Health
from visavis_server.transport.grpc.interceptors import CallInterceptor
from visavis_server.transport.grpc.server import new_server
from visavis_server.transport.intake import Intake
from visavis_server.transport.tokens import Tokens

if TYPE_CHECKING:
    from visavis_server.transport.http.server import HttpServer

_VISION = vision_pb2.DESCRIPTOR.services_by_name["VisionService"]
_INFERENCE = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
# How long the message of a health check may take to arrive while others wait.
_HEALTH_TURN_S = 0.1
# Time for the last responses to leave once every call has ended, and for all doors to close.
_FLUSH_S, _CLOSE_S = 0.5, 1.4


class Doors:
    """The listeners that the settings ask for.

    Call `bind`, then `open`, then `close`. budget: the memory for messages that arrive.
    """

    def __init__(
        self,
        settings: Settings,
        vision: VisionService,
        inference: InferenceService,
        calls: Calls,
        budget: Budget,
        metrics: Metrics,
    ) -> None:
        """Read tokens and certificates. Raises StartupError."""
        self._settings = settings
        self._vision = vision
        self._inference = inference
        self._calls = calls
        self._metrics = metrics
        self._tokens = Tokens(settings.tokens) if settings.tokens else None
        self._certificates = Certificates.of(settings)
        guards = (self._tokens, self._certificates)
        self._watched_files = [each.files for each in guards if each]
        self._intake = Intake(
            budget,
            settings.message_timeout_s,
            settings.max_arriving,
            settings.max_arriving_per_connection,
            settings.contended_turn_s,
        )
        self._grpc = self._grpc_server()
        self.health = Health(self._grpc, settings.max_connections)
        if settings.reflection:
            names = [_VISION.full_name, _INFERENCE.full_name, "grpc.health.v1.Health"]
            reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], self._grpc)
        self.port = 0
        self._http: HttpServer | None = None
        self._metrics_listener: HttpServer | None = None

    def bind(self) -> None:
        """Listen on all addresses. Raises StartupError."""
        settings = self._settings
        self.port = listeners.bind(self._grpc, settings, self._certificates)
        self._http = self._http_listener() if settings.http else None
        self._metrics_listener = self._new_metrics_listener() if settings.metrics else None

    async def open(self) -> None:
        """Answer calls, if only to say that the models are being loaded."""
        await self._grpc.start()
        for server in self._http_servers:
            await server.start()

    async def close(self) -> None:
        """Close the listeners and the connections that are left; takes 1.4 s at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await asyncio.gather(
                    self._grpc.stop(_FLUSH_S), *(server.stop() for server in self._http_servers)
                )

    def reload(self) -> None:
        """Read tokens and certificates again soon."""
        for files in self._watched_files:
            files.look_soon()

    def steer(self, weights: Sequence[int]) -> bool:
        """Spread new gRPC connections over the workers by weights; False: it can't be done."""
        return shared_listener.steer(self.port, weights)

    def busy_connections(self) -> int:
        """Return the number of gRPC connections with calls since the last question."""
        return self._intake.busy_connections()

    @property
    def address(self) -> str:
        """The gRPC address, with the actual port where the settings have port 0."""
        if self._settings.grpc.startswith("unix:"):
            return self._settings.grpc
        return f"{self._settings.grpc.rpartition(':')[0]}:{self.port}"

    @property
    def http_address(self) -> str | None:
        """The HTTP address; None if HTTP is off."""
        return self._http.address if self._http else None

    @property
    def metrics_address(self) -> str | None:
        """The address of the metrics listener; None if it is off."""
        return self._metrics_listener.address if self._metrics_listener else None

    @property
    def uses_tls(self) -> bool:
        """True if the gRPC and HTTP listeners use TLS."""
        return self._certificates is not None

    @property
    def _http_servers(self) -> "list[HttpServer]":
        return [each for each in (self._http, self._metrics_listener) if each]

    def _grpc_server(self) -> grpc.aio.Server:
        settings = self._settings
        # Messages of health checks are small: one at a time is enough, and a short turn keeps a
        # stalled one from blocking the others.
        health_intake = Intake(
            Budget(health_bytes(settings)),
            settings.message_timeout_s,
            at_once=1,
            per_connection=1,
            turn_s=_HEALTH_TURN_S,
        )
        interceptors: list[grpc.aio.ServerInterceptor] = [  # type: ignore[type-arg]
            CallInterceptor(
                self._calls,
                self._intake,
                health_intake,
                self._vision.admission(),
                settings.max_message_bytes,
                settings.message_limits,
            )
        ]
        if self._tokens:
            # First, so that unauthenticated calls learn nothing else.
            interceptors.insert(0, Authentication(self._tokens, settings.open_health))
        server = new_server(interceptors, listeners.grpc_options(settings))
        server.add_generic_rpc_handlers(
            (
                handlers_of(_VISION, self._vision),
                handlers_of(_INFERENCE, self._inference, {"ModelInferRequest": tensors.Request}),
            )
        )
        return server

    def _http_listener(self) -> "HttpServer":
        try:
            from visavis_server.api.inference.rest.door import InferenceDoor, weigh
            from visavis_server.transport.http.listener import Inference, http_listener
        except ModuleNotFoundError as error:
            raise missing_extra("http", "http", error) from None
        settings = self._settings
        door = InferenceDoor(
            self._inference, self._calls, settings.message_limits, settings.max_message_bytes
        )
        return http_listener(
            settings,
            self._vision,
            Inference(door, weigh),
            self._calls,
            self._intake,
            self._tokens,
            self._certificates,
            self._metrics.rendered,
        )

    def _new_metrics_listener(self) -> "HttpServer":
        try:
            from visavis_server.transport.http.server import metrics_listener
        except ModuleNotFoundError as error:
            raise missing_extra("metrics", "http", error) from None
        return metrics_listener(self._settings, self._metrics.rendered)


def missing_extra(setting: str, extra: str, error: ModuleNotFoundError) -> StartupError:
    """Return the error that a setting needs an extra that is not installed."""
    return StartupError(f"--{setting} needs {error.name}: pip install 'visavis-server[{extra}]'")
