"""Admission: work that would wait too long, or miss its deadline, is refused at once."""

import math
from collections.abc import Iterable

from visavis_server.errors import Overloaded
from visavis_server.runtime.scheduling.state import State
from visavis_server.runtime.scheduling.work import Caller, Engine

# Keep 25 % headroom, because forecasts err: without it, half of the tightest requests miss their
# deadline.
_HEADROOM = 0.25
# The bounds of the retry time sent with a refusal, in seconds.
_MIN_RETRY_S, _MAX_RETRY_S = 0.1, 30.0


class Admission:
    """Decides whether work may join the queue. The caller holds the state's lock.

    queue_size: the most work that may wait for one engine. max_queue_wait_s: the longest forecast
    wait of one request.
    """

    def __init__(self, state: State, queue_size: int, max_queue_wait_s: float) -> None:
        self._state = state
        self._queue_size = queue_size
        self._max_queue_wait_s = max_queue_wait_s

    def require(self, engines: Iterable[Engine], caller: Caller, now: float) -> None:
        """Raise Overloaded if every one of the engines would refuse a request."""
        refusals: list[tuple[Overloaded, Engine]] = []
        for engine in engines:
            if (refusal := self._refusal(engine, caller, now)) is None:
                return
            refusals.append((refusal, engine))
        if refusals:
            soonest, engine = min(refusals, key=lambda refused: refused[0].retry_after_s)
            self._state.statistics_of(engine).refused += 1
            raise soonest

    def _refusal(self, engine: Engine, caller: Caller, now: float) -> Overloaded | None:
        waiting = self._state.queue.waiting(engine)
        wait_s = self._wait_s(engine, caller, now)
        needed_s = with_headroom(wait_s + self._state.work_s(engine))
        if waiting >= self._queue_size:
            why = (
                f"{waiting} requests are waiting for {engine.name}; the limit is {self._queue_size}"
            )
            spare_s = 0.0
        elif wait_s > self._max_queue_wait_s:
            why = (
                f"a request for {engine.name} would wait {wait_s:.1f} s; "
                f"the limit is {self._max_queue_wait_s:g} s"
            )
            spare_s = self._max_queue_wait_s
        elif wait_s and caller.expired(now + needed_s):
            spare_s = max(caller.due(now) - now, 0.0)
            # Rounded up and down, so that the time needed reads as more than the time left.
            why = (
                f"{engine.name} is busy: an answer would take {math.ceil(needed_s * 100) / 100} s, "
                f"including {_HEADROOM:.0%} headroom; "
                f"the deadline is in {math.floor(spare_s * 100) / 100} s"
            )
        else:
            return None
        retry_s = min(max(wait_s - spare_s, _MIN_RETRY_S), _MAX_RETRY_S)
        return Overloaded(f"{why}; try again later", retry_after_s=retry_s)

    def _wait_s(self, engine: Engine, caller: Caller, now: float) -> float:
        """Return how long a request would wait if it were submitted now."""
        state = self._state
        if engine.plan.runs_on == "device":
            ahead = state.queue.waiting(engine) + state.in_pipeline[engine]
            return ahead * state.work_s(engine) / state.streams
        ahead_s = state.queue.ahead_s(engine, caller, now, state.work_s)
        # Idle cores accept a request whatever its forecast; waiting work is about to be taken.
        waiting = state.queue.size if ahead_s else 0
        if state.free_cores >= engine.plan.threads * (waiting + 1):
            return 0.0
        return (ahead_s + state.expected_ends.remaining_s(now)) / state.cores


def with_headroom(seconds: float) -> float:
    """Return a forecast with its headroom."""
    return seconds * (1 + _HEADROOM)
