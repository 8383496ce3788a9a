"""How a service's methods are given to gRPC."""

from collections.abc import Mapping
from typing import Any, Final

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

_AS_GENERATED: Final[Mapping[str, Any]] = {}
_KINDS: Final = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def handlers_of(
    service: ServiceDescriptor, servicer: object, requests: Mapping[str, Any] = _AS_GENERATED
) -> "grpc.GenericRpcHandler[Any, Any]":
    """Return what gRPC serves; servicer: has a method for each of the service's.

    A method may return its response in wire form, where it can write that faster. requests: the
    classes that stand in for generated ones, by name of the message, as they read faster.

    What generated code does, but for one thing: it would register every method by itself, and
    grpc.aio waits for all that are registered anew with each call.
    """
    handlers = {
        method.name: _KINDS[method.client_streaming, method.server_streaming](
            getattr(servicer, method.name),
            requests.get(
                method.input_type.name, message_factory.GetMessageClass(method.input_type)
            ).FromString,
            _serialized,
        )
        for method in service.methods
    }
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _serialized(response: Message | bytes) -> bytes:
    return response if isinstance(response, bytes) else response.SerializeToString()
