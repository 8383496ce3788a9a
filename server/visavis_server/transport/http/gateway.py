"""The outermost guard of every HTTP request."""

import re
from typing import Final

from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visavis_server.addresses import is_local
from visavis_server.transport.calls import REQUEST_ID, request_id_of
from visavis_server.transport.http.rejections import values_of

# The page loads nothing from other origins, and no other page may embed it.
_HEADERS: Final = {
    # Otherwise a browser could mix old and new files after an upgrade.
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "permissions-policy": "camera=(self)",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^][:@/\s]+)(:\d{1,5})?")
_TIMEOUTS: Final = {
    "connect-timeout-ms": re.compile(r"[0-9]{1,10}"),
    "grpc-timeout": re.compile(r"[0-9]{1,8}[HMSmun]"),
}


class Gateway:
    """Applies to every request: request id, security headers, host, timeout and length headers.

    only_local: the listener is on loopback. Then the host must be local, so that another site's
    page can't reach it through a name that resolves to loopback. hosts: other names to accept.
    """

    def __init__(self, app: ASGIApp, only_local: bool, hosts: tuple[str, ...]) -> None:
        self._app = app
        self._only_local = only_local
        self._hosts = frozenset(map(str.lower, hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; ASGI calls this."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        ids = values_of(headers, REQUEST_ID)
        request_id = request_id_of(ids[0] if ids else None)
        scope["headers"] = [
            *(pair for pair in headers if pair[0] != REQUEST_ID.encode()),
            (REQUEST_ID.encode(), request_id.encode()),
        ]
        added = [(k.encode(), v.encode()) for k, v in {**_HEADERS, REQUEST_ID: request_id}.items()]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await (self._rejection(scope) or self._app)(scope, receive, send_with_headers)

    def _rejection(self, scope: Scope) -> Response | None:
        """Return the response that rejects a request; None if the request is acceptable."""
        headers = scope["headers"]
        if _ends_ambiguously(scope):
            # A proxy might see another request in the bytes that follow: they are not read.
            response = _rejected(
                scope, 400, "send either Content-Length or, from version 1.1 on, Transfer-Encoding"
            )
            response.headers["connection"] = "close"
            return response
        if not all(
            pattern.fullmatch(value)
            for name, pattern in _TIMEOUTS.items()
            for value in values_of(headers, name)
        ):
            return _rejected(
                scope,
                400,
                "invalid timeout: connect-timeout-ms takes up to 10 digits, grpc-timeout takes up "
                "to 8 and a unit",
            )
        if self._only_local and not self._is_known("".join(values_of(headers, "host"))):
            return _rejected(
                scope,
                403,
                "this server accepts local requests only; address it as localhost, or add the host "
                "to its setting http_hosts",
            )
        return None

    def _is_known(self, host: str) -> bool:
        if (match := _HOST.fullmatch(host)) is None:
            return False
        name = match["name"].lower()
        return is_local(f"{name}:80") or name in self._hosts


def _rejected(scope: Scope, status: int, why: str) -> Response:
    """Return a rejection, which clients of the Open Inference Protocol read as JSON."""
    if scope["path"].startswith("/v2"):
        return JSONResponse({"error": why}, status)
    return PlainTextResponse(f"{why}\n", status)


def _ends_ambiguously(scope: Scope) -> bool:
    """Return True if the end of a request is ambiguous (RFC 9112, section 6.1)."""
    encoded = bool(values_of(scope["headers"], "transfer-encoding"))
    measured = bool(values_of(scope["headers"], "content-length"))
    return encoded and (measured or scope["http_version"] == "1.0")
