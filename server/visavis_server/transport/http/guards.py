"""Guards of HTTP calls: authentication, pages of other origins, and the body received in turn."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visavis_server.errors import (
    InvalidRequest,
    Overloaded,
    PermissionDenied,
    Stopping,
    Unauthenticated,
    VisavisError,
)
from visavis_server.transport.calls import Calls
from visavis_server.transport.http.rejections import Refusal, reject, rejection, values_of
from visavis_server.transport.intake import CALL_BYTES, Intake, Place
from visavis_server.transport.tokens import Tokens

Weigh = Callable[[Scope, int], int]
"""Returns the bytes that a request takes during its call, given the size of its body."""

# A body while it is assembled, and whole.
_ASSEMBLY_COPIES: Final = 2
JSON_COPIES: Final = 6
"""The text of JSON, its strings, their bytes, and the picture decoded from base64."""
# A form, its parts in pieces, the picture, and the message with the picture.
_FORM_COPIES: Final = 4
# Base64, its bytes in pieces, and the message.
_BASE64_COPIES: Final = 3
_SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")


class Authenticated:
    """Requires a token of every request, before its body is read."""

    def __init__(self, app: ASGIApp, tokens: Tokens, refusal: Refusal = rejection) -> None:
        self._app = app
        self._tokens = tokens
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; ASGI calls this."""
        if why := self._tokens.refusal(values_of(scope["headers"], "authorization")):
            response = self._refusal(Unauthenticated(why), scope)
            response.headers["www-authenticate"] = "Bearer"
            await reject(response, scope, receive, send)
        else:
            await self._app(scope, receive, send)


class OwnPages:
    """Rejects requests of pages of other origins, which a browser sends without asking first.

    Before JSON, a browser asks whether a page of another origin may send it; a form, or a text that
    could be one, it sends at once. The page can't read the response, but the server would do the
    work. Clients that are no browsers send none of these headers.

    origins: those whose pages may call. kinds: the beginnings of the content types to guard; by
    default all, and requests without one.
    """

    def __init__(
        self,
        app: ASGIApp,
        origins: Sequence[str],
        refusal: Refusal = rejection,
        kinds: tuple[str, ...] = ("",),
    ) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._refusal = refusal
        self._kinds = kinds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; ASGI calls this."""
        guarded = scope["method"] not in _SAFE_METHODS and kind_of(scope).startswith(self._kinds)
        if not guarded or self._may_call(scope):
            await self._app(scope, receive, send)
            return
        why = "pages of other origins may not call this server; add theirs to cors_origins"
        await reject(self._refusal(PermissionDenied(why), scope), scope, receive, send)

    def _may_call(self, scope: Scope) -> bool:
        headers = scope["headers"]
        origin = "".join(values_of(headers, "origin"))
        if "*" in self._origins or origin.lower() in self._origins:
            return True
        # Browsers send this only to https and to this machine, but then it is right behind every
        # proxy; the host may be another one there.
        if site := "".join(values_of(headers, "sec-fetch-site")):
            return site in ("same-origin", "none")
        host = "".join(values_of(headers, "host"))
        return not origin or origin.partition("://")[2].lower() == host.lower()


class Receiving:
    """Receives the body of a call in its turn, and passes it on whole.

    weigh: by default as for our own RPCs.
    """

    def __init__(
        self,
        app: ASGIApp,
        intake: Intake,
        calls: Calls,
        max_bytes: int,
        refusal: Refusal = rejection,
        weigh: Weigh | None = None,
    ) -> None:
        self._app = app
        self._intake = intake
        self._calls = calls
        self._max_bytes = max_bytes
        self._refusal = refusal
        self._weigh = weigh or _weigh

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; ASGI calls this."""
        peer = "http:{}:{}".format(*(scope["client"] or ("", 0)))
        try:
            if self._calls.stopping:
                raise Stopping
            kind = kind_of(scope)
            if kind.startswith("application/grpc") and not kind.startswith("application/grpc-web"):
                raise InvalidRequest(
                    "request", "this port is for HTTP; send gRPC to the port in the setting grpc"
                )
            place = self._intake.enter(peer)
        except VisavisError as error:
            await reject(self._refusal(error, scope), scope, receive, send)
            return
        with place:
            await self._answer(place, scope, receive, send)

    async def _answer(self, place: Place, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            announced = self._announced(scope)
            body = await place.message(
                lambda: self._body(announced, place, receive),
                _ASSEMBLY_COPIES * (CALL_BYTES if announced is None else announced),
                lambda body: self._weigh(scope, len(body)),
            )
        except VisavisError as error:
            place.held.release()
            await reject(self._refusal(error, scope), scope, receive, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        del body

        async def receive_whole() -> Message:
            return whole.pop() if whole else await receive()

        async def refuse(error: Overloaded) -> None:
            await self._refusal(error, scope)(scope, receive, send)

        await self._app(scope, receive_whole, _Counted(place, refuse, send))

    def _announced(self, scope: Scope) -> int | None:
        """Return the length in the headers; None for a chunked body.

        Raises InvalidRequest if it is over the limit.
        """
        announced = "".join(values_of(scope["headers"], "content-length"))
        if not announced.isdigit():
            return None
        if int(announced) > self._max_bytes:
            raise self._too_large()
        return int(announced)

    async def _body(self, announced: int | None, place: Place, receive: Receive) -> bytes:
        """Return the body. Raises InvalidRequest if it is over the limit, or incomplete."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise InvalidRequest(
                    "request", "the connection closed before the whole request had arrived"
                )
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                raise self._too_large()
            if announced is None and _ASSEMBLY_COPIES * len(body) > place.turn_bytes:
                place.grow(2 * _ASSEMBLY_COPIES * len(body))
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> InvalidRequest:
        return InvalidRequest(
            "request", f"the request is larger than {self._max_bytes} bytes, the limit"
        )


class _Counted:
    """Sends an answer whose parts are counted in the budget.

    refuse: sends the error instead if the first part does not fit.
    """

    def __init__(
        self, place: Place, refuse: Callable[[Overloaded], Awaitable[None]], send: Send
    ) -> None:
        self._place = place
        self._refuse = refuse
        self._send = send
        # Sent with the first part, as an error has another one.
        self._start: Message | None = None
        self._refused = False

    async def __call__(self, message: Message) -> None:
        """Send a part of the answer, and return when the client has read most of it."""
        if self._refused:
            return
        if message["type"] == "http.response.start":
            self._start = message
            return
        try:
            self._place.answer(len(message.get("body", b"")))
        except Overloaded as error:
            if self._start is None:  # parts of a stream have been sent
                raise
            self._refused = True
            await self._refuse(error)
            return
        if self._start is not None:
            await self._send(self._start)
            self._start = None
        if message.get("body") and not message.get("more_body", False):
            # uvicorn delays the next message until most of the previous one has been sent.
            await self._send({**message, "more_body": True})
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)
        self._place.answered()


def kind_of(scope: Scope) -> str:
    """Return the content type of a request in lower case; empty if it has none."""
    return "".join(values_of(scope["headers"], "content-type")).lower()


def _weigh(scope: Scope, size: int) -> int:
    """Return the bytes that a request for one of our RPCs takes."""
    kind = kind_of(scope)
    if kind.startswith("application/grpc-web-text"):
        return _BASE64_COPIES * size
    if kind.startswith("multipart/"):
        return _FORM_COPIES * size
    return JSON_COPIES * size if "json" in kind else size
