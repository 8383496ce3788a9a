"""One HTTP request as one call: counted, ended when its client leaves or its deadline passes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from visavis_server.errors import DeadlineExceeded
from visavis_server.transport.calls import REQUEST_ID, Call, Calls, cancel
from visavis_server.transport.http.rejections import Refusal, values_of
from visavis_server.transport.statuses import code_of

LISTENER: Final = "http"


class HeaderContext:
    """The context of a call, for services: its deadline is in the header connect-timeout-ms."""

    def __init__(self, scope: Scope) -> None:
        timeouts = values_of(scope["headers"], "connect-timeout-ms")
        self._until = time.monotonic() + int(timeouts[0]) / 1e3 if timeouts else None

    def time_remaining(self) -> float | None:
        """Return the seconds until the call's deadline; None: the call has no deadline."""
        return None if self._until is None else self._until - time.monotonic()


async def respond(
    calls: Calls,
    method: str,
    refusal: Refusal,
    answer: Callable[[HeaderContext], Awaitable[Response]],
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Send the response of `answer`, or that of its error, unless the client leaves before.

    method: the path of the RPC, which metrics and traces name. The body must have been received.
    """
    headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
    with calls.under_way(LISTENER, method, headers[REQUEST_ID], headers) as call:
        response = await _response(call, refusal, answer, scope, receive)
    if response is not None:
        await response(scope, receive, send)


async def _response(
    call: Call,
    refusal: Refusal,
    answer: Callable[[HeaderContext], Awaitable[Response]],
    scope: Scope,
    receive: Receive,
) -> Response | None:
    """Return the response of a call; None if its client has left."""
    context = HeaderContext(scope)
    answering = asyncio.ensure_future(answer(context))
    leaving = asyncio.ensure_future(_left(receive))
    try:
        async with asyncio.timeout(context.time_remaining()) as limit:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                return None
            response = await answering
        call.code = "OK"
        return response
    except Exception as error:  # noqa: BLE001  all errors of the method end here
        if isinstance(error, TimeoutError) and limit.expired():
            error = DeadlineExceeded("the deadline of the call has passed")
        call.code = code_of(error)
        return refusal(error, scope)
    finally:
        await cancel((answering, leaving))


async def _left(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
