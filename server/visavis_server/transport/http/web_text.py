"""gRPC-Web in text: base64 around gRPC-Web, for browsers that stream only text."""

import asyncio
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Iterator
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visavis_server.errors import InvalidRequest
from visavis_server.transport.http.guards import kind_of
from visavis_server.transport.http.rejections import rejection

_TEXT: Final = "application/grpc-web-text"
_BINARY: Final = "application/grpc-web"
# Converted at a time, in 1 to 2 ms; a multiple of 3 and of 4.
_PIECE_BYTES: Final = 3 << 18
# Larger bodies are converted in a thread.
_SMALL_BYTES: Final = 64 << 10
# A client may encode each of its writes by itself; ours are few.
_MAX_SEGMENTS: Final = 64


class WebText:
    """Passes gRPC-Web in text on as gRPC-Web, and encodes the response; other requests as they are.

    The body of a request must be one ASGI message.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; ASGI calls this."""
        kind = kind_of(scope)
        if not kind.startswith(_TEXT):
            await self._app(scope, receive, send)
            return
        first = await receive()
        try:
            body = await _converted(_decoded, first["body"])
        except InvalidRequest as error:
            await rejection(error, scope)(scope, receive, send)
            return
        whole: list[Message] = [{**first, "body": body}]
        del first, body

        async def receive_decoded() -> Message:
            return whole.pop() if whole else await receive()

        encodes = False

        async def send_encoded(message: Message) -> None:
            nonlocal encodes
            if message["type"] == "http.response.start":
                headers = _relabelled(message["headers"], _BINARY, _TEXT)
                encodes = headers != list(message["headers"])  # else it is another kind of error
                message = {**message, "headers": headers}
            elif encodes and (body := message.get("body")):
                # Each part of a stream has its own padding, which the protocol allows.
                message = {**message, "body": await _converted(_encoded, body)}
            await send(message)

        headers = _relabelled(scope["headers"], _TEXT, _BINARY)
        await self._app({**scope, "headers": headers}, receive_decoded, send_encoded)


def _relabelled(headers: Any, old: str, new: str) -> list[tuple[bytes, bytes]]:
    """Return headers with another kind of content; their other parts stay."""
    return [
        (key, new.encode() + value[len(old) :])
        if key.lower() == b"content-type" and value.lower().startswith(old.encode())
        else (key, value)
        for key, value in headers
    ]


async def _converted(convert: Any, data: bytes) -> bytes:
    if len(data) > _SMALL_BYTES:
        return await asyncio.to_thread(convert, data)
    return convert(data)


def _encoded(data: bytes) -> bytes:
    starts = range(0, len(data), _PIECE_BYTES)
    return b"".join(b64encode(data[start : start + _PIECE_BYTES]) for start in starts)


def _decoded(text: bytes) -> bytes:
    """Return the bytes in base64; several texts may follow each other, each with its padding.

    Raises InvalidRequest for anything else.
    """
    try:
        return b"".join(
            a2b_base64(text[start : min(end, start + _PIECE_BYTES)], strict_mode=True)
            for begin, end in _segments(text)
            for start in range(begin, end, _PIECE_BYTES)
        )
    except ValueError:
        raise InvalidRequest(
            "request", f"the body of a request in {_TEXT} must be base64, with its padding"
        ) from None


def _segments(text: bytes) -> Iterator[tuple[int, int]]:
    """Yield the ranges that end in padding, and the last one."""
    position = count = 0
    while (end := text.find(b"=", position)) >= 0:
        end += 2 if text[end : end + 2] == b"==" else 1
        count += 1
        if count > _MAX_SEGMENTS or (end - position) % 4:
            raise ValueError
        yield position, end
        position = end
    yield position, len(text)
