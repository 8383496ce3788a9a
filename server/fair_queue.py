"""What waits, and whose turn it is: equal time for methods and models, the first due first."""

import heapq
import time
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from server.plan import Plan

# Where nobody set a deadline the work is due after this, so that it ages like any other.
_PATIENCE_S = 30.0
# What may be caught up after having had nothing to do: the moment between an answer and the
# caller's next request costs no turn, and an hour of rest buys no hour of the machine.
_CREDIT_S = 0.5


@dataclass(frozen=True, slots=True)
class Call:
    """On whose behalf work is done.

    method: methods with work waiting get equal time. deadline: on time.monotonic()'s
    clock; None: the caller waits as long as it takes.
    """

    method: str
    deadline: float | None = None


class Engine(Protocol):
    """Does one kind of work, on jobs that only it understands, on several threads at once."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def plan(self) -> Plan:
        """How much of the machine it takes."""
        ...

    def allocate(self, jobs: list[Any]) -> None:
        """Make room for the inputs of a batch."""
        ...

    def prepare(self, job: Any) -> None:
        """Make the input of one job; what it raises is that job's failure alone."""
        ...

    def run(self, jobs: list[Any], alone: bool) -> list[Any]:
        """Return one output for each job; alone: nothing else runs, all cores are free."""
        ...

    def finish(self, job: Any, output: Any) -> Any:
        """Return the job's result."""
        ...


@dataclass(slots=True, eq=False)
class Work:
    """One job on its way; future belongs to loop. Times are on time.monotonic()'s clock."""

    engine: Engine
    job: Any
    call: Call
    loop: AbstractEventLoop
    future: "Future[Any]"
    submitted: float = field(default_factory=time.monotonic)
    started: float = 0.0
    run_s: float = 0.0
    batch: int = 0
    charged_s: float = 0.0
    # Its caller is gone: it must not run any more.
    abandoned: bool = False

    @property
    def due(self) -> float:
        """When it should be done."""
        return self.call.deadline or self.submitted + _PATIENCE_S

    @property
    def queue_s(self) -> float:
        """How long it waited."""
        return self.started - self.submitted

    def expired(self, now: float) -> bool:
        """Say whether its caller's time has run out."""
        return self.call.deadline is not None and now >= self.call.deadline


class Flow:
    """The work of one method for one engine; used: the seconds that it has had."""

    def __init__(self, method: str, engine: Engine) -> None:
        self.method = method
        self.engine = engine
        self.used = 0.0
        self.size = 0
        self._heap: list[tuple[float, int, Work]] = []

    def put(self, work: Work, number: int) -> None:
        """Add work; number: its place among those that are due at the same time."""
        heapq.heappush(self._heap, (work.due, number, work))
        self.size += 1

    def pop(self) -> Work:
        """Return the work that is due first; there must be some."""
        while (work := heapq.heappop(self._heap)[2]).abandoned:
            continue
        self.size -= 1
        return work


class FairQueue:
    """Waiting work; not safe for threads by itself, the scheduler's lock is around it.

    The method that has had the least time goes first, and of its engines the one that has
    had the least; within these, what is due first.
    """

    def __init__(self) -> None:
        self.size = 0
        self._flows: dict[tuple[str, Engine], Flow] = {}
        self._used: dict[str, float] = {}
        self._numbers = count()

    def put(self, work: Work) -> None:
        """Add work."""
        method = work.call.method
        busy = [flow for flow in self._flows.values() if flow.size]
        flow = self._flows.setdefault((method, work.engine), Flow(method, work.engine))
        if not flow.size:
            siblings = [other for other in busy if other.method == method]
            flow.used = _caught_up(flow.used, [other.used for other in siblings])
            if not siblings:
                others = [self._used[other.method] for other in busy]
                self._used[method] = _caught_up(self._used.get(method, 0.0), others)
        flow.put(work, next(self._numbers))
        self.size += 1

    def abandon(self, work: Work) -> None:
        """Let work never run, if it hasn't yet; wherever it is."""
        if not (work.started or work.abandoned):
            self._flows[work.call.method, work.engine].size -= 1
            self.size -= 1
        work.abandoned = True

    def waiting(self, engine: Engine) -> int:
        """Return how much work waits for an engine."""
        return sum(flow.size for flow in self._flows.values() if flow.engine is engine)

    def first(self, ready: Callable[[Engine], bool]) -> Engine | None:
        """Return the engine whose turn it is, of those that are ready; None: nothing waits."""
        flows = [flow for flow in self._flows.values() if flow.size and ready(flow.engine)]
        return min(flows, key=self._turn).engine if flows else None

    def take(self, engine: Engine, most: int) -> list[Work]:
        """Return the next work for an engine, at least one piece; there must be some."""
        taken: list[Work] = []
        flows = [flow for flow in self._flows.values() if flow.engine is engine and flow.size]
        for flow in sorted(flows, key=self._turn):
            while flow.size and len(taken) < most:
                taken.append(flow.pop())
        self.size -= len(taken)
        return taken

    def clear(self) -> list[Work]:
        """Return all work, in any order; none waits any more."""
        self.size = 0
        works = [flow.pop() for flow in self._flows.values() for _ in range(flow.size)]
        for work in works:
            work.abandoned = True
        return works

    def charge(self, work: Work, seconds: float) -> None:
        """Put seconds of the machine on the account of a piece of work."""
        self._flows[work.call.method, work.engine].used += seconds
        self._used[work.call.method] += seconds

    def _turn(self, flow: Flow) -> tuple[float, float]:
        return self._used[flow.method], flow.used


def _caught_up(used: float, others: list[float]) -> float:
    """Return the account of one that comes back among others: no credit for its absence."""
    return max(used, min(others) - _CREDIT_S) if others else used
