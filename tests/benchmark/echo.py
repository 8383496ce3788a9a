"""`python -m tests.benchmark.echo`: a gRPC server that does nothing: what the transport costs.

It takes any call, answers with nothing, and prints its address once it listens.
"""

import asyncio
from typing import Any

import grpc

_LARGEST_MESSAGE = 80_000_000


class _Anything(grpc.GenericRpcHandler):
    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(_nothing)


async def _nothing(data: bytes, context: Any) -> bytes:
    return b""


async def main() -> None:
    """Serve until killed."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", _LARGEST_MESSAGE)])
    server.add_generic_rpc_handlers((_Anything(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
