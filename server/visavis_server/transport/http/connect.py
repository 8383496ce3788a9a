"""Our RPCs over HTTP: Connect and gRPC-Web, in JSON or binary, by the service that gRPC calls."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from connectrpc.code import Code
from connectrpc.errors import ConnectError, ErrorDetail
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.request import RequestContext
from connectrpc.server import ConnectASGIApplication, Endpoint
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, status_pb2
from protobuf.wkt import Any as Packed

from visavis_server.errors import InvalidRequest
from visavis_server.settings import MessageLimits
from visavis_server.transport import json_message
from visavis_server.transport.calls import REQUEST_ID, Calls
from visavis_server.transport.statuses import code_of, status_of
from visavis_server.transport.wire import require_few_fields

DOOR: Final = "http"

# JSON of more bytes is read and written in a thread. protobuf's JSON is plain Python and takes some
# 3 µs a field.
_SMALL_JSON_BYTES: Final = 4 << 10
# What surrounds a message of a stream, or of gRPC-Web: flags, and its length.
_ENVELOPE_BYTES: Final = 5
# Larger messages are kept apart: connectrpc copies them three times in a row, in the loop.
_LARGE_BYTES: Final = 64 << 10

# json_format's errors quote the whole value.
_LONGEST_REASON: Final = 512

# Connect's own refusals, which have no body.
_BARE: Final = {
    404: "there is no such method; there are {methods}",
    405: "the methods of this service are called by POST",
    415: "the content-type must be application/json or application/proto, application/connect+json "
    "or +proto for a stream, application/grpc-web+json or +proto for gRPC-Web",
}
_OF_A_BODY: Final = (b"content-type", b"content-length")

# What protobuf and Python say of JSON, and what people say.
_PHRASES: Final = (
    (r"Failed to load JSON: ", "it is no JSON: "),
    (
        r'Message type "(?:\w+\.)*(\w+)" has no field named "(.*?)"(?: at "[^"]*")?\.?\s*'
        r"Available Fields\(except extensions\): \"\[(.*?)\]\"",
        r"\1 has no field '\2'; it has \3",
    ),
    (r"Failed to parse (\w+) field: ", r"\1: "),
    (r"invalid literal for int\(\) with base 10: ('.*?')", r"\1 is no whole number"),
    (r"Couldn't parse (\w+): ", r"no \1: "),
    (r"expected string or bytes-like object, got '(\w+)'", r"text is needed, not a value of \1"),
)

_Method = Callable[..., Any]


class _Codec(Protocol):
    """How messages are written."""

    async def written(self, message: Message) -> "_Written":
        """Return a message as it is sent."""
        ...


@dataclass(frozen=True, slots=True)
class _Unread:
    """A message that is still to be read: what is wrong with it is the call's error."""

    read: Callable[[], Message]
    codec: _Codec
    takes_long: bool = False


@dataclass(frozen=True, slots=True)
class _Written:
    """A message as it is sent."""

    data: bytes


@dataclass(slots=True)
class _Apart:
    """The large message of a request, kept apart; mark: what stands in its place."""

    mark: bytes = b""
    message: bytes | memoryview = b""


_apart: ContextVar[_Apart] = ContextVar("apart")


class HttpContext:
    """What a service asks of a call."""

    def __init__(self, of: RequestContext[Any, Any]) -> None:
        self._of = of

    def time_remaining(self) -> float | None:
        """Return how many seconds the caller still waits; None: as long as it takes."""
        ms = self._of.timeout_ms
        return None if ms is None else ms / 1e3


class _Json:
    """Protobuf's JSON, zero values included; a field that doesn't exist is an error."""

    def __init__(self, limits: MessageLimits) -> None:
        self._limits = limits

    def name(self) -> str:
        return "json"

    def encode(self, message: _Written) -> bytes:
        return message.data

    def decode(self, data: bytes | bytearray, message_class: type[Message]) -> _Unread:
        data = _whole(data)
        read = partial(json_message.read, data, message_class, self._limits)
        return _Unread(read, self, takes_long=len(data) > _SMALL_JSON_BYTES)

    async def written(self, message: Message) -> _Written:
        if message.ByteSize() > _SMALL_JSON_BYTES:
            return _Written(await asyncio.to_thread(json_message.write, message))
        return _Written(json_message.write(message))


class _Binary:
    """Protobuf's own form."""

    def __init__(self, limits: MessageLimits) -> None:
        self._limits = limits

    def name(self) -> str:
        return "proto"

    def encode(self, message: _Written) -> bytes:
        return message.data

    def decode(self, data: bytes | bytearray, message_class: type[Message]) -> _Unread:
        data = _whole(data)

        def read() -> Message:
            require_few_fields(data, message_class, self._limits)
            return message_class.FromString(data)

        return _Unread(read, self)

    async def written(self, message: Message) -> _Written:
        return _Written(message.SerializeToString())


def _whole(data: bytes | bytearray) -> bytes:
    """Return a message, the one that was kept apart in place of its mark."""
    apart = _apart.get()
    if not (apart.mark and data == apart.mark):
        return bytes(data)
    message, apart.message = apart.message, b""  # Not kept for as long as the call lasts.
    return bytes(message)


class ConnectService(ConnectASGIApplication[Any]):
    """One service of the contract as an ASGI application.

    service: has a method for each RPC, as gRPC's servicers do. Messages must have been let in:
    their size is not looked at here. limits: what is counted in each before it is parsed.
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
            # A small message could become a large one.
            compressions=(),
            codecs=(_Json(limits), _Binary(limits)),
        )

    @property
    def path(self) -> str:
        """What the paths of its methods begin with."""
        return f"/{self._descriptor.full_name}"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, whose body comes in one message; ASGI calls this."""
        _apart.set(apart := _Apart())

        async def receive_mark() -> Any:
            event = await receive()
            body = event.get("body", b"")
            length = int.from_bytes(body[1:_ENVELOPE_BYTES], "big")
            if len(body) > _LARGE_BYTES and length == len(body) - _ENVELOPE_BYTES:
                apart.mark = secrets.token_bytes(16)
                apart.message = memoryview(body)[_ENVELOPE_BYTES:]
                mark = body[:1] + len(apart.mark).to_bytes(4, "big") + apart.mark
                return {**event, "body": mark}
            return event

        await super().__call__(scope, receive_mark, self._explained(send))

    def _explained(self, send: Any) -> Any:
        """Return what sends an answer, with a sentence where connectrpc gives a bare status."""
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
                    kept = [h for h in start["headers"] if h[0].lower() not in _OF_A_BODY]
                    start = {**start, "headers": [*kept, (b"content-type", b"text/plain")]}
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

        async def answer(request: _Unread, of: RequestContext[Any, Any]) -> _Written:
            request_id = of.request_headers[REQUEST_ID]
            with self._calls.under_way(DOOR, path, request_id, of.request_headers) as call:
                try:
                    response: Message = await behavior(await _read(request), HttpContext(of))
                    written = await request.codec.written(response)
                    call.code = "OK"
                    return written
                except Exception as error:  # noqa: BLE001  where all of them end
                    call.code = code_of(error)
                    raise _connect_error(status_of(error, path, request_id)) from None

        async def stream(request: _Unread, of: RequestContext[Any, Any]) -> AsyncIterator[_Written]:
            request_id = of.request_headers[REQUEST_ID]
            with self._calls.under_way(DOOR, path, request_id, of.request_headers) as call:
                try:
                    async with aclosing(
                        behavior(await _read(request), HttpContext(of))
                    ) as responses:
                        async for response in responses:
                            yield await request.codec.written(response)
                    call.code = "OK"
                except Exception as error:  # noqa: BLE001  where all of them end
                    call.code = code_of(error)
                    raise _connect_error(status_of(error, path, request_id)) from None

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


async def _read(request: _Unread) -> Message:
    try:
        return await asyncio.to_thread(request.read) if request.takes_long else request.read()
    except (DecodeError, json_format.ParseError, ValueError, RecursionError) as error:
        why = " ".join(str(error)[:_LONGEST_REASON].split())
        for pattern, phrase in _PHRASES:
            why = re.sub(pattern, phrase, why)
        raise InvalidRequest(
            "request", f"the request is no message of the method's type: {why}"
        ) from None


def _connect_error(status: status_pb2.Status) -> ConnectError:
    code = Code(code_pb2.Code.Name(status.code).lower())
    details = [ErrorDetail(Packed(type_url=d.type_url, value=d.value)) for d in status.details]
    return ConnectError(code, status.message, details)
