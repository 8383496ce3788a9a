"""How messages arrive: within a time, so many at once, so that stalled ones hold up nobody else."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from server.errors import DeadlineExceeded

Message = TypeVar("Message")


@dataclass(slots=True)
class _Connection:
    """Of one connection: how many of its messages arrive at once, and how many calls it has."""

    turns: asyncio.Semaphore
    calls: int = 0


class Arrival:
    """Takes in the messages of calls, through all doors together.

    timeout_s: that each has to arrive. at_once, per_connection: how many may be arriving; a
    call that has to wait is not read meanwhile, and so takes no memory but its first bytes.
    """

    def __init__(self, timeout_s: float, at_once: int, per_connection: int) -> None:
        self._timeout_s = timeout_s
        self._turns = asyncio.Semaphore(at_once)
        self._per_connection = per_connection
        self._connections: dict[str, _Connection] = {}

    async def message(self, peer: str, read: Callable[[], Awaitable[Message]]) -> Message:
        """Return what `read` gives, when it is its turn; peer: the connection.

        Raises DeadlineExceeded.
        """
        connection = self._connections.get(peer)
        if connection is None:
            connection = _Connection(asyncio.Semaphore(self._per_connection))
            self._connections[peer] = connection
        connection.calls += 1
        try:
            # Its own turn first: calls that wait for their connection take none from others.
            async with asyncio.timeout(self._timeout_s), connection.turns, self._turns:
                return await read()
        except TimeoutError:
            raise DeadlineExceeded(
                f"the request did not arrive within {self._timeout_s:g} s"
            ) from None
        finally:
            connection.calls -= 1
            if not connection.calls:
                del self._connections[peer]
