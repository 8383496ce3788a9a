"""Our RPCs over HTTP, as Connect and gRPC-Web: the service is the one that gRPC calls."""

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing
from typing import Any, Final

from connectrpc.code import Code
from connectrpc.errors import ConnectError, ErrorDetail
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.request import RequestContext
from connectrpc.server import ConnectASGIApplication, Endpoint
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.rpc import code_pb2
from protobuf.wkt import Any as Packed

from visavis_server.settings import MessageLimits
from visavis_server.transport.calls import REQUEST_ID, Call, Calls
from visavis_server.transport.http.message_codecs import (
    Apart,
    Binary,
    Json,
    Unread,
    Written,
    apart,
    read,
)
from visavis_server.transport.statuses import code_of, status_of

LISTENER: Final = "http"

# The flags and the length in front of a message of a stream, or of gRPC-Web.
_ENVELOPE_BYTES: Final = 5
# Larger messages are kept apart: connectrpc would copy them three times in the event loop.
_LARGE_BYTES: Final = 64 << 10

# Explanations for connectrpc's responses that have no body.
_BARE: Final = {
    404: "the service has no such method; its methods are {methods}",
    405: "the methods of this service require POST",
    415: "the content-type must be application/json or application/proto; for a stream, "
    "application/connect+json or +proto; for gRPC-Web, application/grpc-web+json or +proto",
}
_BODY_HEADERS: Final = (b"content-type", b"content-length")

_Method = Callable[..., Any]


class HttpContext:
    """The context of a call, for services."""

    def __init__(self, of: RequestContext[Any, Any]) -> None:
        self._of = of

    def time_remaining(self) -> float | None:
        """Return the seconds until the call's deadline; None: the call has no deadline."""
        ms = self._of.timeout_ms
        return None if ms is None else ms / 1e3


class ConnectService(ConnectASGIApplication[Any]):
    """One service of the contract as an ASGI application.

    service: has a method for each RPC, as gRPC's servicers do. limits: checked in each message
    before it is parsed. The size of messages is not checked here.
    """

    def __init__(
        self,
        descriptor: ServiceDescriptor,
        service: object,
        calls: Calls,
        limits: MessageLimits,
    ) -> None:
        self._descriptor = descriptor
        self._calls = calls
        super().__init__(
            service=service,
            endpoints=self._all_endpoints,
            read_max_bytes=None,
            # A small compressed message could become a large one.
            compressions=(),
            codecs=(Json(limits), Binary(limits)),
        )

    @property
    def path(self) -> str:
        """The prefix of its methods' paths."""
        return f"/{self._descriptor.full_name}"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a request whose body is one ASGI message; ASGI calls this."""
        apart.set(kept := Apart())
        # connectrpc fails for headers that are not UTF-8.
        headers = [
            (name, value.decode(errors="replace").encode()) for name, value in scope["headers"]
        ]

        async def receive_mark() -> Any:
            event = await receive()
            body = event.get("body", b"")
            length = int.from_bytes(body[1:_ENVELOPE_BYTES], "big")
            if len(body) > _LARGE_BYTES and length == len(body) - _ENVELOPE_BYTES:
                kept.mark = secrets.token_bytes(16)
                kept.message = memoryview(body)[_ENVELOPE_BYTES:]
                mark = body[:1] + len(kept.mark).to_bytes(4, "big") + kept.mark
                return {**event, "body": mark}
            return event

        await super().__call__({**scope, "headers": headers}, receive_mark, self._explained(send))

    def _explained(self, send: Any) -> Any:
        """Return a `send` that explains the responses of connectrpc that have no body."""
        start: Any = None

        async def send_explained(event: Any) -> None:
            nonlocal start
            if event["type"] == "http.response.start" and event["status"] in _BARE:
                start = event
                return
            if start is not None:
                if not event.get("body"):
                    methods = ", ".join(method.name for method in self._descriptor.methods)
                    why = _BARE[start["status"]].format(methods=methods)
                    event = {**event, "body": f"{why}\n".encode()}
                    others = [h for h in start["headers"] if h[0].lower() not in _BODY_HEADERS]
                    start = {**start, "headers": [*others, (b"content-type", b"text/plain")]}
                await send(start)
                start = None
            await send(event)

        return send_explained

    def _all_endpoints(self, service: object) -> Mapping[str, Any]:
        return {
            f"{self.path}/{method.name}": self._endpoint(method, getattr(service, method.name))
            for method in self._descriptor.methods
        }

    def _endpoint(self, method: MethodDescriptor, behavior: _Method) -> Any:
        path = f"{self.path}/{method.name}"

        def under_way(of: RequestContext[Any, Any]) -> AbstractContextManager[Call]:
            headers = of.request_headers
            return self._calls.under_way(LISTENER, path, headers[REQUEST_ID], headers)

        async def answer(request: Unread, of: RequestContext[Any, Any]) -> Written:
            with under_way(of) as call:
                try:
                    response: Message = await behavior(await read(request), HttpContext(of))
                    written = await request.codec.written(response)
                    call.code = "OK"
                    return written
                except Exception as error:  # noqa: BLE001  all errors of the method end here
                    raise _failed(call, error) from None

        async def stream(request: Unread, of: RequestContext[Any, Any]) -> AsyncIterator[Written]:
            with under_way(of) as call:
                try:
                    context = HttpContext(of)
                    async with aclosing(behavior(await read(request), context)) as responses:
                        async for response in responses:
                            yield await request.codec.written(response)
                    call.code = "OK"
                except Exception as error:  # noqa: BLE001  all errors of the method end here
                    raise _failed(call, error) from None

        info: MethodInfo[Any, Any] = MethodInfo(
            name=method.name,
            service_name=self._descriptor.full_name,
            input=message_factory.GetMessageClass(method.input_type),
            output=message_factory.GetMessageClass(method.output_type),
            idempotency_level=IdempotencyLevel.UNKNOWN,
            stream_type=StreamType.SERVER_STREAM if method.server_streaming else StreamType.UNARY,
        )
        if method.server_streaming:
            return Endpoint.server_stream(info, stream)
        return Endpoint.unary(info, answer)


def _failed(call: Call, error: Exception) -> ConnectError:
    """Return an error as Connect's, and note its code as the call's."""
    call.code = code_of(error)
    status = status_of(error, call.method, call.request_id)
    code = Code(code_pb2.Code.Name(status.code).lower())
    details = [ErrorDetail(Packed(type_url=d.type_url, value=d.value)) for d in status.details]
    return ConnectError(code, status.message, details)
