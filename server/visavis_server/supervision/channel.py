"""Messages between the supervisor and a worker: lines of JSON over a pair of sockets."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Self

import structlog

_log = structlog.get_logger()

# The metrics of a worker with many models are the largest message.
_MOST_LINE_BYTES: Final = 64 << 20

Handler = Callable[..., Awaitable[Any]]
Handlers = Mapping[str, Handler]
"""By the name of the message; called with its arguments. The result must be JSON."""


class Closed(Exception):
    """The other end has gone, or does not answer."""


class Channel:
    """One end. Each end can tell the other something, and ask it something."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handlers: Handlers
    ) -> None:
        self._reader, self._writer, self._handlers = reader, writer, handlers
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._last_id = 0
        self._handling: set[asyncio.Task[None]] = set()

    @classmethod
    async def over(cls, end: socket.socket, handlers: Handlers) -> Self:
        """Return the channel over one end of a socket pair, which it closes."""
        streams = await asyncio.open_unix_connection(sock=end, limit=_MOST_LINE_BYTES)
        return cls(*streams, handlers)

    async def run(self) -> None:
        """Handle messages until the other end closes; then cancel what is being handled."""
        try:
            # Anything but a message is from a process whose memory is damaged.
            with suppress(ConnectionError, ValueError, LookupError, TypeError):
                while line := await self._reader.readline():
                    self._take(json.loads(line))
        finally:
            self._writer.close()
            for task in self._handling:
                task.cancel()
            for asked in self._asked.values():
                if not asked.done():
                    asked.set_exception(Closed("the other process has ended"))
                    asked.exception()  # its caller may have left

    def tell(self, name: str, /, **arguments: Any) -> None:
        """Send a message that has no answer; if the other end has gone, it is lost."""
        self._send({"name": name, "arguments": arguments})

    async def ask(self, name: str, timeout_s: float | None = None, /, **arguments: Any) -> Any:
        """Send a message, and return its answer; raises Closed if none comes."""
        if self._writer.is_closing():
            raise Closed("the other process has ended")
        self._last_id += 1
        number = self._last_id
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        self._send({"name": name, "arguments": arguments, "id": number})
        try:
            async with asyncio.timeout(timeout_s):
                return await asked
        except TimeoutError:
            raise Closed(f"no answer within {timeout_s:g} s") from None
        finally:
            del self._asked[number]

    def _send(self, message: dict[str, Any]) -> None:
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    def _take(self, message: dict[str, Any]) -> None:
        if "name" in message:
            task = asyncio.create_task(self._handle(message))
            self._handling.add(task)
            task.add_done_callback(self._handling.discard)
        elif (asked := self._asked.get(message["id"])) is not None and not asked.done():
            asked.set_result(message["answer"])

    async def _handle(self, message: dict[str, Any]) -> None:
        try:
            answer = await self._handlers[message["name"]](**message["arguments"])
        except Closed:
            answer = None
        except Exception:  # noqa: BLE001  one message must not end the others
            _log.exception("a message between processes failed", name=message["name"])
            answer = None
        if "id" in message:
            self._send({"id": message["id"], "answer": answer})
