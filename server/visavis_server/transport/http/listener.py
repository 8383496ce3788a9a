"""The HTTP listener: our RPCs, the Open Inference Protocol, metrics, probes, the playground.

Our RPCs are served as Connect, gRPC-Web, JSON and forms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
from visavis_server.transport.http.forms import FORM, Forms
from visavis_server.transport.http.gateway import Gateway
from visavis_server.transport.http.guards import Authenticated, OwnPages, Receiving, Weigh
from visavis_server.transport.http.rejections import inference_error
from visavis_server.transport.http.server import HttpServer, Rendered, metrics_of
from visavis_server.transport.http.web_text import WebText
from visavis_server.transport.intake import Intake
from visavis_server.transport.tokens import Tokens

_SERVICE = vision_pb2.DESCRIPTOR.services_by_name["VisionService"]

_CORS_HEADERS = (
    "authorization",
    "connect-protocol-version",
    "connect-timeout-ms",
    "content-type",
    "grpc-timeout",
    "inference-header-content-length",
    "x-grpc-web",
    "x-user-agent",
    REQUEST_ID,
)
_CORS_EXPOSED = (
    "grpc-message",
    "grpc-status",
    "grpc-status-details-bin",
    "inference-header-content-length",
    REQUEST_ID,
)


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


@dataclass(frozen=True, slots=True)
class Inference:
    """The Open Inference Protocol: its application, and the memory that its requests take."""

    app: ASGIApp
    weigh: Weigh


def http_listener(
    settings: Settings,
    service: Service,
    inference: Inference,
    calls: Calls,
    intake: Intake,
    tokens: Tokens | None,
    certificates: Certificates | None,
    rendered: Rendered,
) -> HttpServer:
    """Return the listener for all services over HTTP. Raises StartupError."""
    app = _application(settings, service, inference, calls, intake, tokens, rendered)
    tls = certificates.context if certificates else None
    return HttpServer(app, settings, "http", settings.max_connections, tls)


def _application(
    settings: Settings,
    service: Service,
    inference: Inference,
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

    app: ASGIApp = Starlette(
        routes=[
            *_rpcs(settings, service, calls, intake, authenticated),
            *_inference(settings, inference, calls, intake, tokens),
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


def _rpcs(
    settings: Settings,
    service: Service,
    calls: Calls,
    intake: Intake,
    authenticated: Sequence[Middleware],
) -> list[Mount]:
    """Return the routes of our RPCs."""
    connect = ConnectService(_SERVICE, service, calls, settings.message_limits)
    forms = Forms(WebText(connect), _SERVICE, service, calls, settings.message_limits)
    receiving = Receiving(forms, intake, calls, settings.max_message_bytes)
    guarded = OwnPages(receiving, settings.cors_origins, kinds=(FORM,))
    return [Mount(connect.path, guarded, middleware=authenticated)]


def _inference(
    settings: Settings, inference: Inference, calls: Calls, intake: Intake, tokens: Tokens | None
) -> list[Route | Mount]:
    """Return the routes of the Open Inference Protocol."""
    refusal = inference_error
    authenticated = [Middleware(Authenticated, tokens=tokens, refusal=refusal)] if tokens else []
    receiving = Receiving(
        inference.app, intake, calls, settings.max_message_bytes, refusal, inference.weigh
    )
    guarded = OwnPages(receiving, settings.cors_origins, refusal)
    probed = [] if settings.open_health else authenticated
    return [
        Mount("/v2/health", inference.app, middleware=probed),
        Route("/v2", guarded, middleware=authenticated),
        Mount("/v2", guarded, middleware=authenticated),
    ]


def _page() -> Path:
    """Return the folder of the playground's files, in the wheel or in the repository."""
    packed = Path(visavis_server.__file__).parent / "web"
    return packed if packed.is_dir() else Path(__file__).parents[4] / "clients" / "web"
