"""The types that the scheduler and its users share: callers, engines, and pieces of work."""

from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from visavis_server.runtime.plan import Plan

# Work without a deadline is due after this time, so that it ages like any other.
_DEFAULT_DUE_S = 30.0
# Deadlines are inexact: gRPC sends a timeout of 60 s as 60.0 or 60.1, one of 600 s as 600 or 601.
# Deadlines that differ by less than this share of the remaining time count as equal.
_INEXACT = 0.02


@dataclass(frozen=True, slots=True)
class Caller:
    """The request that work belongs to.

    method: methods with waiting work get equal time. deadline: on time.monotonic()'s
    clock; None: no deadline.
    """

    method: str
    deadline: float | None = None

    def due(self, since: float) -> float:
        """Return when work submitted at `since` is due."""
        return self.deadline or since + _DEFAULT_DUE_S

    def due_at_latest(self, since: float) -> float:
        """Return the latest due time that still counts as equal to this one."""
        due = self.due(since)
        return due + _INEXACT * max(due - since, 0.0)

    def expired(self, now: float) -> bool:
        """Return True if the deadline has passed."""
        return self.deadline is not None and now >= self.deadline


class Stop:
    """Ends a run once every caller has left. Guarded by the scheduler's lock."""

    def __init__(self, callers: int) -> None:
        self._callers = callers
        self._end: Callable[[], None] = lambda: None

    @property
    def requested(self) -> bool:
        """True if all callers have left."""
        return self._callers == 0

    def leave(self) -> None:
        """Count one caller less; the last one ends the run."""
        self._callers -= 1
        if self.requested:
            self._end()

    def on_request(self, end: Callable[[], None]) -> None:
        """Register the function that ends the run, before the run begins. Needs no lock."""
        self._end = end
        if self.requested:
            end()


class Engine(Protocol):
    """Does one kind of work, on several threads at once. Jobs are opaque to the scheduler."""

    @property
    def name(self) -> str:
        """The name in messages and logs."""
        ...

    @property
    def plan(self) -> Plan:
        """The cores or device streams that a run takes."""
        ...

    def allocate(self, jobs: list[Any]) -> None:
        """Allocate the inputs of a batch."""
        ...

    def prepare(self, job: Any) -> None:
        """Prepare the input of one job; an exception fails that job alone."""
        ...

    def run(self, jobs: list[Any], exclusive: bool, stop: Stop) -> list[Any]:
        """Return one output for each job; exclusive: nothing else runs, all cores are free.

        Once a stop is requested, results and exceptions are discarded.
        """
        ...

    def finish(self, job: Any, output: Any) -> Any:
        """Return the job's result."""
        ...


@dataclass(slots=True, eq=False)
class Work:
    """One job in the scheduler. `future` belongs to `loop`; times are time.monotonic()'s."""

    engine: Engine
    job: Any
    caller: Caller
    loop: AbstractEventLoop
    future: "Future[Any]"
    submitted: float
    # Order of arrival, which breaks ties between due times.
    arrival: int = 0
    started: float = 0.0
    prepare_s: float = 0.0
    run_s: float = 0.0
    batch: int = 0
    charged_s: float = 0.0
    # The caller has left: the work must not run any more.
    abandoned: bool = False
    # The deadline cannot be met any more.
    late: bool = False
    # Between the queue and its result, on the way through a device.
    in_pipeline: bool = False
    # Ends the current run.
    stop: Stop | None = None

    @property
    def due(self) -> float:
        """The time by which the work should be done."""
        return self.caller.due(self.submitted)

    @property
    def queue_s(self) -> float:
        """The time spent in the queue."""
        return self.started - self.submitted


@dataclass(frozen=True, slots=True)
class WorkTimings:
    """The time one piece of work took; batch: the number of jobs in its run."""

    queue_ms: float
    run_ms: float
    batch: int


Outcome = tuple[Work, Any, Exception | None]
"""A piece of work with its result, or with the exception that failed it."""
