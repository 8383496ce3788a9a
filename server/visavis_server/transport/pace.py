"""Spreads work that blocks the event loop over the loop's iterations."""

import asyncio
import time
from collections.abc import Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

# Per iteration of the loop; longer work has an iteration to itself.
_MOST_S: Final = 0.005
# Shorter work is not counted: small messages, of which an iteration never has many.
_COUNTED_S: Final = 0.0001


class Pace:
    """Limits the blocking work per iteration, so that health checks and small calls get through.

    gRPC copies each message in the event loop. It would copy thirty messages of 32 MiB that are
    complete at the same time in one iteration, for seconds. Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._spent_s = 0.0

    async def turn(self) -> None:
        """Wait for an iteration of the loop that has time left."""
        while self._spent_s > _MOST_S:
            await asyncio.sleep(0)

    def spend(self, since: float) -> None:
        """Count the time since `since`, on time.perf_counter()'s clock, as blocking work."""
        spent_s = time.perf_counter() - since
        if spent_s < _COUNTED_S:
            return
        if not self._spent_s:
            asyncio.get_running_loop().call_soon(self._begin_turn)
        self._spent_s += spent_s

    @coroutine
    def paced(self, work: Coroutine[Any, Any, Result]) -> Generator[Any, Any, Result]:
        """Return a coroutine's result; each of its steps waits for an iteration with time left."""
        step = partial(work.send, None)
        while True:
            began = time.perf_counter()
            try:
                awaited = step()
            except StopIteration as done:
                result: Result = done.value
                return result
            finally:
                self.spend(began)
            try:
                yield awaited
                while self._spent_s > _MOST_S:
                    yield  # until the next iteration
            except BaseException as error:  # noqa: BLE001  cancellation too
                step = partial(work.throw, error)
            else:
                step = partial(work.send, None)

    def _begin_turn(self) -> None:
        self._spent_s = 0.0
