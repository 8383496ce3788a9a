"""What holds for every call: errors become statuses with details, and a request id goes along."""

import asyncio
import inspect
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, cast

import grpc
import structlog
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from server.arrival import Arrival
from server.errors import InvalidRequest, Overloaded, Unavailable, VisavisError

_log = structlog.get_logger()
_HEALTH = "/grpc.health.v1.Health/"
_REQUEST_ID = "x-request-id"
_GOOD_ID = re.compile(r"[0-9A-Za-z._-]{1,64}")
_MAX_MESSAGE_LENGTH = 512

# Quoted: only the stubs know their parameters.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Details = grpc.HandlerCallDetails
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Calls(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # as above
    """Takes each call from its headers to its status.

    Its request arrives as `Arrival` lets it. Every error becomes a status, once, here: an
    expected one keeps its text and names its field; any other is logged in full and reaches
    the client as "internal error" with the request id.
    """

    def __init__(self, arrival: Arrival) -> None:
        self._arrival = arrival
        self._under_way = 0
        self._stopping = False
        self._none_under_way = asyncio.Event()

    async def finish(self) -> None:
        """Refuse new calls from now on; return when those under way have ended."""
        self._stopping = True
        if self._under_way:
            await self._none_under_way.wait()

    async def intercept_service(
        self, continuation: Callable[[Details], Awaitable[Handler]], details: Details
    ) -> Handler:
        """Return the handler, wrapped; requests are parsed inside: those errors count too.

        As seen from here every request is a stream of one message, which is the same on the
        wire: so a call can be refused, or told to wait, before its message is taken in.
        """
        handler = await continuation(details)
        if handler is None or handler.request_streaming:
            return handler
        method: str = details.method
        watched = not method.startswith(_HEALTH)
        if watched and self._stopping:
            return refusing(Unavailable("the server is stopping; try again elsewhere"))
        parse, behavior = handler.request_deserializer, _behavior(handler)
        request_id = _request_id(details)

        async def answer(requests: Any, context: Context) -> Any:
            async with self._call(method, request_id, context, watched):
                return await behavior(_parse(parse, await self._arrival.message(context)), context)

        async def stream(requests: Any, context: Context) -> AsyncIterator[Any]:
            async with self._call(method, request_id, context, watched):
                request = _parse(parse, await self._arrival.message(context))
                answers = behavior(request, context)
                if inspect.isawaitable(answers):  # it writes to the context, as Health.Watch does
                    await answers
                    return
                async for response in answers:
                    yield response

        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, None, handler.response_serializer)
        return grpc.stream_unary_rpc_method_handler(answer, None, handler.response_serializer)

    @asynccontextmanager
    async def _call(
        self, method: str, request_id: str, context: Context, watched: bool
    ) -> AsyncIterator[None]:
        started = time.monotonic()
        context.set_trailing_metadata(((_REQUEST_ID, request_id),))
        structlog.contextvars.bind_contextvars(request_id=request_id)
        self._under_way += watched
        code = "OK"
        try:
            yield
        except Exception as error:  # noqa: BLE001  the one place where all errors end
            code = getattr(error, "code", "INTERNAL")
            await _abort(context, error, method, request_id)
        except BaseException:
            code = "CANCELLED"
            raise
        finally:
            self._under_way -= watched
            if self._stopping and not self._under_way:
                self._none_under_way.set()
            _log.debug(
                "call", method=method, code=code, ms=round((time.monotonic() - started) * 1e3, 1)
            )


def refusing(error: VisavisError) -> Handler:
    """Return a handler that ends any call with an error, without waiting for its message."""

    async def refuse(requests: Any, context: Context) -> None:
        await _abort(context, error, "", uuid.uuid4().hex)

    return grpc.stream_unary_rpc_method_handler(refuse)


def _behavior(handler: Handler) -> Callable[..., Any]:
    behavior = handler.unary_stream if handler.response_streaming else handler.unary_unary
    return cast(Callable[..., Any], behavior)  # grpc types it for synchronous servers


def _parse(parse: Callable[[bytes], Any] | None, data: bytes) -> Any:
    if parse is None:
        return data
    try:
        return parse(data)
    except (DecodeError, ValueError):
        raise InvalidRequest("request", "the request is no message of the method's type") from None


def _request_id(details: Details) -> str:
    """Return the id that the client gave, if it is one that can be logged, or a new one."""
    for key, value in details.invocation_metadata:
        if key == _REQUEST_ID and isinstance(value, str) and _GOOD_ID.fullmatch(value):
            return value
    return uuid.uuid4().hex


async def _abort(context: Context, error: Exception, method: str, request_id: str) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, VisavisError):
        code, message = grpc.StatusCode[error.code], str(error)
    else:
        code, message = (
            grpc.StatusCode.INTERNAL,
            f"internal error; request {request_id}",
        )
        _log.error("call failed", method=method, request_id=request_id, exc_info=error)
    message = message[:_MAX_MESSAGE_LENGTH]
    status = status_pb2.Status(code=code.value[0], message=message)
    status.details.add().Pack(error_details_pb2.RequestInfo(request_id=request_id))
    if isinstance(error, VisavisError) and error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=message
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, Overloaded):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1e3))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    trailing = (
        (_REQUEST_ID, request_id),
        ("grpc-status-details-bin", status.SerializeToString()),
    )
    await context.abort(code, message, trailing_metadata=trailing)
