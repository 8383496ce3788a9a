"""The state that all threads of one scheduler share."""

import math
import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from visavis_server.runtime.scheduling.engine_statistics import Statistics
from visavis_server.runtime.scheduling.fair_queue import FairQueue
from visavis_server.runtime.scheduling.forecast import ExpectedEnds, MovingAverage
from visavis_server.runtime.scheduling.work import Engine, Work


@dataclass
class Claim(threading.local):
    """The work and cores that the current thread has taken, so that an error can return them.

    choosing: True while the thread chooses its next task. engine: the engine whose turn it was
    last. works: taken from the queue or the device. cores: not yet released.
    """

    choosing: bool = True
    engine: Engine | None = None
    works: Sequence[Work] = ()
    cores: int = 0

    def take(self, works: Sequence[Work], cores: int) -> None:
        """Record what the thread has taken."""
        self.works, self.cores = works, cores


class State:
    """The shared state. `lock` guards every attribute and method; `claim` is the thread's own."""

    def __init__(self, cores: int, streams: int) -> None:
        self.cores = cores
        self.streams = streams
        self.lock = threading.Lock()
        self.core_work = threading.Condition(self.lock)
        self.stream_work = threading.Condition(self.lock)
        self.closing = False
        self.queue = FairQueue()
        self.free_cores = cores
        # Work arrived while something ran: the next run does not have the machine to itself.
        self.contended = False
        # Work on its way through a device, counted by engine; of it, the work that waits for a
        # stream, and the outputs that wait for a core.
        self.in_pipeline: Counter[Engine] = Counter()
        self.prepared: deque[Work] = deque()
        self.returned: deque[tuple[Work, Any]] = deque()
        self.statistics: WeakKeyDictionary[Engine, Statistics] = WeakKeyDictionary()
        # The time of one piece of work: its share of the run, and preparation to result.
        self.run_s, self.work_s = MovingAverage(), MovingAverage()
        self.expected_ends = ExpectedEnds()
        self.last_run = -math.inf
        self.claim = Claim()

    def statistics_of(self, engine: Engine) -> Statistics:
        """Return an engine's counters."""
        if (counters := self.statistics.get(engine)) is None:
            counters = self.statistics[engine] = Statistics()
        return counters

    def charge(self, work: Work, seconds: float) -> None:
        """Set the time that a piece of work is charged for: a forecast at first, later the fact."""
        self.queue.charge(work, seconds - work.charged_s)
        work.charged_s = seconds

    def leave_pipeline(self, works: Iterable[Work]) -> None:
        """Record that work is no longer on its way through a device."""
        for work in works:
            if not work.in_pipeline:
                continue
            work.in_pipeline = False
            self.in_pipeline[work.engine] -= 1
            if not self.in_pipeline[work.engine]:
                del self.in_pipeline[work.engine]
            self.wake_all()

    def release_cores(self) -> None:
        """Release the cores that this thread has claimed."""
        cores, self.claim.cores = self.claim.cores, 0
        self.free_cores += cores
        if cores > 1:
            self.core_work.notify_all()

    def wake_all(self) -> None:
        """Wake all idle threads."""
        self.core_work.notify_all()
        self.stream_work.notify_all()
