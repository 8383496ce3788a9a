"""The HTTP/1.1 server of one listener, in the event loop of gRPC."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from visavis_server.addresses import is_local, listen, why
from visavis_server.errors import StartupError
from visavis_server.settings import Settings
from visavis_server.transport.http.connection import Connection
from visavis_server.transport.http.gateway import Gateway
from visavis_server.transport.listeners import METRICS_CONNECTIONS
from visavis_server.transport.pace import Pace

_log = structlog.get_logger()

Rendered = Callable[[str], Awaitable[tuple[bytes, str]]]
"""Returns the metrics for an `accept` header, and their content type."""


class HttpServer:
    """Serves an ASGI application. Listens as soon as it is created.

    setting: the name of the setting that has the address. connections: the limit; more are closed
    at once. tls: returns the TLS context of a new connection; None: no TLS. Raises StartupError if
    it can't listen.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        setting: str,
        connections: int,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        address: str = getattr(settings, setting)
        self._sockets = _listening(address, setting, settings.has_workers)
        self.address = f"{address.rpartition(':')[0]}:{self._sockets[0].getsockname()[1]}"
        self._open: set[Connection] = set()
        config = uvicorn.Config(
            app,
            http=partial(  # type: ignore[arg-type]  # uvicorn only calls it
                Connection,
                tls=tls,
                head_timeout_s=settings.handshake_timeout_s,
                answer_timeout_s=settings.message_timeout_s,
                open_ones=self._open,
                most=connections,
                pace=Pace(),
            ),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=settings.max_metadata_bytes,
            timeout_keep_alive=round(settings.max_connection_idle_s),
            timeout_graceful_shutdown=1,
        )
        logger = logging.getLogger("uvicorn.error")
        logger.handlers, logger.propagate = [_Errors(logging.ERROR)], False
        logger.setLevel(logging.ERROR)
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accept connections."""
        self._serving = asyncio.create_task(self._server.serve(sockets=self._sockets))
        while not (self._server.started or self._serving.done()):
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Close all connections. Calls under way must have ended."""
        if self._serving is None:
            for each in self._sockets:
                each.close()
            return
        self._server.should_exit = True
        await self._serving


class _Errors(logging.Handler):
    """Writes uvicorn's errors to our log; malformed requests are only warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        _log.error("http failed", what=record.getMessage(), exc_info=record.exc_info)


class _Server(uvicorn.Server):
    """uvicorn's server, without its signal handlers: the application has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def metrics_listener(settings: Settings, rendered: Rendered) -> HttpServer:
    """Return a listener for /metrics only, without authentication. Raises StartupError."""
    assert settings.metrics is not None
    app = Starlette(routes=[Route("/metrics", metrics_of(rendered))])
    gateway = Gateway(app, only_local=is_local(settings.metrics), hosts=settings.http_hosts)
    return HttpServer(gateway, settings, "metrics", METRICS_CONNECTIONS)


def metrics_of(rendered: Rendered) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of /metrics."""

    async def metrics(request: Request) -> Response:
        text, kind = await rendered(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": kind})

    return metrics


def _listening(address: str, setting: str, shared: bool) -> list[socket.socket]:
    try:
        return listen(address, shared=shared)
    except OSError as error:
        served = "HTTP" if setting == "http" else setting
        raise StartupError(
            f"can't serve {served} on {address}: {why(error)}; choose another with --{setting}"
        ) from None
