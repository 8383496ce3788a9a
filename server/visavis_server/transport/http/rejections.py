"""Rejections of HTTP requests, in Connect's format."""

import asyncio
import json
from base64 import b64encode
from contextlib import suppress
from typing import Final

from google.rpc import code_pb2
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from visavis_server.errors import VisavisError
from visavis_server.transport.calls import REQUEST_ID
from visavis_server.transport.statuses import status_of

# Connect's HTTP statuses.
_HTTP_CODES: Final = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "DEADLINE_EXCEEDED": 504,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
}
# How long the body of a rejected request is read and discarded.
_DISCARD_S: Final = 1.0


def rejection(error: VisavisError, scope: Scope) -> Response:
    """Return an error in Connect's format."""
    (request_id,) = values_of(scope["headers"], REQUEST_ID)
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
    # The connection can't be reused, because the rest of the body may not be read.
    return Response(
        json.dumps(body),
        _HTTP_CODES[error.code],
        headers={"connection": "close"},
        media_type="application/json",
    )


async def reject(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a rejection, then discard the body for a moment.

    Closing a connection with unread bytes resets it. A proxy that is still sending would then lose
    the rejection: nginx answers 502.
    """

    async def send_open(message: Message) -> None:
        more = {"more_body": True} if message["type"] == "http.response.body" else {}
        await send({**message, **more})

    await response(scope, receive, send_open)
    with suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            while (await receive()).get("more_body", False):
                pass
    await send({"type": "http.response.body", "body": b""})


def values_of(headers: list[tuple[bytes, bytes]], *names: str) -> list[str]:
    """Return the values of the headers with these names."""
    wanted = [name.encode() for name in names]
    return [value.decode("latin-1") for key, value in headers if key in wanted]
