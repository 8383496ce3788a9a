"""What holds for every call: errors become statuses with details, and a request id goes along."""

import asyncio
import inspect
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import grpc
import structlog
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from server.arrival import Arrival
from server.errors import InvalidRequest, Overloaded, Unavailable, VisavisError

_log = structlog.get_logger()
HEALTH = "/grpc.health.v1.Health/"
"""What the paths of its methods begin with."""

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
    the client as "internal error" with the request id. log_calls: whether each is logged.
    """

    def __init__(self, arrival: Arrival, log_calls: bool = False) -> None:
        self._arrival = arrival
        self._log_calls = log_calls
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
        watched = not method.startswith(HEALTH)
        if watched and self._stopping:
            return refusing(Unavailable("the server is stopping; try again elsewhere"))
        parse, behavior = handler.request_deserializer, _behavior(handler)
        request_id = _request_id(details)

        async def answer(requests: Any, context: Context) -> Any:
            call = self._begin(method, request_id, context, watched)
            try:
                request = _parse(parse, await self._arrival.message(context))
                response = await behavior(request, context)
                call.code = "OK"
                return response
            except Exception as error:  # noqa: BLE001  one of two places where all errors end
                await call.abort(context, error)
            finally:
                self._end(call)

        async def stream(requests: Any, context: Context) -> AsyncIterator[Any]:
            call = self._begin(method, request_id, context, watched)
            try:
                request = _parse(parse, await self._arrival.message(context))
                answers = behavior(request, context)
                if inspect.isawaitable(answers):  # it writes to the context, as Health.Watch does
                    await answers
                else:
                    async for response in answers:
                        yield response
                call.code = "OK"
            except Exception as error:  # noqa: BLE001  the other
                await call.abort(context, error)
            finally:
                self._end(call)

        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, None, handler.response_serializer)
        return grpc.stream_unary_rpc_method_handler(answer, None, handler.response_serializer)

    def _begin(self, method: str, request_id: str, context: Context, watched: bool) -> "_Call":
        context.set_trailing_metadata(((_REQUEST_ID, request_id),))
        self._under_way += watched
        return _Call(method, request_id, watched)

    def _end(self, call: "_Call") -> None:
        self._under_way -= call.watched
        if self._stopping and not self._under_way:
            self._none_under_way.set()
        if self._log_calls:
            ms = round((time.monotonic() - call.began) * 1e3, 1)
            _log.debug(
                "call", method=call.method, code=call.code, request_id=call.request_id, ms=ms
            )


@dataclass(slots=True)
class _Call:
    """One call; watched: whether the server waits for it before it ends."""

    method: str
    request_id: str
    watched: bool
    # Until it is known: a call that is cancelled tells nobody.
    code: str = "CANCELLED"
    began: float = field(default_factory=time.monotonic)

    async def abort(self, context: Context, error: Exception) -> None:
        """End the call with an error."""
        self.code = getattr(error, "code", "INTERNAL")
        await _abort(context, error, self.method, self.request_id)


def refusing(error: VisavisError) -> Handler:
    """Return a handler that ends any call with an error, without waiting for its message."""

    async def refuse(requests: Any, context: Context) -> None:
        await _abort(context, error, "", secrets.token_hex(16))

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
    return secrets.token_hex(16)


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
