"""Errors of HTTP requests as responses: Connect's, and the Open Inference Protocol's."""

import asyncio
import json
import math
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from google.rpc import code_pb2
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from visavis_server.errors import Overloaded
from visavis_server.transport.calls import REQUEST_ID
from visavis_server.transport.statuses import code_of, status_of

Refusal = Callable[[Exception, Scope], Response]
"""Returns the response for an error."""

# Connect's HTTP statuses.
_HTTP_CODES: Final = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
# How long the body of a rejected request is read and discarded.
_DISCARD_S: Final = 1.0


def rejection(error: Exception, scope: Scope) -> Response:
    """Return an error in Connect's format."""
    status = status_of(error, scope["path"], _request_id(scope))
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
    return Response(json.dumps(body), _HTTP_CODES[code_of(error)], media_type="application/json")


def inference_error(error: Exception, scope: Scope) -> Response:
    """Return an error in the Open Inference Protocol's format: {"error": "…"}."""
    status = status_of(error, scope["path"], _request_id(scope))
    response = JSONResponse({"error": status.message}, _HTTP_CODES[code_of(error)])
    if isinstance(error, Overloaded):
        response.headers["retry-after"] = str(math.ceil(error.retry_after_s))
    return response


async def reject(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a rejection, then discard the body for a moment, and close the connection.

    Closing a connection with unread bytes resets it. A proxy that is still sending would then lose
    the rejection: nginx answers 502.
    """
    # The connection can't be reused, because the rest of the body may not be read.
    response.headers["connection"] = "close"

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


def _request_id(scope: Scope) -> str:
    (request_id,) = values_of(scope["headers"], REQUEST_ID)
    return request_id
