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

import structlog

from visavis_server.errors import DeadlineExceeded, ModelFailed, Overloaded
from visavis_server.runtime.plan import Plan
from visavis_server.runtime.scheduling.fair_queue import Caller, Engine, FairQueue, Stop, Work
from visavis_server.runtime.scheduling.forecast import Average, Occupied

__all__ = ["Caller", "Engine", "Scheduler", "Statistics", "Stop", "WorkTimings"]

_log = structlog.get_logger()

Result = TypeVar("Result")
Task = Callable[[], None]
Outcome = tuple[Work, Any, Exception | None]

# Batches that the cores prepare ahead of each stream of a device.
_BATCHES_AHEAD = 2
# How long results may wait while the next batch is prepared. Python's lock is free in a run, and
# the loop takes it to send answers: in the midst of preparing both would wait for each other, and
# the cores stood still for 4 % of the time (an int8 ResNet-50, 32 callers).
_MAX_PENDING_S = 0.02
# Forecasts err. Who is let in has so much of the forecast in reserve: else every second one would
# come a little too late, when all that are let in just fit.
_RESERVE = 0.25
# When a caller who was refused may try again, at the soonest and at the latest.
_RETRY_S = (0.1, 30.0)
# How long a thread rests after an error of the scheduler's own: one that comes back at once must
# not take a core.
_REST_S = 0.05


@dataclass(frozen=True, slots=True)
class WorkTimings:
    """Where the time of one piece of work went; batch: how many shared its run."""

    queue_ms: float
    run_ms: float
    batch: int


@dataclass(slots=True)
class Statistics:
    """What has happened to one engine's work since the start.

    batches: how many runs had each batch size. batch_s: the seconds of these. exclusive: runs that
    had all cores. queue_s: waited, by all that started.
    """

    batches: Counter[int] = field(default_factory=Counter)
    batch_s: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    exclusive: int = 0
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
class _PendingResults(threading.local):
    """What a core's thread has not told yet of its last run, and since when it could."""

    outcomes: Sequence[Outcome] = ()
    since: float = 0.0


@dataclass
class _Held(threading.local):
    """What a thread has taken: it is given back, and fails, if the scheduler breaks meanwhile.

    taking: whether the next task is still being chosen. engine: whose turn it was last. works:
    taken from the queue or from the device. cores: not given back yet.
    """

    taking: bool = True
    engine: Engine | None = None
    works: Sequence[Work] = ()
    cores: int = 0

    def take(self, works: Sequence[Work], cores: int) -> None:
        """Note what the thread holds from now on."""
        self.works, self.cores = works, cores


class Scheduler:
    """One thread for each core, and for each stream of a device.

    cores: the budget of threads; a run takes as many as its plan says. streams: 0 without
    a device. queue_size: how much may wait for one engine. max_queue_wait_s: how long one request
    may have to wait. stuck_s: longer than any batch takes. An engine that nobody else holds is
    forgotten.
    """

    def __init__(
        self,
        cores: int,
        queue_size: int,
        streams: int = 0,
        max_queue_wait_s: float = math.inf,
        stuck_s: float = math.inf,
    ) -> None:
        self.cores = cores
        self.streams = streams
        self._queue_size = queue_size
        self._max_queue_wait_s = max_queue_wait_s
        self._stuck_s = stuck_s
        self._queue = FairQueue()
        self._lock = threading.Lock()
        self._core_wanted = threading.Condition(self._lock)
        self._stream_wanted = threading.Condition(self._lock)
        self._free_cores = cores
        # Somebody came while something ran: whoever is next has not the machine for himself.
        self._contended = False
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
        self._pending_results = _PendingResults()
        self._held = _Held()
        # By thread: since when it has been busy, and with what.
        self._busy: dict[str, tuple[float, str]] = {}
        self._errors = 0
        self._closing = False
        self._threads = [
            *(self._thread(f"core-{i}", self._next_on_core) for i in range(cores)),
            *(self._thread(f"stream-{i}", self._next_on_stream) for i in range(streams)),
        ]

    async def submit(self, engine: Engine, job: Any, caller: Caller) -> tuple[Any, WorkTimings]:
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
            self._admit([engine], caller, now)
            work = Work(engine, job, caller, loop, loop.create_future(), now)
            self._queue.put(work)
            self._contended |= self._free_cores < self.cores
            self._core_wanted.notify()
        try:
            return await work.future, WorkTimings(work.queue_s * 1e3, work.run_s * 1e3, work.batch)
        except asyncio.CancelledError:
            with self._lock:
                self._statistics_of(engine).cancelled += 1
                self._queue.abandon(work)
                if work.stop:
                    work.stop.leave()
            raise

    async def run(self, function: Callable[[], Result], caller: Caller) -> tuple[Result, float]:
        """Return what a function gives, run on one core, and the milliseconds that it waited.

        Raises as submit does.
        """
        result, spent = await self.submit(_FUNCTIONS, function, caller)
        return result, spent.queue_ms

    @property
    def something_waits(self) -> bool:
        """Whether there is work that no core has begun."""
        return self._queue.size > 0

    def require_room(self, engines: Iterable[Engine], caller: Caller) -> None:
        """Raise Overloaded if submit would now, for whichever of the engines."""
        with self._lock:
            self._admit(engines, caller, time.monotonic())

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

    @property
    def errors(self) -> int:
        """How many errors of its own it has survived."""
        return self._errors

    def trouble(self) -> str:
        """Return which thread is dead, or stuck while work waits; nothing if all is well."""
        now = time.monotonic()
        with self._lock:
            if self._closing:
                return ""
            for thread in self._threads:
                if not thread.is_alive():
                    return f"the thread {thread.name} has ended"
            if self._queue.size or self._prepared or self._returned:
                for name, (since, what) in self._busy.items():
                    if now - since > self._stuck_s:
                        return f"{name} has been at work for {now - since:.0f} s ({what})"
        return ""

    def close(self, timeout_s: float | None = None) -> None:
        """Drop what is waiting, and let what runs finish, for so long at most."""
        with self._lock:
            self._closing = True
            dropped = self._queue.clear()
            self._wake_all()
        for work in dropped:
            _deliver(work, work.future.cancel)
        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(None if timeout_s is None else max(end - time.monotonic(), 0.0))

    def still_running(self) -> list[str]:
        """Return the threads that have not ended, and what each is busy with."""
        now = time.monotonic()
        with self._lock:
            busy = dict(self._busy)
        alive = [thread.name for thread in self._threads if thread.is_alive()]
        return [
            f"{name} ({busy[name][1]}, {now - busy[name][0]:.1f} s)" if name in busy else name
            for name in alive
        ]

    # Taking work. The lock is held; each returns what is to be done without it.

    def _admit(self, choice: Iterable[Engine], caller: Caller, now: float) -> None:
        """Raise Overloaded if none can do it in time, or for each too many others wait."""
        refusals: list[tuple[Overloaded, Engine]] = []
        for engine in choice:
            if (refusal := self._refusal(engine, caller, now)) is None:
                return
            refusals.append((refusal, engine))
        if refusals:
            soonest, engine = min(refusals, key=lambda refused: refused[0].retry_after_s)
            self._statistics_of(engine).refused += 1
            raise soonest

    def _refusal(self, engine: Engine, caller: Caller, now: float) -> Overloaded | None:
        waiting = self._queue.waiting(engine)
        wait_s = self._wait_s(engine, caller, now)
        needed_s = (wait_s + self._work_s(engine)) * (1 + _RESERVE)
        if waiting >= self._queue_size:
            why = f"{waiting} requests wait for {engine.name}, the limit is {self._queue_size}"
            spare_s = 0.0
        elif wait_s > self._max_queue_wait_s:
            why = (
                f"a request for {engine.name} would wait {wait_s:.1f} s, "
                f"the limit is {self._max_queue_wait_s:g} s"
            )
            spare_s = self._max_queue_wait_s
        elif wait_s and caller.expired(now + needed_s):
            spare_s = max(caller.due(now) - now, 0.0)
            # Rounded apart: what is needed is more than what there is.
            why = (
                f"{engine.name} is busy: an answer would take {math.ceil(needed_s * 100) / 100} s, "
                f"a reserve of {_RESERVE:.0%} included, "
                f"the deadline is in {math.floor(spare_s * 100) / 100} s"
            )
        else:
            return None
        soonest, latest = _RETRY_S
        return Overloaded(
            f"{why}; try again later", retry_after_s=min(max(wait_s - spare_s, soonest), latest)
        )

    def _wait_s(self, engine: Engine, caller: Caller, now: float) -> float:
        """Return how long a call's work would wait, were it put now."""
        if engine.plan.runs_on == "device":
            ahead = self._queue.waiting(engine) + self._ahead[engine]
            return ahead * self._work_s(engine) / self.streams
        ahead_s = self._queue.ahead_s(engine, caller, now, self._work_s)
        # Idle cores take a call, whatever is expected of it: what waits is about to be taken.
        waiting = self._queue.size if ahead_s else 0
        if self._free_cores >= engine.plan.threads * (waiting + 1):
            return 0.0
        return (ahead_s + self._occupied.remaining_s(now)) / self.cores

    def _thread(self, name: str, take: Callable[[], Task | None]) -> threading.Thread:
        def one_task() -> bool:
            # While it waits for the next task nothing may hold the last one, and its model.
            held = self._held
            held.taking, held.engine, held.works = True, None, ()
            with self._lock:
                self._busy.pop(name, None)
                task = take()
                held.taking = False
                if task is not None and held.engine is not None:
                    self._busy[name] = time.monotonic(), held.engine.name
            if task is not None:
                task()
            return task is not None

        def work() -> None:
            goes_on = True
            while goes_on:
                try:
                    goes_on = one_task()
                except BaseException as error:  # noqa: BLE001  the thread goes on, whatever it was
                    _log.error("the scheduler failed; it goes on", thread=name, exc_info=error)
                    self._mend()

        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        return thread

    def _mend(self) -> None:
        """Fail what this thread holds, and give it back, after an error of the scheduler's own.

        If it broke before it had taken anything, what waits for the engine whose turn it was
        fails, or else all that waits: it would break the next thread too.
        """
        held = self._held
        with self._lock:
            self._errors += 1
            works = list(held.works)
            if held.taking and not works:
                works = self._queue.clear(held.engine)
            if works:
                self._occupied.end(works[0])
            self._left_device(works)
            self._free_cores, held.cores = self._free_cores + held.cores, 0
            self._wake_all()
        held.engine, held.works = None, ()
        pending, self._pending_results.outcomes = self._pending_results.outcomes, ()
        delivered = {id(work) for work, _, _ in pending}
        failed = ModelFailed("the server failed at this request; its log says why")
        lost = [(work, None, failed) for work in works if id(work) not in delivered]
        self._settle([*pending, *lost])
        time.sleep(_REST_S)

    def _next_on_core(self) -> Task | None:
        """Wait for something to do on a core; None: the scheduler closes."""
        while True:
            if self._returned and self._free_cores:
                work, output = self._returned.popleft()
                self._free_cores -= 1
                self._held.engine = work.engine
                self._held.take([work], 1)
                return partial(self._finish, work, output)
            engine = self._queue.first(self._may_start)
            if engine is not None:
                threads = min(engine.plan.threads, self.cores)
                if threads <= self._free_cores:
                    return self._take(engine, threads)
            if self._pending_results.outcomes:
                return self._tell_last
            if engine is None and self._closing and not self._ahead:
                return None
            engine = self._held.engine = None  # not held while there is nothing to do
            self._core_wanted.wait()

    def _may_start(self, engine: Engine) -> bool:
        """Say whether an engine takes more: the cores stay only a little ahead of a device."""
        self._held.engine = engine
        if engine.plan.runs_on == "cores":
            return True
        return self._ahead[engine] < engine.plan.batch * self.streams * _BATCHES_AHEAD

    def _take(self, engine: Engine, threads: int) -> Task:
        """Take an engine's next work, and that many cores for it."""
        now = time.monotonic()
        self._held.engine = engine
        on_cores = engine.plan.runs_on == "cores"
        works = self._queue.take(engine, self._batch(engine, threads, now) if on_cores else 1)
        came = self._contended
        if nothing_runs := self._free_cores == self.cores:
            self._contended = False
        self._free_cores -= threads
        self._held.take(works, threads)
        ends = now + self._work_s(engine) * len(works)
        # Where a core is left for each that waits all run, so that a wrong forecast is mended.
        others_wait = len(works) > 1 or self._queue.waiting(engine) > self._free_cores // threads
        for work in works:
            work.started = now
            work.late = work.caller.expired(ends if others_wait else now)
            if not work.late:
                self._statistics_of(engine).queue_s += work.queue_s
                self._charge(work, self._run_s(engine))
        if on_cores:
            self._occupied.begin(works[0], ends)
            may_be_exclusive = nothing_runs and not came
            return partial(self._serve, engine, works, threads, may_be_exclusive)
        self._ahead[engine] += 1
        works[0].ahead = True
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
        first = self._prepared.popleft()
        engine = self._held.engine = first.engine
        self._held.works = [first]  # before the plan is asked for, which may break
        more = [w for w in self._prepared if w.engine is engine][: engine.plan.batch - 1]
        batch = self._held.works = [first, *more]
        for work in more:
            self._prepared.remove(work)
        return partial(self._run_on_device, engine, batch)

    def _wake_all(self) -> None:
        self._core_wanted.notify_all()
        self._stream_wanted.notify_all()

    # Doing it, without the lock.

    def _serve(
        self, engine: Engine, works: list[Work], threads: int, may_be_exclusive: bool
    ) -> None:
        """Do a batch from preparation to results, on its cores, or on all if it is alone."""
        ready, failed = self._prepare(engine, works)
        self._tell_last()
        exclusive = may_be_exclusive and bool(ready) and self._claim_all(engine, threads)
        done = [self._finished(*outcome) for outcome in self._run(engine, ready, exclusive)]
        with self._lock:
            self._occupied.end(works[0])
            if _is_typical(ready, failed, done):
                self._work_s.add(engine, (time.monotonic() - works[0].started) / len(done))
        # First the cores, then the news: the caller's next request finds them free.
        self._release()
        self._pending_results.outcomes = [*failed, *done]
        self._pending_results.since = time.monotonic()

    def _prepare_for_device(self, work: Work) -> None:
        ready, failed = self._prepare(work.engine, [work])
        self._tell_last()
        with self._lock:
            self._prepared.extend(ready)
            self._held.works = ()  # a stream's, from now on
            self._stream_wanted.notify()
            if not ready:
                self._left_device([work])
        self._release()
        self._settle(failed)

    def _run_on_device(self, engine: Engine, batch: list[Work]) -> None:
        done = self._run(engine, batch, exclusive=False)
        failed = [outcome for outcome in done if outcome[2] is not None]
        with self._lock:
            returned = [(work, output) for work, output, error in done if error is None]
            self._returned.extend(returned)
            kept = {id(work) for work, _ in returned}
            gone = [work for work in batch if id(work) not in kept]
            self._held.works = gone  # the others are a core's, from now on
            self._left_device(gone)
            self._core_wanted.notify_all()
        self._settle(failed)

    def _finish(self, work: Work, output: Any) -> None:
        self._tell_last()
        done = self._finished(work, output, None)
        with self._lock:
            self._left_device([work])
        self._release()
        self._settle([done])

    def _left_device(self, works: Iterable[Work]) -> None:
        """Note, with the lock held, that work is no longer on its way through the device."""
        for work in works:
            if not work.ahead:
                continue
            work.ahead = False
            self._ahead[work.engine] -= 1
            if not self._ahead[work.engine]:
                del self._ahead[work.engine]
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
            began = time.monotonic()
            try:
                engine.prepare(work.job)
            except Exception as error:  # noqa: BLE001  as above
                ready.remove(work)
                failed.append((work, None, error))
            work.prepare_s = time.monotonic() - began
            if time.monotonic() - self._pending_results.since > _MAX_PENDING_S:
                self._tell_last()
        with self._lock:
            for work in works:
                if work not in ready:
                    # Pictures that take long and are then refused cost their sender turns too.
                    self._charge(work, work.prepare_s)
        return ready, failed

    def _claim_all(self, engine: Engine, threads: int) -> bool:
        """Take all cores for a run, if it is the only one and nobody has come meanwhile."""
        with self._lock:
            others = self._contended or self._queue.size or self._free_cores + threads < self.cores
            if others or not engine.plan.exclusive_threads:
                return False
            self._free_cores, self._held.cores = 0, self.cores
            return True

    def _run(self, engine: Engine, works: list[Work], exclusive: bool) -> list[Outcome]:
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
            outputs = engine.run([work.job for work in works], exclusive, stop)
            if len(outputs) != len(works):
                raise RuntimeError(
                    f"{engine.name} gave {len(outputs)} outputs for {len(works)} inputs"
                )
        except Exception as broken:  # noqa: BLE001  as above
            if stop.wanted:
                return []
            if len(works) > 1:
                return [
                    outcome for work in works for outcome in self._run(engine, [work], exclusive)
                ]
            outputs, failure = [None], broken
        seconds = time.monotonic() - started
        each_s = seconds / len(works)
        with self._lock:
            self._last_run = started + seconds
            statistics = self._statistics_of(engine)
            statistics.batches[len(works)] += 1
            statistics.exclusive += exclusive
            statistics.batch_s[len(works)] += seconds
            if failure is None and not stop.wanted:
                self._run_s.add(engine, each_s)
                if engine.plan.runs_on == "device":
                    self._work_s.add(engine, each_s)
            for work in works:
                work.run_s, work.batch = seconds, len(works)
                self._charge(work, work.prepare_s + each_s)
        return [(work, output, failure) for work, output in zip(works, outputs, strict=True)]

    def _tell_last(self) -> None:
        """Settle what the thread's last run gave, if that is still to be told."""
        outcomes, self._pending_results.outcomes = self._pending_results.outcomes, ()
        self._settle(outcomes)

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        """Give each caller his result, or the error."""
        for work, result, error in outcomes:
            if error is None:
                _deliver(work, partial(work.future.set_result, result))
                continue
            with self._lock:
                statistics = self._statistics_of(work.engine)
                if isinstance(error, DeadlineExceeded):
                    statistics.expired += 1
                else:
                    statistics.failed += 1
            _deliver(work, partial(work.future.set_exception, error))

    @staticmethod
    def _finished(work: Work, output: Any, error: Exception | None) -> Outcome:
        if error is not None:
            return work, None, error
        try:
            return work, work.engine.finish(work.job, output), None
        except Exception as wrong:  # noqa: BLE001  as above
            return work, None, wrong

    def _charge(self, work: Work, seconds: float) -> None:
        """Let a piece of work have cost so many seconds; before it ran, what is expected."""
        self._queue.charge(work, seconds - work.charged_s)
        work.charged_s = seconds

    def _release(self) -> None:
        """Give back the cores that this thread holds."""
        with self._lock:
            cores, self._held.cores = self._held.cores, 0
            self._free_cores += cores
            if cores > 1:
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

    def run(self, jobs: list[Any], exclusive: bool, stop: Stop) -> list[Any]:
        return [job() for job in jobs]

    def finish(self, job: Any, output: Any) -> Any:
        return output


_FUNCTIONS = _Functions()
_TOO_LATE = "the deadline passed while the request was waiting"


def _is_typical(ready: list[Work], failed: list[Outcome], done: list[Outcome]) -> bool:
    """Say whether the time of a batch tells of the next: nothing failed, all ran together.

    Work that was dropped unprepared took none of it.
    """
    whole = [work.batch for work, _, error in done if error is None] == [len(ready)] * len(ready)
    broken = any(not isinstance(error, DeadlineExceeded) for _, _, error in failed)
    return bool(ready) and whole and not broken and not (ready[0].stop and ready[0].stop.wanted)


def _deliver(work: Work, news: Callable[[], Any]) -> None:
    def tell() -> None:
        if not work.future.done():
            news()

    # A loop that is closed has nobody waiting.
    with suppress(RuntimeError):
        work.loop.call_soon_threadsafe(tell)
