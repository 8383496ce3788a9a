"""What waits, and whose turn it is: equal time for methods and models, the first due first."""

from asyncio import AbstractEventLoop, Future
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from math import inf
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from visavis_server.runtime.plan import Plan

# Where nobody set a deadline the work is due after this, so that it ages like any other.
_PATIENCE_S = 30.0
# Deadlines are not exact: gRPC sends a timeout of 60 s as 60.0 or 60.1, one of 600 as 600 or 601.
# Of those that differ by no more than this share of the time they leave, the first come goes first.
_INEXACT = 0.02
# What may be caught up after having had nothing to do: the moment between an answer and the
# caller's next request costs no turn, and an hour of rest buys no hour of the machine.
_CREDIT_S = 0.5


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf work is done.

    method: methods with work waiting get equal time. deadline: on time.monotonic()'s
    clock; None: the caller waits as long as it takes.
    """

    method: str
    deadline: float | None = None

    def due(self, since: float) -> float:
        """Return when work that came at a time should be done."""
        return self.deadline or since + _PATIENCE_S

    def due_at_latest(self, since: float) -> float:
        """Return when others may be due at the latest without being sure to be due after it."""
        due = self.due(since)
        return due + _INEXACT * max(due - since, 0.0)

    def expired(self, now: float) -> bool:
        """Say whether the caller's time has run out."""
        return self.deadline is not None and now >= self.deadline


class Stop:
    """Ends a run when the last one who waits for it leaves; the scheduler's lock is around it."""

    def __init__(self, callers: int) -> None:
        self._callers = callers
        self._end: Callable[[], None] = lambda: None

    @property
    def wanted(self) -> bool:
        """Whether nobody waits any more."""
        return self._callers == 0

    def leave(self) -> None:
        """Let one caller go."""
        self._callers -= 1
        if self.wanted:
            self._end()

    def by(self, end: Callable[[], None]) -> None:
        """Say what ends the run, before it begins; any thread may call that."""
        self._end = end
        if self.wanted:
            end()


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

    def run(self, jobs: list[Any], exclusive: bool, stop: Stop) -> list[Any]:
        """Return one output for each job; exclusive: nothing else runs, all cores are free.

        Once a stop is wanted, nobody reads what it returns or raises.
        """
        ...

    def finish(self, job: Any, output: Any) -> Any:
        """Return the job's result."""
        ...


@dataclass(slots=True, eq=False)
class Work:
    """One job on its way; future belongs to loop. Times are on time.monotonic()'s clock."""

    engine: Engine
    job: Any
    caller: Caller
    loop: AbstractEventLoop
    future: "Future[Any]"
    submitted: float
    # Among those that are due at the same time.
    place: int = 0
    started: float = 0.0
    prepare_s: float = 0.0
    run_s: float = 0.0
    batch: int = 0
    charged_s: float = 0.0
    # Its caller is gone: it must not run any more.
    abandoned: bool = False
    # There is no time left for it.
    late: bool = False
    # It is on its way through a device.
    ahead: bool = False
    # Ends the run that it is in.
    stop: Stop | None = None

    @property
    def due(self) -> float:
        """When it should be done."""
        return self.caller.due(self.submitted)

    @property
    def queue_s(self) -> float:
        """How long it waited."""
        return self.started - self.submitted


class Flow:
    """What waits of one method for one engine, the first due first, else the first come."""

    def __init__(self, method: str, engine: Engine) -> None:
        self.method = method
        self.engine = engine
        self._waiting: list[tuple[float, int, Work]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, work: Work) -> None:
        """Add work."""
        insort(self._waiting, (work.due, work.place, work))

    def pop(self) -> Work:
        """Return the work that is next; there must be some."""
        first = self._waiting[0][2]
        equals = range(self.before(first.caller.due_at_latest(first.submitted)))
        return self._waiting.pop(min(equals, key=lambda index: self._waiting[index][1]))[2]

    def deadline(self) -> float:
        """Return when the caller who is due first gives up; there must be some work."""
        deadline = self._waiting[0][2].caller.deadline
        return inf if deadline is None else deadline

    def remove(self, work: Work) -> None:
        """Forget work that waits."""
        del self._waiting[bisect_left(self._waiting, (work.due, work.place))]

    def before(self, due: float) -> int:
        """Return how much is due by then."""
        return bisect_left(self._waiting, (due, inf))


class FairQueue:
    """Waiting work; not safe for threads by itself, the scheduler's lock is around it.

    The method that has had the least time goes first, and of its engines the one that has
    had the least; within these, what is due first. An engine for which nothing waits is
    held by nothing here.
    """

    def __init__(self) -> None:
        self.size = 0
        self._flows: dict[tuple[str, Engine], Flow] = {}  # none is empty
        # The seconds that each has had.
        self._used: dict[str, float] = {}
        self._used_of: WeakKeyDictionary[Engine, dict[str, float]] = WeakKeyDictionary()
        self._places = count()

    def put(self, work: Work) -> None:
        """Add work."""
        work.place = next(self._places)
        key = method, engine = work.caller.method, work.engine
        if key not in self._flows:
            busy = self._flows.values()
            siblings = [self._account(flow) for flow in busy if flow.method == method]
            account = self._used_of.setdefault(engine, {})
            account[method] = _caught_up(account.get(method, 0.0), siblings)
            if not siblings:
                others = [self._used[other.method] for other in busy]
                self._used[method] = _caught_up(self._used.get(method, 0.0), others)
            self._flows[key] = Flow(method, engine)
        self._flows[key].put(work)
        self.size += 1

    def abandon(self, work: Work) -> None:
        """Let work never run, if it hasn't yet; wherever it is."""
        if not (work.started or work.abandoned):
            flow = self._flows[work.caller.method, work.engine]
            flow.remove(work)
            self._left(flow, 1)
        work.abandoned = True

    def waiting(self, engine: Engine) -> int:
        """Return how much work waits for an engine."""
        return sum(len(flow) for flow in self._flows.values() if flow.engine is engine)

    def deadline(self, engine: Engine) -> float:
        """Return when the first caller gives up who waits for an engine; there must be one."""
        return min(flow.deadline() for flow in self._flows.values() if flow.engine is engine)

    def ahead_s(
        self, engine: Engine, caller: Caller, now: float, seconds: Callable[[Engine], float]
    ) -> float:
        """Return how many seconds of one core come before a call's work, were it put now.

        seconds: what one piece of an engine's work takes. While the work of its own flow that
        is due earlier has its turns, every other flow has as much, or all that it wants.
        """
        key = (caller.method, engine)
        own_s = 0.0
        if key in self._flows:
            own_s = self._flows[key].before(caller.due_at_latest(now)) * seconds(engine)
        ahead_s = own_s
        for other, flow in self._flows.items():
            if other != key:
                ahead_s += min(own_s, len(flow) * seconds(flow.engine))
        return ahead_s

    def first(self, ready: Callable[[Engine], bool]) -> Engine | None:
        """Return the engine whose turn it is, of those that are ready; None: nothing waits."""
        flows = [flow for flow in self._flows.values() if ready(flow.engine)]
        return min(flows, key=self._turn).engine if flows else None

    def take(self, engine: Engine, most: int) -> list[Work]:
        """Return the next work for an engine, at least one piece; there must be some."""
        taken: list[Work] = []
        flows = [flow for flow in self._flows.values() if flow.engine is engine]
        for flow in sorted(flows, key=self._turn):
            works = [flow.pop() for _ in range(min(len(flow), most - len(taken)))]
            self._left(flow, len(works))
            taken += works
        return taken

    def clear(self, engine: Engine | None = None) -> list[Work]:
        """Return all work, or all of an engine, in any order; none of it waits any more."""
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
        """Put seconds of the machine on the account of a piece of work."""
        self._used_of[work.engine][work.caller.method] += seconds
        self._used[work.caller.method] += seconds

    def _left(self, flow: Flow, number: int) -> None:
        self.size -= number
        if not flow:
            del self._flows[flow.method, flow.engine]

    def _account(self, flow: Flow) -> float:
        return self._used_of[flow.engine][flow.method]

    def _turn(self, flow: Flow) -> tuple[float, float]:
        return self._used[flow.method], self._account(flow)


def _caught_up(used: float, others: list[float]) -> float:
    """Return the account of one that comes back among others: no credit for its absence."""
    return max(used, min(others) - _CREDIT_S) if others else used
