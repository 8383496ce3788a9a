"""The HTTP door: our RPCs as Connect, gRPC-Web and JSON, metrics, probes, and the playground."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from visavis.v1 import vision_pb2

from server.arrival import Arrival
from server.calls import REQUEST_ID, Calls
from server.connect import ConnectService
from server.doors import Certificates
from server.errors import StartupError
from server.http_connection import Connection
from server.http_guards import Arriving, Authenticated, Entrance
from server.settings import Settings, is_local
from server.tokens import Tokens
from server.vision_service import VisionService

_log = structlog.get_logger()

_SERVICE = vision_pb2.DESCRIPTOR.services_by_name["VisionService"]

_CORS_HEADERS = (
    "authorization",
    "connect-protocol-version",
    "connect-timeout-ms",
    "content-type",
    "grpc-timeout",
    "x-grpc-web",
    "x-user-agent",
    REQUEST_ID,
)
_CORS_EXPOSED = ("grpc-message", "grpc-status", "grpc-status-details-bin", REQUEST_ID)


class HttpDoor:
    """Serves HTTP/1.1 beside gRPC, in the same loop; it listens from the start.

    Raises StartupError if the address can't be had.
    """

    def __init__(
        self,
        settings: Settings,
        service: VisionService,
        calls: Calls,
        arrival: Arrival,
        tokens: Tokens | None,
        registry: CollectorRegistry,
    ) -> None:
        assert settings.http is not None
        self._socket = _bound(settings.http)
        host = settings.http.rpartition(":")[0]
        self.address = f"{host}:{self._socket.getsockname()[1]}"
        certificates = Certificates.of(settings)
        if certificates:
            certificates.context()  # What can't be used is found out now.
        config = uvicorn.Config(
            _application(settings, service, calls, arrival, tokens, registry),
            http=partial(  # type: ignore[arg-type]  # it only calls it
                Connection,
                tls=certificates.context if certificates else None,
                head_timeout_s=settings.handshake_timeout_s,
            ),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=settings.max_metadata_bytes,
            limit_concurrency=settings.max_connections,
            timeout_keep_alive=round(settings.max_connection_idle_s),
            timeout_graceful_shutdown=1,
        )
        logger = logging.getLogger("uvicorn.error")
        logger.handlers, logger.propagate = [_Errors(logging.ERROR)], False
        logger.setLevel(logging.ERROR)
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take connections."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not (self._server.started or self._serving.done()):
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Close all connections; calls under way must have ended."""
        if self._serving is None:
            self._socket.close()
            return
        self._server.should_exit = True
        await self._serving


class _Errors(logging.Handler):
    """Writes what uvicorn calls an error into our log; what strangers send is none."""

    def emit(self, record: logging.LogRecord) -> None:
        _log.error("http failed", what=record.getMessage(), exc_info=record.exc_info)


class _Server(uvicorn.Server):
    """Leaves signals to the application."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bound(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family)
    except OSError as error:
        raise StartupError(
            f"can't serve HTTP on {address}: {error.strerror}; choose another with --http"
        ) from None


def _application(
    settings: Settings,
    service: VisionService,
    calls: Calls,
    arrival: Arrival,
    tokens: Tokens | None,
    registry: CollectorRegistry,
) -> ASGIApp:
    known = [Middleware(Authenticated, tokens=tokens)] if tokens else []
    probed = [] if settings.open_health else known

    def metrics(request: Request) -> Response:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": kind})

    async def alive(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(request: Request) -> Response:
        if service.ready and not calls.stopping:
            return PlainTextResponse("ok\n")
        return PlainTextResponse("not ready\n", 503)

    rpcs = ConnectService(_SERVICE, service, calls, settings.message_limits)
    arriving = Arriving(rpcs, arrival, calls, settings.max_message_bytes)
    app: ASGIApp = Starlette(
        routes=[
            Mount(rpcs.path, arriving, middleware=known),
            Route("/metrics", metrics, middleware=known),
            Route("/livez", alive, middleware=probed),
            Route("/readyz", ready, middleware=probed),
            # What anybody may see, as it holds nothing: the page asks for the token itself.
            Mount("/", StaticFiles(directory=_page(), html=True)),
        ]
    )
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=_CORS_HEADERS,
            expose_headers=_CORS_EXPOSED,
        )
    assert settings.http is not None
    return Entrance(app, only_local=is_local(settings.http), hosts=settings.http_hosts)


def _page() -> Path:
    """Return where the playground's files lie: in the wheel, or in the repository."""
    packed = Path(__file__).parent / "web"
    return packed if packed.is_dir() else Path(__file__).parents[1] / "clients" / "web"
