"""`python -m tests.benchmark.echo [BYTES]`: a gRPC server that does nothing.

It shows what the transport costs: it takes any call, answers with nothing, or with so many bytes,
and prints its address once it listens. With large answers memory is what costs: then it treats
that as the server does.
"""

import asyncio
import sys
from typing import Any

import grpc

from visavis_server.runtime import memory

_LARGEST_MESSAGE = 80_000_000


class _Anything(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # only stubs know
    def __init__(self, answer_bytes: int) -> None:
        self._answer = bytes(answer_bytes)

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._echo)

    async def _echo(self, data: bytes, context: Any) -> bytes:
        return self._answer


async def main(answer_bytes: int) -> None:
    """Serve until killed."""
    if answer_bytes:
        memory.keep_little()
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", _LARGEST_MESSAGE)])
    server.add_generic_rpc_handlers((_Anything(answer_bytes),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
