"""A gRPC server whose methods are functions of bytes, for peers that answer as no server would."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

Answer = Callable[[bytes, grpc.ServicerContext], bytes]
"""Returns the response to a request, both in wire format."""


@contextmanager
def answering(service: str, methods: Mapping[str, Answer]) -> Iterator[str]:
    """Run a server that has these methods of one service and nothing else; yields its address."""
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(answer) for name, answer in methods.items()
    }
    unlimited = [("grpc.max_send_message_length", -1)]
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, options=unlimited)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()
