"""The lifecycle of every gRPC call: admission, requests, responses, and errors as statuses."""

import asyncio
import inspect
import secrets
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, aclosing
from typing import Any, Final, cast

import grpc

from visavis_server.errors import Stopping, VisavisError
from visavis_server.settings import MessageLimits
from visavis_server.transport.calls import REQUEST_ID, Call, Calls, request_id_of
from visavis_server.transport.grpc.handlers import HEALTH, Context, Details, Handler
from visavis_server.transport.grpc.receiver import Receiver
from visavis_server.transport.intake import Intake, Place
from visavis_server.transport.pace import Pace
from visavis_server.transport.statuses import code_of, status_of

_LISTENER: Final = "grpc"

Admit = Callable[[Context], None]
"""Raises an error if a call need not be received."""


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # as in handlers
    """Handles each call from its headers to its status.

    intake: receives the messages of all calls but health checks, which have health_intake.
    admission: checks by method path that run before a request is received. max_message_bytes: the
    largest message that gRPC accepts. limits: checked in each message before it is parsed.
    """

    def __init__(
        self,
        calls: Calls,
        intake: Intake,
        health_intake: Intake,
        admission: Mapping[str, Admit],
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
        """Return the method's handler, wrapped.

        The wrapped handler takes every request as a stream, which is the same on the wire. So a
        call can be rejected, or wait, before gRPC receives its message.
        """
        method: str = details.method
        if method not in self._handlers:
            handler = await continuation(details)
            if handler is None:
                return handler
            self._handlers[method] = self._wrapped(method, handler)
        if self._calls.stopping and not method.startswith(HEALTH):
            return rejecting(Stopping())
        return self._handlers[method]

    def _wrapped(self, method: str, handler: Handler) -> Handler:
        receiver = Receiver(
            method,
            handler.request_deserializer,
            self._health_intake if method.startswith(HEALTH) else self._intake,
            self._pace,
            self._max_message_bytes,
            self._limits,
        )
        wrapped = _Method(method, handler, receiver, self._calls, self._admission.get(method))
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                wrapped.stream, None, handler.response_serializer
            )
        return grpc.stream_unary_rpc_method_handler(
            wrapped.answer, None, handler.response_serializer
        )


class _Method:
    """One method, wrapped. Requests are parsed in here, so that their errors are counted too."""

    def __init__(
        self, path: str, handler: Handler, receiver: Receiver, calls: Calls, admit: Admit | None
    ) -> None:
        self._path = path
        self._behavior = _behavior(handler)
        self._request_streaming = handler.request_streaming
        self._receiver = receiver
        self._calls = calls
        self._admit = admit

    async def answer(self, requests: Any, context: Context) -> Any:
        """Return the response of a method that has one."""
        with self._under_way(context) as call:
            try:
                place = self._receiver.enter(context)
                response = await self._behavior(await self._request(context, place), context)
                place.give_back(place.taken_bytes)
                place.answer(_size_bytes(response), _cancel_this_task())
                call.code = "OK"
                return response
            except Exception as error:  # noqa: BLE001  all errors of the method end here
                await self._fail(context, call, error)

    async def stream(self, requests: Any, context: Context) -> AsyncIterator[Any]:
        """Yield the responses of a method that streams them."""
        with self._under_way(context) as call:
            try:
                place = self._receiver.enter(context)
                async with aclosing(self._responses(context, place)) as responses:
                    async for response in responses:
                        yield response
                call.code = "OK"
            except Exception as error:  # noqa: BLE001  all errors of the method end here
                await self._fail(context, call, error)

    async def _request(self, context: Context, place: Place) -> Any:
        if self._admit is not None:
            self._admit(context)
        return await self._receiver.only(context, place)

    async def _responses(self, context: Context, place: Place) -> AsyncGenerator[Any, None]:
        """Yield the responses, and hold the memory of each while it is sent."""
        sizes: deque[int] = deque()
        # Closes generators at once; otherwise the garbage collector would, later.
        async with AsyncExitStack() as closing:
            request: Any
            if self._request_streaming:
                request = self._receiver.all(context, place, sizes, self._calls)
                await closing.enter_async_context(aclosing(request))
            else:
                request = await self._request(context, place)
            responses = self._behavior(request, context)
            if inspect.isawaitable(responses):  # writes to the context: Health.Watch
                # It lasts, and must not take the room of other checks; Health limits the number.
                place.held.release()
                await responses
                return
            await closing.enter_async_context(aclosing(responses))
            give_up = _cancel_this_task()
            async for response in responses:
                place.answer(_size_bytes(response), give_up)
                yield response
                place.answered()
                if sizes:  # each of several requests has one response
                    place.give_back(sizes.popleft())

    def _under_way(self, context: Context) -> AbstractContextManager[Call]:
        headers = dict(context.invocation_metadata() or ())
        request_id = request_id_of(headers.get(REQUEST_ID))
        context.set_trailing_metadata(((REQUEST_ID, request_id),))
        watched = not self._path.startswith(HEALTH)
        return self._calls.under_way(_LISTENER, self._path, request_id, headers, watched)

    async def _fail(self, context: Context, call: Call, error: Exception) -> None:
        """End a call with the status of an error."""
        call.code = _code_of(error, context)
        await _abort(context, error, self._path, call.request_id)


def rejecting(error: VisavisError) -> Handler:
    """Return a handler that ends any call with an error, without waiting for its message."""

    async def reject(requests: Any, context: Context) -> None:
        await _abort(context, error, "", secrets.token_hex(16))

    return grpc.stream_unary_rpc_method_handler(reject)


def _size_bytes(response: Any) -> int:
    """Return the size of a response in wire format, which it may already have."""
    size: int = len(response) if isinstance(response, bytes) else response.ByteSize()
    return size


def _cancel_this_task() -> Callable[[], object]:
    """Return a function that cancels the call that this task serves."""
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


def _code_of(error: Exception, context: Context) -> str:
    if isinstance(error, grpc.aio.AbortError):  # raised by the health service
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
