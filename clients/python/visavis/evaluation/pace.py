"""How many pictures are sent at once: as many as the server takes."""

import asyncio
from types import TracebackType
from typing import Final, Self

FIRST: Final = 8
"""Pictures at once in the beginning."""


class Pace:
    """A number of turns that grows while answers need not wait, and halves when one is refused.

    As TCP finds the rate of a line: up by one for each round of answers, down by half (D.-M. Chiu
    and R. Jain, Computer Networks 17 (1989), 1-14).
    """

    def __init__(self, most: int) -> None:
        """most: the limit of turns at once."""
        self._most = most
        self._allowed = float(min(FIRST, most))
        self._taken = 0
        self._free = asyncio.Condition()

    @property
    def allowed(self) -> int:
        """How many turns there are now."""
        return int(self._allowed)

    async def __aenter__(self) -> Self:
        """Wait for a turn."""
        async with self._free:
            await self._free.wait_for(lambda: self._taken < self.allowed)
            self._taken += 1
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the turn back."""
        async with self._free:
            self._taken -= 1
            self._free.notify_all()

    def answered(self, waited_ms: float, worked_ms: float) -> None:
        """Note an answer: how long it waited in the server's queue, and how long it took."""
        if waited_ms < worked_ms / 2:
            self._allowed = min(float(self._most), self._allowed + 1 / self._allowed)
        elif waited_ms > 2 * worked_ms:
            # More at once would only wait longer.
            self._allowed = max(1.0, self._allowed - 1 / self._allowed)

    def refused(self) -> None:
        """Note that the server has too much to do."""
        self._allowed = max(1.0, self._allowed / 2)
