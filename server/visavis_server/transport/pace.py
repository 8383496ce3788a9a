"""Work that holds the event loop, spread over the loop's turns."""

import asyncio
import time
from collections.abc import Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

# In one turn of the loop; what takes longer by itself is alone in its turn.
_MOST_S: Final = 0.005
# What takes less is not counted: a small message, of which a turn never has many.
_COUNTED_S: Final = 0.0001


class Pace:
    """Lets health and small calls in between large ones: work that is ready at once takes turns.

    gRPC copies a message in the event loop when it hands it over. Thirty messages of 32 MiB that
    are complete at the same time would be copied one after the other, for seconds. Belongs to one
    event loop.
    """

    def __init__(self) -> None:
        self._spent_s = 0.0

    async def turn(self) -> None:
        """Wait for a turn of the loop that has time left."""
        while self._spent_s > _MOST_S:
            await asyncio.sleep(0)

    def spend(self, since: float) -> None:
        """Count the time since then, on time.perf_counter()'s clock, as time of the loop's turn."""
        spent_s = time.perf_counter() - since
        if spent_s < _COUNTED_S:
            return
        if not self._spent_s:
            asyncio.get_running_loop().call_soon(self._begin_turn)
        self._spent_s += spent_s

    @coroutine
    def paced(self, work: Coroutine[Any, Any, Result]) -> Generator[Any, Any, Result]:
        """Return what a coroutine returns; each time that it may go on, it waits for a turn."""
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
                    yield  # until the loop's next turn
            except BaseException as error:  # noqa: BLE001  cancellation too: it is the coroutine's
                step = partial(work.throw, error)
            else:
                step = partial(work.send, None)

    def _begin_turn(self) -> None:
        self._spent_s = 0.0
