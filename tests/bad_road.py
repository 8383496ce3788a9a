"""What lies between a client and its server on a bad day: connections that break, large answers."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import grpc

# A field that no message has: number 15, of bytes.
_UNKNOWN_FIELD = b"\x7a"
_CHUNK_BYTES = 65_536


class Forwarder(grpc.GenericRpcHandler):
    """Passes calls on to a server.

    padding_bytes: what the answer of ListModels is longer by, in a field that clients skip.
    refused: methods whose first call is UNAVAILABLE.
    """

    def __init__(self, channel: grpc.Channel, padding_bytes: int, *refused: str) -> None:
        self._channel = channel
        self._padding = _UNKNOWN_FIELD + _varint(padding_bytes) + bytes(padding_bytes)
        self._refused = set(refused)

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a call; gRPC calls this."""
        path: str = details.method  # type: ignore[attr-defined]  # the stubs lack it
        method = path.rpartition("/")[2]

        def answers(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            if method in self._refused:
                self._refused.remove(method)
                context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
            metadata = [pair for pair in context.invocation_metadata() if pair[0][0] != ":"]
            call = self._channel.unary_stream(path)(
                request, timeout=context.time_remaining(), metadata=metadata
            )
            try:
                for answer in call:
                    yield answer + (self._padding if method == "ListModels" else b"")
            except grpc.RpcError as error:
                context.set_trailing_metadata(call.trailing_metadata())
                context.abort(error.code(), error.details())

        return grpc.unary_stream_rpc_method_handler(answers)


@contextmanager
def forwarding(server: str, padding_bytes: int, *refused: str) -> Iterator[str]:
    """Give the address of a Forwarder to a server."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with ThreadPoolExecutor(8) as threads, grpc.insecure_channel(server, options) as channel:
        front = grpc.server(threads, options=options)
        front.add_generic_rpc_handlers((Forwarder(channel, padding_bytes, *refused),))
        port = front.add_insecure_port("127.0.0.1:0")
        front.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            front.stop(None).wait()


@contextmanager
def breaking(address: str, after_bytes: int) -> Iterator[tuple[str, Callable[[], int]]]:
    """Give an address that leads to another, and how many connections there were.

    The first connection breaks once a client has sent so much over it.
    """
    host, _, port = address.rpartition(":")
    connections = 0

    def carry(source: socket.socket, target: socket.socket, most_bytes: float) -> None:
        with suppress(OSError):
            while most_bytes > 0 and (data := source.recv(_CHUNK_BYTES)):
                target.sendall(data)
                most_bytes -= len(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept(listening: socket.socket, threads: ThreadPoolExecutor) -> None:
        nonlocal connections
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.create_connection((host, int(port)))
                threads.submit(carry, server, client, float("inf"))
                most_bytes = float("inf") if connections else after_bytes
                threads.submit(carry, client, server, most_bytes)
                ends.extend((client, server))
                connections += 1

    ends: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(64) as threads:
        accepting = threading.Thread(target=accept, args=(listening, threads))
        accepting.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}", lambda: connections
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for end in ends:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*encoded, number))
