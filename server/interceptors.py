"""What holds for every call: errors become statuses with details, and a request id goes along."""

import inspect
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias, cast

import grpc
import structlog
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from server.errors import InvalidRequest, Overloaded, VisavisError

_log = structlog.get_logger()
_REQUEST_ID = "x-request-id"
_MAX_MESSAGE_LENGTH = 512

# Quoted: only the stubs know their parameters.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Details = grpc.HandlerCallDetails
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Errors(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # as above
    """Turns every error of a handler into a status, once, here.

    An expected one keeps its text and names its field. Any other is logged in full and
    reaches the client as "internal error" with the request id.
    """

    async def intercept_service(
        self, continuation: Callable[[Details], Awaitable[Handler]], details: Details
    ) -> Handler:
        """Return the handler, wrapped; requests are parsed inside: those errors count too."""
        handler = await continuation(details)
        if handler is None or handler.request_streaming:
            return handler
        method: str = details.method
        parse, behavior = handler.request_deserializer, _behavior(handler)

        async def answer(data: bytes, context: Context) -> Any:
            request_id = _new_request_id(context)
            try:
                return await behavior(_parse(parse, data), context)
            except Exception as error:  # noqa: BLE001  the one place where all errors end
                await _abort(context, error, method, request_id)

        async def stream(data: bytes, context: Context) -> AsyncIterator[Any]:
            request_id = _new_request_id(context)
            try:
                answers = behavior(_parse(parse, data), context)
                if inspect.isawaitable(answers):  # it writes to the context, as Health.Watch does
                    await answers
                    return
                async for response in answers:
                    yield response
            except Exception as error:  # noqa: BLE001  the one place where all errors end
                await _abort(context, error, method, request_id)

        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, None, handler.response_serializer)
        return grpc.unary_unary_rpc_method_handler(answer, None, handler.response_serializer)


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


def _new_request_id(context: Context) -> str:
    request_id = uuid.uuid4().hex
    context.set_trailing_metadata(((_REQUEST_ID, request_id),))
    return request_id


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
