"""What every HTTP request passes before it is answered."""

import asyncio
import json
import re
from base64 import b64encode
from contextlib import suppress
from typing import Final

from google.rpc import code_pb2
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visavis_server.addresses import is_local
from visavis_server.errors import InvalidRequest, Stopping, Unauthenticated, VisavisError
from visavis_server.transport.calls import REQUEST_ID, Calls, request_id_of
from visavis_server.transport.intake import CALL_BYTES, Intake, Place
from visavis_server.transport.statuses import status_of
from visavis_server.transport.tokens import Tokens

# The page needs nothing from elsewhere, and nothing elsewhere needs the page.
_HEADERS: Final = {
    # After an upgrade a browser must not mix old files with new ones.
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "permissions-policy": "camera=(self)",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
# As Connect writes these codes.
_HTTP_CODES: Final = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "DEADLINE_EXCEEDED": 504,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
}
# A body while it is put together, and whole.
_ASSEMBLY_COPIES: Final = 2
# JSON's text, its strings, their bytes, and the picture that base64 was made of.
_JSON_COPIES: Final = 6
# How long the body of a refused request is read, to be discarded.
_DISCARD_S: Final = 1.0


_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^][:@/\s]+)(:\d{1,5})?")
# Connect's milliseconds, or gRPC's number with a unit.
_TIMEOUT = re.compile(r"\d{1,10}|\d{1,8}[HMSmun]")


class Entrance:
    """What holds for everything: a request id, headers that keep browsers safe, a known host.

    And one way to tell where a request ends.

    only_local: the door is on loopback; then a page elsewhere must not get in under a name of
    its own that leads here. hosts: other names under which the door may be addressed.
    """

    def __init__(self, app: ASGIApp, only_local: bool, hosts: tuple[str, ...]) -> None:
        self._app = app
        self._only_local = only_local
        self._hosts = frozenset(map(str.lower, hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; ASGI calls this."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        given = _values(headers, REQUEST_ID)
        request_id = request_id_of(given[0] if given else None)
        scope["headers"] = [
            *(pair for pair in headers if pair[0] != REQUEST_ID.encode()),
            (REQUEST_ID.encode(), request_id.encode()),
        ]
        added = [(k.encode(), v.encode()) for k, v in {**_HEADERS, REQUEST_ID: request_id}.items()]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        app = self._app
        if self._only_local and not self._is_known("".join(_values(headers, "host"))):
            app = PlainTextResponse(
                "this server is for this machine; address it as localhost, or name the host in "
                "its setting http_hosts\n",
                403,
            )
        if not all(map(_TIMEOUT.fullmatch, _values(headers, "connect-timeout-ms", "grpc-timeout"))):
            app = PlainTextResponse(
                "connect-timeout-ms takes up to 10 digits, grpc-timeout up to 8 and a unit\n", 400
            )
        if _ends_ambiguously(scope):
            # Somebody in between may see another request in what follows: it is not read.
            app = PlainTextResponse(
                "send either Content-Length or, from version 1.1 on, Transfer-Encoding\n",
                400,
                headers={"connection": "close"},
            )
        await app(scope, receive, send_with_headers)

    def _is_known(self, host: str) -> bool:
        if (match := _HOST.fullmatch(host)) is None:
            return False
        name = match["name"].lower()
        return is_local(f"{name}:80") or name in self._hosts


class Authenticated:
    """Lets requests in that carry a token; their body is not read before."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; ASGI calls this."""
        if why := self._tokens.refusal(_values(scope["headers"], "authorization")):
            refusal = _refusal(Unauthenticated(why), scope)
            refusal.headers["www-authenticate"] = "Bearer"
            await _refuse(refusal, scope, receive, send)
        else:
            await self._app(scope, receive, send)


class Arriving:
    """Takes in the body of a call, as Intake lets it, and hands it on whole."""

    def __init__(self, app: ASGIApp, intake: Intake, calls: Calls, max_bytes: int) -> None:
        self._app = app
        self._intake = intake
        self._calls = calls
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; ASGI calls this."""
        peer = "http:{}:{}".format(*(scope["client"] or ("", 0)))
        try:
            if self._calls.stopping:
                raise Stopping
            kind = "".join(_values(scope["headers"], "content-type"))
            if kind.startswith("application/grpc") and not kind.startswith("application/grpc-web"):
                raise InvalidRequest("request", "gRPC has a port of its own; this one is for HTTP")
            place = self._intake.enter(peer)
        except VisavisError as error:
            await _refuse(_refusal(error, scope), scope, receive, send)
            return
        with place:
            await self._answer(kind, place, scope, receive, send)

    async def _answer(
        self, kind: str, place: Place, scope: Scope, receive: Receive, send: Send
    ) -> None:
        copies = _JSON_COPIES if "json" in kind else 1
        try:
            announced = self._announced(scope)
            body = await place.message(
                lambda: self._body(announced, place, receive),
                _ASSEMBLY_COPIES * (CALL_BYTES if announced is None else announced),
                lambda body: copies * len(body),
            )
        except VisavisError as error:
            place.held.release()
            await _refuse(_refusal(error, scope), scope, receive, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        del body

        async def receive_whole() -> Message:
            return whole.pop() if whole else await receive()

        async def send_counted(message: Message) -> None:
            """Send a part of the answer, and return when the connection has taken most of it."""
            place.answer(len(message.get("body", b"")))
            if message.get("body") and not message.get("more_body", False):
                # What the server sends next waits until little is left of what it sent before.
                await send({**message, "more_body": True})
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)
            place.answered()

        await self._app(scope, receive_whole, send_counted)

    def _announced(self, scope: Scope) -> int | None:
        """Return the length that the headers tell; None: the body comes in chunks.

        Raises InvalidRequest if it is too large.
        """
        announced = "".join(_values(scope["headers"], "content-length"))
        if not announced.isdigit():
            return None
        if int(announced) > self._max_bytes:
            raise self._too_large()
        return int(announced)

    async def _body(self, announced: int | None, place: Place, receive: Receive) -> bytes:
        """Return the body. Raises InvalidRequest if it is too large, or ends too early."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise InvalidRequest("request", "the request ended before its end")
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                raise self._too_large()
            if announced is None and _ASSEMBLY_COPIES * len(body) > place.turn_bytes:
                place.grow(2 * _ASSEMBLY_COPIES * len(body))
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> InvalidRequest:
        return InvalidRequest("request", f"the request is over {self._max_bytes} bytes")


def _ends_ambiguously(scope: Scope) -> bool:
    """Say whether others could think that a request ends elsewhere (RFC 9112, section 6.1)."""
    encoded = bool(_values(scope["headers"], "transfer-encoding"))
    measured = bool(_values(scope["headers"], "content-length"))
    return encoded and (measured or scope["http_version"] == "1.0")


async def _refuse(refusal: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a whole refusal, then discard for a moment what still comes of the body.

    A connection that is closed while bytes lie unread is reset, and a proxy that is still sending
    then loses the refusal: nginx answers 502.
    """

    async def send_open(message: Message) -> None:
        more = {"more_body": True} if message["type"] == "http.response.body" else {}
        await send({**message, **more})

    await refusal(scope, receive, send_open)
    with suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            while (await receive()).get("more_body", False):
                pass
    await send({"type": "http.response.body", "body": b""})


def _refusal(error: VisavisError, scope: Scope) -> Response:
    """Return an error as Connect writes it."""
    (request_id,) = _values(scope["headers"], REQUEST_ID)
    status = status_of(error, scope["path"], request_id)
    body = {
        "code": code_pb2.Code.Name(status.code).lower(),
        "message": status.message,
        "details": [
            {
                "type": detail.type_url.rpartition("/")[2],
                "value": b64encode(detail.value).decode().rstrip("="),
            }
            for detail in status.details
        ],
    }
    # The rest of the body is not waited for: the connection can't be used again.
    return Response(
        json.dumps(body),
        _HTTP_CODES[error.code],
        headers={"connection": "close"},
        media_type="application/json",
    )


def _values(headers: list[tuple[bytes, bytes]], *names: str) -> list[str]:
    wanted = [name.encode() for name in names]
    return [value.decode("latin-1") for key, value in headers if key in wanted]
