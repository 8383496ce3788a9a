"""Guards of HTTP calls: authentication, and the body received in turn."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visavis_server.errors import InvalidRequest, Stopping, Unauthenticated, VisavisError
from visavis_server.transport.calls import Calls
from visavis_server.transport.http.rejections import reject, rejection, values_of
from visavis_server.transport.intake import CALL_BYTES, Intake, Place
from visavis_server.transport.tokens import Tokens

# A body while it is assembled, and whole.
_ASSEMBLY_COPIES: Final = 2
# The text of JSON, its strings, their bytes, and the picture decoded from base64.
_JSON_COPIES: Final = 6


class Authenticated:
    """Requires a token of every request, before its body is read."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; ASGI calls this."""
        if why := self._tokens.refusal(values_of(scope["headers"], "authorization")):
            response = rejection(Unauthenticated(why), scope)
            response.headers["www-authenticate"] = "Bearer"
            await reject(response, scope, receive, send)
        else:
            await self._app(scope, receive, send)


class Receiving:
    """Receives the body of a call in its turn, and passes it on whole."""

    def __init__(self, app: ASGIApp, intake: Intake, calls: Calls, max_bytes: int) -> None:
        self._app = app
        self._intake = intake
        self._calls = calls
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; ASGI calls this."""
        peer = "http:{}:{}".format(*(scope["client"] or ("", 0)))
        try:
            if self._calls.stopping:
                raise Stopping
            kind = "".join(values_of(scope["headers"], "content-type"))
            if kind.startswith("application/grpc") and not kind.startswith("application/grpc-web"):
                raise InvalidRequest(
                    "request", "this port is for HTTP; send gRPC to the port in the setting grpc"
                )
            place = self._intake.enter(peer)
        except VisavisError as error:
            await reject(rejection(error, scope), scope, receive, send)
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
            await reject(rejection(error, scope), scope, receive, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        del body

        async def receive_whole() -> Message:
            return whole.pop() if whole else await receive()

        async def send_counted(message: Message) -> None:
            """Send a part of the answer, and return when the client has read most of it."""
            place.answer(len(message.get("body", b"")))
            if message.get("body") and not message.get("more_body", False):
                # uvicorn delays the next message until most of the previous one has been sent.
                await send({**message, "more_body": True})
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)
            place.answered()

        await self._app(scope, receive_whole, send_counted)

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
