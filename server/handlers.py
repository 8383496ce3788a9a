"""How a service's methods are given to gRPC."""

from typing import Any, Final

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor

_KINDS: Final = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def handlers_of(service: ServiceDescriptor, servicer: object) -> "grpc.GenericRpcHandler[Any, Any]":
    """Return what gRPC serves; servicer: has a method for each of the service's.

    What generated code does, but for one thing: it would register every method by itself, and
    grpc.aio waits for all that are registered anew with each call.
    """
    handlers = {
        method.name: _KINDS[method.client_streaming, method.server_streaming](
            getattr(servicer, method.name),
            message_factory.GetMessageClass(method.input_type).FromString,
            message_factory.GetMessageClass(method.output_type).SerializeToString,
        )
        for method in service.methods
    }
    return grpc.method_handlers_generic_handler(service.full_name, handlers)
