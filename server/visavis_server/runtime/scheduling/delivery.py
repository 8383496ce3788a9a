"""Delivery of results and errors from the scheduler's threads to the callers' event loops."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from visavis_server.errors import DeadlineExceeded
from visavis_server.runtime.scheduling.state import State
from visavis_server.runtime.scheduling.work import Outcome, Work

# The longest that results wait while the next batch is prepared. A run releases Python's global
# lock, so that the event loop can send answers meanwhile. Delivered while a batch is prepared, they
# made both contend for the lock: cores idled for 4 % of the time (an int8 ResNet-50, 32 callers).
_MAX_DEFERRED_S = 0.02


@dataclass
class _Deferred(threading.local):
    """The outcomes that the current thread has not delivered yet, and their time."""

    outcomes: Sequence[Outcome] = ()
    since: float = 0.0


class Delivery:
    """Delivers outcomes at once, or defers those of a thread until its next run begins.

    The caller must not hold the state's lock.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._deferred = _Deferred()

    @property
    def has_deferred(self) -> bool:
        """True if this thread has deferred outcomes."""
        return bool(self._deferred.outcomes)

    def defer(self, outcomes: Sequence[Outcome]) -> None:
        """Keep outcomes until `deliver_deferred`."""
        self._deferred.outcomes = outcomes
        self._deferred.since = time.monotonic()

    def take_deferred(self) -> Sequence[Outcome]:
        """Remove and return this thread's deferred outcomes."""
        outcomes, self._deferred.outcomes = self._deferred.outcomes, ()
        return outcomes

    def deliver_deferred(self) -> None:
        """Deliver this thread's deferred outcomes."""
        self.deliver(self.take_deferred())

    def deliver_overdue(self) -> None:
        """Deliver this thread's deferred outcomes if they have waited too long."""
        if time.monotonic() - self._deferred.since > _MAX_DEFERRED_S:
            self.deliver_deferred()

    def deliver(self, outcomes: Sequence[Outcome]) -> None:
        """Give each caller its result or error."""
        for work, result, error in outcomes:
            if error is None:
                _call_soon(work, partial(work.future.set_result, result))
                continue
            with self._state.lock:
                counters = self._state.statistics_of(work.engine)
                if isinstance(error, DeadlineExceeded):
                    counters.expired += 1
                else:
                    counters.failed += 1
            _call_soon(work, partial(work.future.set_exception, error))


def cancel(work: Work) -> None:
    """Cancel a caller's wait."""
    _call_soon(work, work.future.cancel)


def _call_soon(work: Work, settle: Callable[[], Any]) -> None:
    def settle_once() -> None:
        if not work.future.done():
            settle()

    # A closed loop has no waiting callers.
    with suppress(RuntimeError):
        work.loop.call_soon_threadsafe(settle_once)
