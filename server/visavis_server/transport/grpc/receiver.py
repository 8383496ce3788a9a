"""Requests of gRPC calls: received in turn, and parsed within limits."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from visavis_server.errors import InvalidRequest, Stopping
from visavis_server.settings import MessageLimits
from visavis_server.transport.calls import Calls, cancel
from visavis_server.transport.grpc.handlers import HEALTH, Context
from visavis_server.transport.intake import Intake, Place
from visavis_server.transport.pace import Pace
from visavis_server.transport.wire import require_few_fields

EOF: Final = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it

_TENSORS: Final = "/inference."
# Smaller messages are parsed at once, within microseconds.
_SMALL_BYTES: Final = 256 << 10
# Of a message: its bytes, and the parsed message.
_COPIES: Final = 2

Parse = Callable[[bytes], Any] | None
"""FromString of a message class; None: the bytes are the request."""


class Receiver:
    """Receives the requests of one method.

    max_message_bytes: the largest message that gRPC accepts. limits: checked in each message
    before it is parsed.
    """

    def __init__(
        self,
        method: str,
        parse: Parse,
        intake: Intake,
        pace: Pace,
        max_message_bytes: int,
        limits: MessageLimits,
    ) -> None:
        self._parse = parse
        self._intake = intake
        self._pace = pace
        self._max_message_bytes = max_message_bytes
        self._limits = limits
        self._weigh = _weigher(method)

    def enter(self, context: Context) -> Place:
        """Return the call's place, which it leaves when its last byte has been sent."""
        place = self._intake.enter(context.peer())
        context.add_done_callback(lambda _: place.leave())  # type: ignore[arg-type]
        return place

    async def only(self, context: Context, place: Place) -> Any:
        """Return the only request of a call. Raises InvalidRequest if it has none."""
        message = await self._next(context, place)
        if message is EOF:
            raise InvalidRequest("request", "the call ended without a request")
        return message

    async def all(
        self, context: Context, place: Place, sizes: deque[int], calls: Calls
    ) -> AsyncGenerator[Any, None]:
        """Yield the requests of a call, and append the bytes that each takes to `sizes`.

        Raises Stopping if the server stops while the call sends nothing.
        """
        stopping = asyncio.ensure_future(calls.until_stopping())
        receiving: asyncio.Future[Any] | None = None
        try:
            while True:
                receiving = asyncio.ensure_future(self._next(context, place))
                await asyncio.wait((receiving, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not receiving.done():
                    raise Stopping
                if (message := await receiving) is EOF:
                    return
                sizes.append(place.taken_bytes)
                yield message
        finally:
            await cancel(filter(None, (receiving, stopping)))

    async def _next(self, context: Context, place: Place) -> Any:
        """Return the call's next request, or EOF."""
        read = partial(self._read, context)
        message = await place.message(read, _COPIES * self._max_message_bytes, self._weigh)
        if message is EOF:
            return message
        if len(message) < _SMALL_BYTES:
            return self._parsed(bytes(message))
        # Parsing copies the message once more.
        await self._pace.turn()
        began = time.perf_counter()
        try:
            return self._parsed(bytes(message))
        finally:
            self._pace.spend(began)

    async def _read(self, context: Context) -> Any:
        return await self._pace.paced(context.read())

    def _parsed(self, data: bytes) -> Any:
        if self._parse is None:
            return data
        message_class = self._parse.__self__  # type: ignore[attr-defined]
        require_few_fields(data, message_class, self._limits)
        try:
            return self._parse(data)
        except (DecodeError, ValueError):
            raise InvalidRequest(
                "request", "the request is not a message of the method's request type"
            ) from None


def _weigher(method: str) -> Callable[[Any], int]:
    """Return a function that returns the bytes that a message takes during its call."""
    if method.startswith(HEALTH):
        return lambda message: 0
    # A tensor is also copied into its batch.
    copies = _COPIES + method.startswith(_TENSORS)
    return lambda message: 0 if message is EOF else copies * len(message)
