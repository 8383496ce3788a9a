"""HTTP/2 as no honest client speaks it, and a proxy between client and server that misbehaves."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions

METHOD = "/visavis.v1.VisionService/Classify"


class HungUp(Exception):
    """The server has ended the connection."""


class RawConnection:
    """One HTTP/2 connection, frame by frame; every method raises HungUp.

    where: a port of this machine, or the path of a Unix socket. tls: for a port named localhost.
    """

    def __init__(self, where: int | str, tls: ssl.SSLContext | None = None) -> None:
        if isinstance(where, int):
            self._socket = socket.create_connection(("127.0.0.1", where), timeout=2)
        else:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(where)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname="localhost")
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._http.initiate_connection()
        self.send()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def ping(self) -> None:
        """Ask whether the server lives."""
        self._http.ping(b"12345678")
        self.send()

    def send(self) -> None:
        """Send what has come together."""
        self._socket.settimeout(2)
        try:
            self._socket.sendall(self._http.data_to_send())
        except OSError as error:
            raise HungUp from error

    def open_call(
        self, metadata: Sequence[tuple[str, str | bytes]] = (), method: str | bytes = METHOD
    ) -> int:
        """Begin a call with its headers alone; return its stream."""
        stream = self._http.get_next_available_stream_id()
        self._http.send_headers(stream, [*self._headers(method), *metadata])
        self.send()
        return stream

    @staticmethod
    def _headers(method: str | bytes) -> list[tuple[str, str | bytes]]:
        return [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "127.0.0.1"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]

    @property
    def calls(self) -> int:
        """How many calls the server has not ended yet."""
        return int(self._http.open_outbound_streams)

    def stall(self, stream: int, size: int, patience: int = 20) -> None:
        """Send all of a message but its last byte, as far as the server lets it come."""
        with suppress(h2.exceptions.StreamClosedError):  # the server has ended the call
            self._stall(stream, size, patience)

    def _stall(self, stream: int, size: int, patience: int) -> None:
        prefix, left = b"\0" + size.to_bytes(4), 5 + size - 1
        while left and patience:
            window = min(
                left,
                self._http.local_flow_control_window(stream),
                self._http.max_outbound_frame_size,
            )
            if window > 0:
                self._http.send_data(stream, prefix[:window].ljust(window, b"\0"))
                prefix, left = prefix[window:], left - window
                self.send()
            # What lets more come may take a moment.
            patience -= not self.events(0.0 if window > 0 else 0.01) and window <= 0

    def reset(self, stream: int) -> None:
        """Take a call back."""
        self._http.reset_stream(stream)
        self.send()

    def reset_many(self, count: int) -> None:
        """Begin calls and take them back, all in one piece."""
        for _ in range(count):
            stream = self._http.get_next_available_stream_id()
            self._http.send_headers(stream, self._headers(METHOD))
            self._http.reset_stream(stream)
        self.send()

    def events(self, timeout_s: float) -> list[h2.events.Event]:
        """Return what the server has sent."""
        self._socket.settimeout(timeout_s)
        try:
            data = self._socket.recv(1 << 20)
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            return []
        except OSError as error:
            raise HungUp from error
        events = list(self._http.receive_data(data))
        if not data or any(isinstance(e, h2.events.ConnectionTerminated) for e in events):
            raise HungUp
        self.send()
        return events


class Proxy:
    """Hands bytes on between clients and a server, until it is told to misbehave.

    drip: one byte at a time. black_hole: takes everything and hands on nothing.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.drip = False
        self.black_hole = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.reset()
        self._server.close()

    def reset(self) -> None:
        """Break every connection with a reset."""
        for writer in self._writers:
            transport = writer.transport
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, out = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, out}
        try:
            await asyncio.gather(self._hand_on(reader, out), self._hand_on(onward, writer))
        except OSError:
            pass
        finally:
            for each in (writer, out):
                each.close()
            self._writers -= {writer, out}

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if self.black_hole:
                continue
            pieces = [data[i : i + 1] for i in range(len(data))] if self.drip else [data]
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                if self.drip:
                    await asyncio.sleep(0.005)
        writer.close()
