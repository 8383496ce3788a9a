"""One HTTP connection, with reloadable TLS and a timeout for the heads of requests."""

import asyncio
import time
from asyncio import sslproto
from collections.abc import Callable
from contextlib import suppress
from ssl import SSLContext
from typing import Any, Final

import h11
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from visavis_server.transport.pace import Pace

# asyncio takes a buffer for each connection before its handshake: with its own 256 KiB, 1,024
# silent ones would take 256 MiB. A record of TLS has at most 16 KiB.
sslproto.SSLProtocol.max_size = 32 << 10

# Handled at once, in a few milliseconds: the chunks of a body may have one byte each, and 256 KiB
# of those take half a second.
_EVENTS_AT_ONCE: Final = 128


class _Parser(h11.Connection):
    """h11's parser, which returns at most `left` events."""

    left = 0

    def next_event(self) -> Any:
        """Return the next event; uvicorn calls this."""
        if not self.left:
            return h11.NEED_DATA
        self.left -= 1
        return super().next_event()


class _Flow(FlowControl):
    """uvicorn's flow control; held: nothing more is read."""

    held = False

    def resume_reading(self) -> None:
        """Read again, unless held; uvicorn calls this."""
        if not self.held:
            super().resume_reading()


class Connection(H11Protocol):
    """uvicorn's protocol with timeouts; alone, it would wait forever for a request's head.

    tls: returns the TLS context; None: no TLS. head_timeout_s: for the TLS handshake, and for each
    request's head. answer_timeout_s: the time that a client may leave an answer unread. open_ones:
    the listener's open connections; most: their limit, silent ones included. pace: of all
    connections, for the parsing of what is left.
    """

    conn: _Parser
    flow: _Flow

    def __init__(
        self,
        *args: Any,
        tls: Callable[[], SSLContext] | None,
        head_timeout_s: float,
        answer_timeout_s: float,
        open_ones: "set[Connection]",
        most: int,
        pace: Pace,
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self.conn = _Parser(h11.SERVER, self.config.h11_max_incomplete_event_size or 0)
        self._pace = pace
        self._going_on: asyncio.Task[None] | None = None
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
            self._begin(transport)
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
        self._begin(secured)
        if self._early:
            self.data_received(bytes(self._early))

    def _begin(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers and forget the connection; asyncio calls this."""
        self._open_ones.discard(self)
        self._head_arrived()
        self._was_read()
        if self._going_on is not None:
            self._going_on.cancel()
        if self.transport is not None:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse received data; asyncio calls this."""
        if self.transport is None:  # connection_made has not run since the handshake
            self._early += data
            return
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()
        super().data_received(data)

    def handle_events(self) -> None:
        """Handle parsed requests and pieces of bodies, a few at once; uvicorn calls this."""
        if self._going_on is not None:
            return
        served = self.cycle
        self.conn.left = _EVENTS_AT_ONCE
        super().handle_events()
        if self.cycle is not served:
            self._head_arrived()
        if not self.conn.left and not self.transport.is_closing():
            # uvicorn must not read on meanwhile: the parser's buffer has no limit.
            self.transport.pause_reading()
            self.flow.read_paused = self.flow.held = True
            self._going_on = self.loop.create_task(self._go_on())

    async def _go_on(self) -> None:
        """Handle what is left, in an iteration of the loop that has time for it."""
        await asyncio.sleep(0)
        await self._pace.turn()
        began = time.perf_counter()
        self._going_on, self.flow.held = None, False
        self.handle_events()
        self._pace.spend(began)
        if self._going_on is None:
            self.flow.resume_reading()

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
