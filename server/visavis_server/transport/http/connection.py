"""One HTTP connection: TLS as the files are then, and a limited time for the heads of requests."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from ssl import SSLContext
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """uvicorn's, which by itself would wait for ever for the rest of a request's head.

    tls: returns how the connection is to be secured; None: not at all. head_timeout_s: that a
    connection has to be secured, and each request's head to arrive once it has begun.
    answer_timeout_s: how long a client may leave an answer untaken. open_ones: the door's
    connections; most: how many it takes, silent ones included.
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
        self._untaken: asyncio.TimerHandle | None = None
        self._early = bytearray()
        self._securing: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Secure the connection, if it is to be; asyncio calls this."""
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
            self._open_ones.discard(self)  # asyncio tells nobody that this one is lost
            transport.abort()
            return
        super().connection_made(secured)
        self._expect_head()
        if self._early:
            self.data_received(bytes(self._early))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; asyncio calls this."""
        self._open_ones.discard(self)
        self._head_arrived()
        self._taken()
        if self.transport is not None:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what has come; asyncio calls this."""
        if self.transport is None:  # secured only just now
            self._early += data
            return
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()
        served = self.cycle
        super().data_received(data)
        if self.cycle is not served:
            self._head_arrived()

    def on_response_complete(self) -> None:
        """Go on to the next request; uvicorn calls this."""
        super().on_response_complete()
        # Of that one, the beginning may have come already.
        if self.cycle.response_complete and self.conn.trailing_data[0] and self._timer is None:
            self._expect_head()

    def pause_writing(self) -> None:
        """Give the client time to take what was sent; asyncio calls this."""
        super().pause_writing()
        self._untaken = self.loop.call_later(self._answer_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: little is left of what was sent; asyncio calls this."""
        super().resume_writing()
        self._taken()

    def _taken(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None

    def _expect_head(self) -> None:
        self._timer = self.loop.call_later(self._head_timeout_s, self._give_up)

    def _head_arrived(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        self.transport.abort()
