"""The HTTP listener: our RPCs as Connect, gRPC-Web and JSON; metrics, probes, the playground."""

from pathlib import Path
from typing import Protocol

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from visavis.v1 import vision_pb2

import visavis_server
from visavis_server.addresses import is_local
from visavis_server.settings import Settings
from visavis_server.transport.calls import REQUEST_ID, Calls
from visavis_server.transport.certificates import Certificates
from visavis_server.transport.http.connect import ConnectService
from visavis_server.transport.http.gateway import Gateway
from visavis_server.transport.http.guards import Authenticated, Receiving
from visavis_server.transport.http.server import HttpServer, Rendered, metrics_of
from visavis_server.transport.intake import Intake
from visavis_server.transport.tokens import Tokens

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


class Service(Protocol):
    """The service behind our RPCs, with a method for each."""

    @property
    def ready(self) -> bool:
        """True if at least one model is served."""
        ...

    @property
    def trouble(self) -> str:
        """The fault that keeps the server from working; empty: no fault."""
        ...


def http_listener(
    settings: Settings,
    service: Service,
    calls: Calls,
    intake: Intake,
    tokens: Tokens | None,
    certificates: Certificates | None,
    rendered: Rendered,
) -> HttpServer:
    """Return the listener for our RPCs over HTTP. Raises StartupError."""
    app = _application(settings, service, calls, intake, tokens, rendered)
    tls = certificates.context if certificates else None
    return HttpServer(app, settings, "http", settings.max_connections, tls)


def _application(
    settings: Settings,
    service: Service,
    calls: Calls,
    intake: Intake,
    tokens: Tokens | None,
    rendered: Rendered,
) -> ASGIApp:
    authenticated = [Middleware(Authenticated, tokens=tokens)] if tokens else []
    probed = [] if settings.open_health else authenticated

    async def alive(request: Request) -> Response:
        if trouble := service.trouble:
            return PlainTextResponse(f"{trouble}\n", 503)
        return PlainTextResponse("ok\n")

    async def ready(request: Request) -> Response:
        if service.ready and not calls.stopping:
            return PlainTextResponse("ok\n")
        return PlainTextResponse("not ready\n", 503)

    rpcs = ConnectService(_SERVICE, service, calls, settings.message_limits)
    receiving = Receiving(rpcs, intake, calls, settings.max_message_bytes)
    app: ASGIApp = Starlette(
        routes=[
            Mount(rpcs.path, receiving, middleware=authenticated),
            Route("/metrics", metrics_of(rendered), middleware=authenticated),
            Route("/livez", alive, middleware=probed),
            Route("/readyz", ready, middleware=probed),
            # The page needs no authentication: it has no data, and asks for the token itself.
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
    return Gateway(app, only_local=is_local(settings.http), hosts=settings.http_hosts)


def _page() -> Path:
    """Return the folder of the playground's files, in the wheel or in the repository."""
    packed = Path(visavis_server.__file__).parent / "web"
    return packed if packed.is_dir() else Path(__file__).parents[4] / "clients" / "web"
