"""Our RPCs over HTTP: Connect and gRPC-Web, in JSON or binary, by the service that gRPC calls."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

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

from server.calls import REQUEST_ID, Calls
from server.errors import InvalidRequest
from server.statuses import code_of, status_of

DOOR: Final = "http"

# JSON of more bytes is not read in the loop, which must go on for everybody else.
_LARGE_JSON_BYTES: Final = 128 << 10

_Method = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class _Unread:
    """A message that is still to be read: what is wrong with it is the call's error."""

    read: Callable[[], Message]
    takes_long: bool = False


class Context:
    """What a service asks of a call."""

    def __init__(self, of: RequestContext[Any, Any]) -> None:
        self._of = of

    def time_remaining(self) -> float | None:
        """Return how many seconds the caller still waits; None: as long as it takes."""
        ms = self._of.timeout_ms
        return None if ms is None else ms / 1e3


class _Json:
    """Protobuf's JSON, zero values included; a field that doesn't exist is an error."""

    def name(self) -> str:
        return "json"

    def encode(self, message: Message) -> bytes:
        text = json_format.MessageToJson(
            message, always_print_fields_with_no_presence=True, indent=None, ensure_ascii=False
        )
        return text.encode()

    def decode(self, data: bytes | bytearray, message_class: type[Message]) -> _Unread:
        read = partial(json_format.Parse, bytes(data), message_class())
        return _Unread(read, len(data) > _LARGE_JSON_BYTES)


class _Binary:
    """Protobuf's own form."""

    def name(self) -> str:
        return "proto"

    def encode(self, message: Message) -> bytes:
        return message.SerializeToString()

    def decode(self, data: bytes | bytearray, message_class: type[Message]) -> _Unread:
        return _Unread(partial(message_class.FromString, bytes(data)))


class ConnectService(ConnectASGIApplication[Any]):
    """One service of the contract as an ASGI application.

    service: has a method for each RPC, as gRPC's servicers do. Messages must have been let in:
    their size is not looked at here.
    """

    def __init__(self, descriptor: ServiceDescriptor, service: object, calls: Calls) -> None:
        self._descriptor = descriptor
        self._calls = calls
        super().__init__(
            service=service,
            endpoints=self._all_endpoints,
            read_max_bytes=None,
            # A small message could become a large one.
            compressions=(),
            codecs=(_Json(), _Binary()),
        )

    @property
    def path(self) -> str:
        """What the paths of its methods begin with."""
        return f"/{self._descriptor.full_name}"

    def _all_endpoints(self, service: object) -> Mapping[str, Any]:
        return {
            f"{self.path}/{method.name}": self._endpoint(method, getattr(service, method.name))
            for method in self._descriptor.methods
        }

    def _endpoint(self, method: MethodDescriptor, behavior: _Method) -> Any:
        path = f"{self.path}/{method.name}"

        async def answer(request: _Unread, of: RequestContext[Any, Any]) -> Message:
            request_id = of.request_headers[REQUEST_ID]
            with self._calls.under_way(DOOR, path, request_id, of.request_headers) as call:
                try:
                    response: Message = await behavior(await _read(request), Context(of))
                    call.code = "OK"
                    return response
                except Exception as error:  # noqa: BLE001  where all of them end
                    call.code = code_of(error)
                    raise _connect_error(status_of(error, path, request_id)) from None

        async def stream(request: _Unread, of: RequestContext[Any, Any]) -> AsyncIterator[Message]:
            request_id = of.request_headers[REQUEST_ID]
            with self._calls.under_way(DOOR, path, request_id, of.request_headers) as call:
                try:
                    async for response in behavior(await _read(request), Context(of)):
                        yield response
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
        why = " ".join(str(error).split())
        raise InvalidRequest(
            "request", f"the request is no message of the method's type: {why}"
        ) from None


def _connect_error(status: status_pb2.Status) -> ConnectError:
    code = Code(code_pb2.Code.Name(status.code).lower())
    details = [ErrorDetail(Packed(type_url=d.type_url, value=d.value)) for d in status.details]
    return ConnectError(code, status.message, details)
