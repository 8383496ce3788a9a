"""Waiting work in fair order: equal time for methods and models, then the earliest due time."""

from bisect import bisect_left, insort
from collections.abc import Callable
from itertools import count
from math import inf
from weakref import WeakKeyDictionary

from visavis_server.runtime.scheduling.work import Caller, Engine, Work

# The most time that a flow may catch up after being idle. The pause between an answer and the
# client's next request costs no turn, and an hour of rest buys no hour of the machine.
_CREDIT_S = 0.5


class Flow:
    """The waiting work of one method for one engine: earliest due first, then first come."""

    def __init__(self, method: str, engine: Engine) -> None:
        self.method = method
        self.engine = engine
        self._waiting: list[tuple[float, int, Work]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, work: Work) -> None:
        """Add work."""
        insort(self._waiting, (work.due, work.arrival, work))

    def pop(self) -> Work:
        """Remove and return the next work. The flow must not be empty."""
        first = self._waiting[0][2]
        equals = range(self.count_due_by(first.caller.due_at_latest(first.submitted)))
        return self._waiting.pop(min(equals, key=lambda index: self._waiting[index][1]))[2]

    def deadline(self) -> float:
        """Return the deadline of the work due first. The flow must not be empty."""
        deadline = self._waiting[0][2].caller.deadline
        return inf if deadline is None else deadline

    def remove(self, work: Work) -> None:
        """Remove waiting work."""
        del self._waiting[bisect_left(self._waiting, (work.due, work.arrival))]

    def count_due_by(self, due: float) -> int:
        """Return the number of pieces of work due by a time."""
        return bisect_left(self._waiting, (due, inf))


class FairQueue:
    """A queue of work for all methods and engines. Not thread-safe: the scheduler locks it.

    The method that has used the least time goes first; of its engines, the one that has used
    the least; within these, the work due first. The queue holds no engine without waiting work.
    """

    def __init__(self) -> None:
        self.size = 0
        self._flows: dict[tuple[str, Engine], Flow] = {}  # no flow is empty
        # Seconds used, by method, and by engine and method.
        self._used: dict[str, float] = {}
        self._used_of: WeakKeyDictionary[Engine, dict[str, float]] = WeakKeyDictionary()
        self._arrivals = count()

    def put(self, work: Work) -> None:
        """Add work."""
        work.arrival = next(self._arrivals)
        key = method, engine = work.caller.method, work.engine
        if key not in self._flows:
            busy = self._flows.values()
            siblings = [self._used_by(flow) for flow in busy if flow.method == method]
            account = self._used_of.setdefault(engine, {})
            account[method] = _limit_credit(account.get(method, 0.0), siblings)
            if not siblings:
                others = [self._used[other.method] for other in busy]
                self._used[method] = _limit_credit(self._used.get(method, 0.0), others)
            self._flows[key] = Flow(method, engine)
        self._flows[key].put(work)
        self.size += 1

    def abandon(self, work: Work) -> None:
        """Mark work as abandoned, and remove it if it is still waiting."""
        if not (work.started or work.abandoned):
            flow = self._flows[work.caller.method, work.engine]
            flow.remove(work)
            self._removed(flow, 1)
        work.abandoned = True

    def waiting(self, engine: Engine) -> int:
        """Return the number of pieces of work that wait for an engine."""
        return sum(len(flow) for flow in self._flows.values() if flow.engine is engine)

    def deadline(self, engine: Engine) -> float:
        """Return the earliest deadline of the work for an engine, of which there must be some."""
        return min(flow.deadline() for flow in self._flows.values() if flow.engine is engine)

    def ahead_s(
        self, engine: Engine, caller: Caller, now: float, seconds: Callable[[Engine], float]
    ) -> float:
        """Return how many core-seconds of work are ahead of a caller that submits now.

        seconds: the time that one piece of an engine's work takes. While the earlier work of the
        caller's own flow takes its turns, every other flow gets as much time, or all it needs.
        """
        key = (caller.method, engine)
        own_s = 0.0
        if key in self._flows:
            own_s = self._flows[key].count_due_by(caller.due_at_latest(now)) * seconds(engine)
        ahead_s = own_s
        for other, flow in self._flows.items():
            if other != key:
                ahead_s += min(own_s, len(flow) * seconds(flow.engine))
        return ahead_s

    def next_engine(self, ready: Callable[[Engine], bool]) -> Engine | None:
        """Return the ready engine whose turn it is; None: no work waits for a ready one."""
        flows = [flow for flow in self._flows.values() if ready(flow.engine)]
        return min(flows, key=self._turn).engine if flows else None

    def take(self, engine: Engine, most: int) -> list[Work]:
        """Remove and return an engine's next work, at most `most`. Some must be waiting."""
        taken: list[Work] = []
        flows = [flow for flow in self._flows.values() if flow.engine is engine]
        for flow in sorted(flows, key=self._turn):
            works = [flow.pop() for _ in range(min(len(flow), most - len(taken)))]
            self._removed(flow, len(works))
            taken += works
        return taken

    def clear(self, engine: Engine | None = None) -> list[Work]:
        """Remove and return all work, or all of one engine, marked as abandoned."""
        works: list[Work] = []
        for key, flow in list(self._flows.items()):
            if engine is None or flow.engine is engine:
                works += [flow.pop() for _ in range(len(flow))]
                del self._flows[key]
        for work in works:
            work.abandoned = True
        self.size -= len(works)
        return works

    def charge(self, work: Work, seconds: float) -> None:
        """Add seconds to the time used by the work's method and engine."""
        self._used_of[work.engine][work.caller.method] += seconds
        self._used[work.caller.method] += seconds

    def _removed(self, flow: Flow, number: int) -> None:
        self.size -= number
        if not flow:
            del self._flows[flow.method, flow.engine]

    def _used_by(self, flow: Flow) -> float:
        return self._used_of[flow.engine][flow.method]

    def _turn(self, flow: Flow) -> tuple[float, float]:
        return self._used[flow.method], self._used_by(flow)


def _limit_credit(used: float, others: list[float]) -> float:
    """Return the used time of a flow that resumes among others: idleness earns little credit."""
    return max(used, min(others) - _CREDIT_S) if others else used
