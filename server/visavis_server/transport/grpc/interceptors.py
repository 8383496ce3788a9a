"""What holds for every call over gRPC: its message arrives in time, its error becomes a status."""

import asyncio
import inspect
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, aclosing
from functools import partial
from typing import Any, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError

from visavis_server.errors import InvalidRequest, Stopping, VisavisError
from visavis_server.settings import MessageLimits
from visavis_server.transport.calls import REQUEST_ID, Call, Calls, cancel, request_id_of
from visavis_server.transport.intake import Intake, Place
from visavis_server.transport.pace import Pace
from visavis_server.transport.statuses import code_of, status_of
from visavis_server.transport.wire import require_few_fields

HEALTH = "/grpc.health.v1.Health/"
"""What the paths of its methods begin with."""

_DOOR = "grpc"
_TENSORS = "/inference."
# Messages smaller than this are parsed at once, in some microseconds.
_SMALL_BYTES = 256 << 10
# Of a message: its bytes, and what they are parsed to.
_COPIES = 2

# Quoted: only the stubs know their parameters.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Details = grpc.HandlerCallDetails
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # as above
    """Takes each call from its headers to its status.

    Its messages arrive as `Intake` lets them, those of health by one of its own. Every error
    becomes a status, once, here. admission: by a method's path, what raises an error where a
    call need not be read. max_message_bytes: the largest message that gRPC takes in. limits:
    what is counted in each message before it is parsed.
    """

    def __init__(
        self,
        calls: Calls,
        intake: Intake,
        health_intake: Intake,
        admission: Mapping[str, Callable[[Context], None]],
        max_message_bytes: int,
        limits: MessageLimits,
    ) -> None:
        self._calls = calls
        self._intake = intake
        self._health_intake = health_intake
        self._admission = admission
        self._max_message_bytes = max_message_bytes
        self._limits = limits
        self._pace = Pace()
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self, continuation: Callable[[Details], Awaitable[Handler]], details: Details
    ) -> Handler:
        """Return the handler, wrapped; requests are parsed inside: those errors count too.

        As seen from here every request is a stream, which is the same on the wire: so a call
        can be refused, or told to wait, before its message is taken in.
        """
        method: str = details.method
        if method not in self._handlers:
            found = await continuation(details)
            if found is None:
                return found
            self._handlers[method] = self._wrapped(method, found)
        if self._calls.stopping and not method.startswith(HEALTH):
            return refusing(Stopping())
        return self._handlers[method]

    def _wrapped(self, method: str, handler: Handler) -> Handler:
        behavior = _behavior(handler)
        parse = handler.request_deserializer
        admit = self._admission.get(method)
        intake = self._health_intake if method.startswith(HEALTH) else self._intake
        weigh = _weigher(method)

        async def take(context: Context, place: Place) -> Any:
            read = partial(self._read, context)
            message = await place.message(read, _COPIES * self._max_message_bytes, weigh)
            if message is grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs lack it
                return message
            if len(message) < _SMALL_BYTES:
                return _parse(parse, bytes(message), self._limits)
            # Parsing copies it once more.
            await self._pace.turn()
            began = time.perf_counter()
            try:
                return _parse(parse, bytes(message), self._limits)
            finally:
                self._pace.spend(began)

        async def request(context: Context, place: Place) -> Any:
            if admit is not None:
                admit(context)
            message = await take(context, place)
            if message is grpc.aio.EOF:  # type: ignore[attr-defined]
                raise InvalidRequest("request", "the call ended without a request")
            return message

        async def all_requests(
            context: Context, place: Place, taken: deque[int]
        ) -> AsyncGenerator[Any, None]:
            stopping = asyncio.ensure_future(self._calls.until_stopping())
            taking: asyncio.Future[Any] | None = None
            try:
                while True:
                    taking = asyncio.ensure_future(take(context, place))
                    await asyncio.wait((taking, stopping), return_when=asyncio.FIRST_COMPLETED)
                    if not taking.done():
                        raise Stopping
                    if (message := await taking) is grpc.aio.EOF:  # type: ignore[attr-defined]
                        return
                    taken.append(place.taken_bytes)
                    yield message
            finally:
                await cancel(filter(None, (taking, stopping)))

        async def answer(requests: Any, context: Context) -> Any:
            with self._under_way(method, context) as call:
                try:
                    place = self._enter(intake, context)
                    response = await behavior(await request(context, place), context)
                    place.give_back(place.taken_bytes)
                    place.answer(_size_bytes(response), _ending())
                    call.code = "OK"
                    return response
                except Exception as error:  # noqa: BLE001  one of two places where all errors end
                    call.code = _code_of(error, context)
                    await _abort(context, error, method, call.request_id)

        async def stream(requests: Any, context: Context) -> AsyncIterator[Any]:
            with self._under_way(method, context) as call:
                try:
                    place, end = self._enter(intake, context), _ending()
                    taken: deque[int] = deque()
                    # Closed here: Python would do so when it next looks for garbage.
                    async with AsyncExitStack() as closing:
                        if handler.request_streaming:
                            given = all_requests(context, place, taken)
                            await closing.enter_async_context(aclosing(given))
                        else:
                            given = await request(context, place)
                        answers = behavior(given, context)
                        if inspect.isawaitable(answers):  # it writes to the context: Health.Watch
                            await answers
                        else:
                            await closing.enter_async_context(aclosing(answers))
                            async for response in answers:
                                place.answer(_size_bytes(response), end)
                                yield response
                                place.answered()
                                if taken:  # Of several requests each has one answer.
                                    place.give_back(taken.popleft())
                    call.code = "OK"
                except Exception as error:  # noqa: BLE001  the other
                    call.code = _code_of(error, context)
                    await _abort(context, error, method, call.request_id)

        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, None, handler.response_serializer)
        return grpc.stream_unary_rpc_method_handler(answer, None, handler.response_serializer)

    async def _read(self, context: Context) -> Any:
        return await self._pace.paced(context.read())

    @staticmethod
    def _enter(intake: Intake, context: Context) -> Place:
        """Return the call's place, which it leaves when its last byte has been sent."""
        place = intake.enter(context.peer())
        context.add_done_callback(lambda _: place.leave())  # type: ignore[arg-type]
        return place

    def _under_way(self, method: str, context: Context) -> AbstractContextManager[Call]:
        headers = dict(context.invocation_metadata() or ())
        request_id = request_id_of(headers.get(REQUEST_ID))
        context.set_trailing_metadata(((REQUEST_ID, request_id),))
        watched = not method.startswith(HEALTH)
        return self._calls.under_way(_DOOR, method, request_id, headers, watched)


def refusing(error: VisavisError) -> Handler:
    """Return a handler that ends any call with an error, without waiting for its message."""

    async def refuse(requests: Any, context: Context) -> None:
        await _abort(context, error, "", secrets.token_hex(16))

    return grpc.stream_unary_rpc_method_handler(refuse)


def _weigher(method: str) -> Callable[[Any], int]:
    """Return what says how many bytes a message of a method takes while its call goes on."""
    if method.startswith(HEALTH):
        return lambda message: 0
    # A tensor is also written into the place of its batch.
    copies = _COPIES + method.startswith(_TENSORS)
    eof = grpc.aio.EOF  # type: ignore[attr-defined]
    return lambda message: 0 if message is eof else copies * len(message)


def _size_bytes(response: Any) -> int:
    """Return what a response takes in wire form, which it may be in already."""
    size: int = len(response) if isinstance(response, bytes) else response.ByteSize()
    return size


def _ending() -> Callable[[], object]:
    """Return what ends the call that this task serves, without its caller's help."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancel


def _behavior(handler: Handler) -> Callable[..., Any]:
    behavior = (
        (handler.stream_stream if handler.request_streaming else handler.unary_stream)
        if handler.response_streaming
        else handler.unary_unary
    )
    return cast(Callable[..., Any], behavior)  # grpc types it for synchronous servers


def _parse(parse: Callable[[bytes], Any] | None, data: bytes, limits: MessageLimits) -> Any:
    """Return the message; parse: FromString of its class, or None where bytes are wanted."""
    if parse is None:
        return data
    message_class = parse.__self__  # type: ignore[attr-defined]
    require_few_fields(data, message_class, limits)
    try:
        return parse(data)
    except (DecodeError, ValueError):
        raise InvalidRequest("request", "the request is no message of the method's type") from None


def _code_of(error: Exception, context: Context) -> str:
    if isinstance(error, grpc.aio.AbortError):  # Health's own
        return context.code().name
    return code_of(error)


async def _abort(context: Context, error: Exception, method: str, request_id: str) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    status = status_of(error, method, request_id)
    trailing = (
        (REQUEST_ID, request_id),
        ("grpc-status-details-bin", status.SerializeToString()),
    )
    code = grpc.StatusCode[code_of(error)]
    await context.abort(code, status.message, trailing_metadata=trailing)
