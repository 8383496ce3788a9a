"""What runs where, when, and in which batch, for all models together.

It knows neither gRPC nor ONNX Runtime nor images: an engine does the work.

Work for the cores stays on one of them from its preparation to its result, so that
decoding never starves inference nor inference decoding. Work for a device is prepared by
the cores, a little ahead of the device, and run by its streams in larger batches: one
copies while the other runs. Both take what is waiting and never wait for more.
"""

import asyncio
import math
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from server.errors import DeadlineExceeded, Overloaded
from server.fair_queue import Call, Engine, FairQueue, Stop, Work
from server.forecast import Average, Occupied
from server.plan import Plan

__all__ = ["Call", "Engine", "Scheduler", "Spent", "Statistics", "Stop"]

Result = TypeVar("Result")
Task = Callable[[], None]
Outcome = tuple[Work, Any, Exception | None]

# Batches that the cores prepare ahead of each stream of a device.
_BATCHES_AHEAD = 2
# How long results may wait while the next batch is prepared. Python's lock is free in a run, and
# the loop takes it to send answers: in the midst of preparing both would wait for each other, and
# the cores stood still for 4 % of the time (an int8 ResNet-50, 32 callers).
_UNTOLD_S = 0.02
# Forecasts err. Who is let in has so much of the forecast in reserve: else every second one would
# come a little too late, when all that are let in just fit.
_RESERVE = 0.25
# When a caller who was refused may try again, at the soonest and at the latest.
_RETRY_S = (0.1, 30.0)


@dataclass(frozen=True, slots=True)
class Spent:
    """Where the time of one piece of work went; batch: how many shared its run."""

    queue_ms: float
    run_ms: float
    batch: int


@dataclass(slots=True)
class Statistics:
    """What has happened to one engine's work since the start.

    batches: how many runs had each batch size. batch_s: the seconds of these. alone: runs that
    had all cores. queue_s: waited, by all that started.
    """

    batches: Counter[int] = field(default_factory=Counter)
    batch_s: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    alone: int = 0
    queue_s: float = 0.0
    cancelled: int = 0
    expired: int = 0
    refused: int = 0
    failed: int = 0

    @property
    def run_s(self) -> float:
        """The seconds of all runs."""
        return sum(self.batch_s.values())


@dataclass
class _Untold(threading.local):
    """What a core's thread has not told yet of its last run, and since when it could."""

    outcomes: Sequence[Outcome] = ()
    since: float = 0.0


class Scheduler:
    """One thread for each core, and for each stream of a device.

    cores: the budget of threads; a run takes as many as its plan says. streams: 0 without
    a device. queue_size: how much may wait for one engine. queue_s: how long one may have to
    wait. An engine that nobody else holds is forgotten.
    """

    def __init__(
        self, cores: int, queue_size: int, streams: int = 0, queue_s: float = math.inf
    ) -> None:
        self.cores = cores
        self.streams = streams
        self._queue_size = queue_size
        self._queue_s = queue_s
        self._queue = FairQueue()
        self._lock = threading.Lock()
        self._core_wanted = threading.Condition(self._lock)
        self._stream_wanted = threading.Condition(self._lock)
        self._free_cores = cores
        # Somebody came while something ran: whoever is next has not the machine for himself.
        self._company = False
        # Of the device: how much is on its way from the queue to a result, for each engine,
        # and of this what waits for a stream, and what comes from one.
        self._ahead: Counter[Engine] = Counter()
        self._prepared: deque[Work] = deque()
        self._returned: deque[tuple[Work, Any]] = deque()
        self._statistics: WeakKeyDictionary[Engine, Statistics] = WeakKeyDictionary()
        # What one piece of work takes: of a session, and with all that belongs to it.
        self._run_s, self._work_s = Average(), Average()
        self._occupied = Occupied()
        self._last_run = -math.inf
        self._untold = _Untold()
        self._closing = False
        self._threads = [
            *(self._thread(f"core-{i}", self._next_on_core) for i in range(cores)),
            *(self._thread(f"stream-{i}", self._next_on_stream) for i in range(streams)),
        ]

    async def submit(self, engine: Engine, job: Any, call: Call) -> tuple[Any, Spent]:
        """Return the engine's result for a job, and where the time went.

        A job whose caller is gone never runs, nor does one that can't be done by its deadline;
        a run whose callers are all gone is stopped. Raises Overloaded if too much waits for the
        engine, or so much that there would be no answer in time; DeadlineExceeded; and what the
        engine raises.
        """
        loop, now = asyncio.get_running_loop(), time.monotonic()
        with self._lock:
            if self._closing:
                raise asyncio.CancelledError("the scheduler is closed")
            self._admit([engine], call, now)
            work = Work(engine, job, call, loop, loop.create_future(), now)
            self._queue.put(work)
            self._company |= self._free_cores < self.cores
            self._core_wanted.notify()
        try:
            return await work.future, Spent(work.queue_s * 1e3, work.run_s * 1e3, work.batch)
        except asyncio.CancelledError:
            with self._lock:
                self._statistics_of(engine).cancelled += 1
                self._queue.abandon(work)
                if work.stop:
                    work.stop.leave()
            raise

    async def run(self, function: Callable[[], Result], call: Call) -> tuple[Result, float]:
        """Return what a function gives, run on one core, and the milliseconds that it waited.

        Raises as submit does.
        """
        result, spent = await self.submit(_FUNCTIONS, function, call)
        return result, spent.queue_ms

    @property
    def something_waits(self) -> bool:
        """Whether there is work that no core has begun."""
        return self._queue.size > 0

    def require_room(self, engines: Iterable[Engine], call: Call) -> None:
        """Raise Overloaded if submit would now, for whichever of the engines."""
        with self._lock:
            self._admit(engines, call, time.monotonic())

    def statistics(self) -> dict[Engine, Statistics]:
        """Return what has happened so far, by engine."""
        with self._lock:
            return {
                engine: replace(each, batches=each.batches.copy(), batch_s=each.batch_s.copy())
                for engine, each in list(self._statistics.items())
            }

    def waiting(self, engine: Engine) -> int:
        """Return how much waits for an engine now."""
        with self._lock:
            return self._queue.waiting(engine)

    def ran_within(self, seconds: float) -> bool:
        """Say whether a run has given its results in the last seconds."""
        return time.monotonic() - self._last_run < seconds

    def close(self) -> None:
        """Drop what is waiting, and let what runs finish."""
        with self._lock:
            self._closing = True
            dropped = self._queue.clear()
            self._wake_all()
        for work in dropped:
            _tell(work, work.future.cancel)
        for thread in self._threads:
            thread.join()

    # Taking work. The lock is held; each returns what is to be done without it.

    def _admit(self, choice: Iterable[Engine], call: Call, now: float) -> None:
        """Raise Overloaded if none can do it in time, or for each too many others wait."""
        refusals: list[tuple[Overloaded, Engine]] = []
        for engine in choice:
            if (refusal := self._refusal(engine, call, now)) is None:
                return
            refusals.append((refusal, engine))
        if refusals:
            soonest, engine = min(refusals, key=lambda refused: refused[0].retry_after_s)
            self._statistics_of(engine).refused += 1
            raise soonest

    def _refusal(self, engine: Engine, call: Call, now: float) -> Overloaded | None:
        waiting = self._queue.waiting(engine)
        wait_s = self._wait_s(engine, call, now)
        if waiting >= self._queue_size:
            why = f"{waiting} requests wait for {engine.name}, the limit is {self._queue_size}"
            spare_s = 0.0
        elif wait_s > self._queue_s:
            why = (
                f"a request for {engine.name} would wait {wait_s:.1f} s, "
                f"the limit is {self._queue_s:g} s"
            )
            spare_s = self._queue_s
        elif wait_s and call.expired(now + (wait_s + self._work_s(engine)) * (1 + _RESERVE)):
            spare_s = max(call.due(now) - now, 0.0)
            why = (
                f"{engine.name} is busy: an answer would take {wait_s:.2f} s and more, "
                f"the deadline is in {spare_s:.2f} s"
            )
        else:
            return None
        soonest, latest = _RETRY_S
        return Overloaded(
            f"{why}; try again later", retry_after_s=min(max(wait_s - spare_s, soonest), latest)
        )

    def _wait_s(self, engine: Engine, call: Call, now: float) -> float:
        """Return how long a call's work would wait, were it put now."""
        if engine.plan.place == "device":
            ahead = self._queue.waiting(engine) + self._ahead[engine]
            return ahead * self._work_s(engine) / self.streams
        ahead_s = self._queue.ahead_s(engine, call, now, self._work_s)
        if not ahead_s and self._free_cores >= engine.plan.threads:
            return 0.0
        return (ahead_s + self._occupied.remaining_s(now)) / self.cores

    def _thread(self, name: str, take: Callable[[], Task | None]) -> threading.Thread:
        def one_task() -> bool:
            with self._lock:
                task = take()
            if task is not None:
                task()
            return task is not None

        def work() -> None:
            # While it waits for the next task nothing may hold the last one, and its model.
            while one_task():
                pass

        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        return thread

    def _next_on_core(self) -> Task | None:
        """Wait for something to do on a core; None: the scheduler closes."""
        while True:
            if self._returned and self._free_cores:
                self._free_cores -= 1
                return partial(self._finish, *self._returned.popleft())
            engine = self._queue.first(self._may_start)
            if engine is not None:
                threads = min(engine.plan.threads, self.cores)
                if threads <= self._free_cores:
                    return self._take(engine, threads)
            if self._untold.outcomes:
                return self._tell_last
            if engine is None and self._closing and not self._ahead:
                return None
            self._core_wanted.wait()

    def _may_start(self, engine: Engine) -> bool:
        """Say whether an engine takes more: the cores stay only a little ahead of a device."""
        if engine.plan.place == "cores":
            return True
        return self._ahead[engine] < engine.plan.batch * self.streams * _BATCHES_AHEAD

    def _take(self, engine: Engine, threads: int) -> Task:
        """Take an engine's next work, and that many cores for it."""
        now = time.monotonic()
        on_cores = engine.plan.place == "cores"
        works = self._queue.take(engine, self._batch(engine, threads, now) if on_cores else 1)
        came = self._company
        if nothing_runs := self._free_cores == self.cores:
            self._company = False
        self._free_cores -= threads
        ends = now + self._work_s(engine) * len(works)
        # Where nobody else waits the last one runs, so that a forecast that is wrong is mended.
        others_wait = len(works) > 1 or self._queue.waiting(engine) > 0
        for work in works:
            work.started = now
            work.late = work.call.expired(ends if others_wait else now)
            if not work.late:
                self._statistics_of(engine).queue_s += work.queue_s
                self._charge(work, self._run_s(engine))
        if on_cores:
            self._occupied.begin(works[0], ends)
            may_be_alone = nothing_runs and not came
            return partial(self._serve, engine, works, threads, may_be_alone)
        self._ahead[engine] += 1
        return partial(self._prepare_for_device, works[0])

    def _batch(self, engine: Engine, threads: int, now: float) -> int:
        """Return how much of an engine's work the next run on cores takes at most."""
        # A core leaves the others their share, those too that are about to be free, and takes
        # little more than half of its own: where few wait, large batches, and such as differ in
        # size, let some callers wait much longer than others.
        share = math.ceil(self._queue.waiting(engine) / (self.cores // threads))
        most = min(engine.plan.batch, share // 2 + 1)
        # Nobody may come too late because others share his run.
        if most > 1 and (work_s := self._work_s(engine) * (1 + _RESERVE)):
            most = int(min(most, max((self._queue.deadline(engine) - now) / work_s, 1)))
        return most

    def _next_on_stream(self) -> Task | None:
        """Wait for something to do on a stream of the device; None: the scheduler closes."""
        while not self._prepared:
            if self._closing and not self._ahead:
                return None
            self._stream_wanted.wait()
        engine = self._prepared[0].engine
        batch = [w for w in self._prepared if w.engine is engine][: engine.plan.batch]
        for work in batch:
            self._prepared.remove(work)
        return partial(self._run_on_device, engine, batch)

    def _wake_all(self) -> None:
        self._core_wanted.notify_all()
        self._stream_wanted.notify_all()

    # Doing it, without the lock.

    def _serve(self, engine: Engine, works: list[Work], threads: int, may_be_alone: bool) -> None:
        """Do a batch from preparation to results, on its cores, or on all if it is alone."""
        ready, failed = self._prepare(engine, works)
        self._tell_last()
        alone = may_be_alone and bool(ready) and self._claim_all(engine, threads)
        done = [self._finished(*outcome) for outcome in self._run(engine, ready, alone)]
        with self._lock:
            self._occupied.end(works[0])
            if done:
                self._work_s.add(engine, (time.monotonic() - works[0].started) / len(done))
        # First the cores, then the news: the caller's next request finds them free.
        self._release(self.cores if alone else threads)
        self._untold.outcomes, self._untold.since = [*failed, *done], time.monotonic()

    def _prepare_for_device(self, work: Work) -> None:
        ready, failed = self._prepare(work.engine, [work])
        self._tell_last()
        with self._lock:
            self._prepared.extend(ready)
            self._stream_wanted.notify()
            self._left_device(1 - len(ready), work.engine)
        self._release(1)
        self._settle(failed)

    def _run_on_device(self, engine: Engine, batch: list[Work]) -> None:
        done = self._run(engine, batch, alone=False)
        failed = [outcome for outcome in done if outcome[2] is not None]
        with self._lock:
            self._returned.extend((work, output) for work, output, error in done if error is None)
            self._left_device(len(batch) - len(done) + len(failed), engine)
            self._core_wanted.notify_all()
        self._settle(failed)

    def _finish(self, work: Work, output: Any) -> None:
        self._tell_last()
        done = self._finished(work, output, None)
        with self._lock:
            self._left_device(1, work.engine)
        self._release(1)
        self._settle([done])

    def _left_device(self, number: int, engine: Engine) -> None:
        """Note, with the lock held, that work is no longer on its way through the device."""
        if not number:
            return
        self._ahead[engine] -= number
        if not self._ahead[engine]:
            del self._ahead[engine]
        self._wake_all()

    def _prepare(self, engine: Engine, works: list[Work]) -> tuple[list[Work], list[Outcome]]:
        """Prepare each; returns those that are ready, and those that came to nothing."""
        ready: list[Work] = []
        failed: list[Outcome] = []
        for work in works:
            if work.late:
                failed.append((work, None, DeadlineExceeded(_TOO_LATE)))
            elif not work.abandoned:
                ready.append(work)
        try:
            engine.allocate([work.job for work in ready])
        except Exception as error:  # noqa: BLE001  it is for the callers to know
            return [], [*failed, *((work, None, error) for work in ready)]
        for work in tuple(ready):
            try:
                engine.prepare(work.job)
            except Exception as error:  # noqa: BLE001  as above
                ready.remove(work)
                failed.append((work, None, error))
            if time.monotonic() - self._untold.since > _UNTOLD_S:
                self._tell_last()
        with self._lock:
            for work in works:
                if work not in ready:
                    self._charge(work, 0.0)
        return ready, failed

    def _claim_all(self, engine: Engine, threads: int) -> bool:
        """Take all cores for a run, if it is the only one and nobody has come meanwhile."""
        with self._lock:
            others = self._company or self._queue.size or self._free_cores + threads < self.cores
            if others or not engine.plan.alone_threads:
                return False
            self._free_cores = 0
            return True

    def _run(self, engine: Engine, works: list[Work], alone: bool) -> list[Outcome]:
        """Run a batch; where it breaks, each by itself, so that a failure stays its own."""
        with self._lock:
            works = [work for work in works if not work.abandoned]
            stop = Stop(len(works))
            for work in works:
                work.stop = stop
        if not works:
            return []
        started = time.monotonic()
        outputs: list[Any]
        failure: Exception | None = None
        try:
            outputs = engine.run([work.job for work in works], alone, stop)
            if len(outputs) != len(works):
                raise RuntimeError(
                    f"{engine.name} gave {len(outputs)} outputs for {len(works)} inputs"
                )
        except Exception as broken:  # noqa: BLE001  as above
            if stop.wanted:
                return []
            if len(works) > 1:
                return [outcome for work in works for outcome in self._run(engine, [work], alone)]
            outputs, failure = [None], broken
        seconds = time.monotonic() - started
        each_s = seconds / len(works)
        with self._lock:
            self._last_run = started + seconds
            statistics = self._statistics_of(engine)
            statistics.batches[len(works)] += 1
            statistics.alone += alone
            statistics.batch_s[len(works)] += seconds
            self._run_s.add(engine, each_s)
            if engine.plan.place == "device":
                self._work_s.add(engine, each_s)
            for work in works:
                work.run_s, work.batch = seconds, len(works)
                self._charge(work, each_s)
        return [(work, output, failure) for work, output in zip(works, outputs, strict=True)]

    def _tell_last(self) -> None:
        """Settle what the thread's last run gave, if that is still to be told."""
        outcomes, self._untold.outcomes = self._untold.outcomes, ()
        self._settle(outcomes)

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        """Give each caller his result, or the error."""
        for work, result, error in outcomes:
            if error is None:
                _tell(work, partial(work.future.set_result, result))
                continue
            with self._lock:
                statistics = self._statistics_of(work.engine)
                if isinstance(error, DeadlineExceeded):
                    statistics.expired += 1
                else:
                    statistics.failed += 1
            _tell(work, partial(work.future.set_exception, error))

    @staticmethod
    def _finished(work: Work, output: Any, error: Exception | None) -> Outcome:
        if error is not None:
            return work, None, error
        try:
            return work, work.engine.finish(work.job, output), None
        except Exception as wrong:  # noqa: BLE001  as above
            return work, None, wrong

    def _charge(self, work: Work, seconds: float) -> None:
        """Let a piece of work have cost so much; before it ran, what is expected."""
        self._queue.charge(work, seconds - work.charged_s)
        work.charged_s = seconds

    def _release(self, threads: int) -> None:
        with self._lock:
            self._free_cores += threads
            if threads > 1:
                self._core_wanted.notify_all()

    def _statistics_of(self, engine: Engine) -> Statistics:
        if (found := self._statistics.get(engine)) is None:
            found = self._statistics[engine] = Statistics()
        return found


class _Functions:
    """Plain work: a job is a function, and its result what that returns."""

    name = "a core"
    plan = Plan()

    def allocate(self, jobs: list[Any]) -> None:
        pass

    def prepare(self, job: Any) -> None:
        pass

    def run(self, jobs: list[Any], alone: bool, stop: Stop) -> list[Any]:
        return [job() for job in jobs]

    def finish(self, job: Any, output: Any) -> Any:
        return output


_FUNCTIONS = _Functions()
_TOO_LATE = "the deadline passed while the request was waiting"


def _tell(work: Work, news: Callable[[], Any]) -> None:
    def tell() -> None:
        if not work.future.done():
            news()

    # A loop that is closed has nobody waiting.
    with suppress(RuntimeError):
        work.loop.call_soon_threadsafe(tell)
