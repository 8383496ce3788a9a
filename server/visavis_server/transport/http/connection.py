"""One HTTP connection, with reloadable TLS and a timeout for the heads of requests."""

import asyncio
from asyncio import sslproto
from collections.abc import Callable
from contextlib import suppress
from ssl import SSLContext
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

# asyncio takes a buffer for each connection before its handshake: with its own 256 KiB, 1,024
# silent ones would take 256 MiB. A record of TLS has at most 16 KiB.
sslproto.SSLProtocol.max_size = 32 << 10


class Connection(H11Protocol):
    """uvicorn's protocol with timeouts; alone, it would wait forever for a request's head.

    tls: returns the TLS context; None: no TLS. head_timeout_s: for the TLS handshake, and for each
    request's head. answer_timeout_s: the time that a client may leave an answer unread. open_ones:
    the listener's open connections; most: their limit, silent ones included.
    """

    def __init__(
        self,
        *args: Any,
        tls: Callable[[], SSLContext] | None,
        head_timeout_s: float,
        answer_timeout_s: float,
        open_ones: "set[Connection]",
        most: int,
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self._open_ones = open_ones
        self._most = most
        self._tls = tls
        self._head_timeout_s = head_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._early = bytearray()
        self._securing: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the TLS handshake, or wait for a request; asyncio calls this."""
        if len(self._open_ones) >= self._most:
            transport.abort()
            return
        self._open_ones.add(self)
        if self._tls is None:
            super().connection_made(transport)
            self._expect_head()
        else:
            self._securing = self.loop.create_task(self._secure(transport, self._tls()))

    async def _secure(self, transport: asyncio.Transport, tls: SSLContext) -> None:
        secured = None
        with suppress(OSError, TimeoutError):  # ssl.SSLError is an OSError
            secured = await self.loop.start_tls(
                transport, self, tls, server_side=True, ssl_handshake_timeout=self._head_timeout_s
            )
        if secured is None:
            self._open_ones.discard(self)  # asyncio does not call connection_lost
            transport.abort()
            return
        super().connection_made(secured)
        self._expect_head()
        if self._early:
            self.data_received(bytes(self._early))

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers and forget the connection; asyncio calls this."""
        self._open_ones.discard(self)
        self._head_arrived()
        self._was_read()
        if self.transport is not None:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse received data; asyncio calls this."""
        if self.transport is None:  # connection_made has not run since the handshake
            self._early += data
            return
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()
        served = self.cycle
        super().data_received(data)
        if self.cycle is not served:
            self._head_arrived()

    def on_response_complete(self) -> None:
        """Continue with the next request; uvicorn calls this."""
        super().on_response_complete()
        # The beginning of the next request may be in the buffer already.
        if self.cycle.response_complete and self.conn.trailing_data[0] and self._timer is None:
            self._expect_head()

    def pause_writing(self) -> None:
        """Start the timeout for the client to read the answer; asyncio calls this."""
        super().pause_writing()
        self._unread = self.loop.call_later(self._answer_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the timeout: the client has read most of the answer; asyncio calls this."""
        super().resume_writing()
        self._was_read()

    def _was_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _expect_head(self) -> None:
        self._timer = self.loop.call_later(self._head_timeout_s, self._give_up)

    def _head_arrived(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        self.transport.abort()
