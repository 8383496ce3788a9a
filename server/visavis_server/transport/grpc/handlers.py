"""A service's methods as gRPC's handlers."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

# Quoted: only the stubs have type parameters.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Details = grpc.HandlerCallDetails
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

HEALTH: Final = "/grpc.health.v1.Health/"
"""The prefix of the health service's method paths."""

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
    """Return a handler for all methods of a service.

    servicer: has a method for each of the service's; it may return a response in wire format.
    requests: classes that replace the generated ones, by message name.

    Unlike generated code, this registers no method by itself: grpc.aio waits for each registered
    method anew with every call.
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
