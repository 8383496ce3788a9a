"""The loop of a core's thread: it does work from the queue, or prepares it for a device.

Work for the cores stays on one core from preparation to result, so that neither decoding nor
inference starves the other. A batch takes what is waiting and never waits to fill up.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from visavis_server.errors import DeadlineExceeded
from visavis_server.runtime.scheduling.admission import with_headroom
from visavis_server.runtime.scheduling.delivery import Delivery
from visavis_server.runtime.scheduling.execution import Execution
from visavis_server.runtime.scheduling.state import State
from visavis_server.runtime.scheduling.work import Engine, Outcome, Work

# The batches that the cores prepare ahead of each stream of a device.
_BATCHES_AHEAD = 2


class CoreLoop:
    """Chooses and does the tasks of the cores."""

    def __init__(self, state: State, execution: Execution, delivery: Delivery) -> None:
        self._state = state
        self._execution = execution
        self._delivery = delivery

    # Choosing a task. The state's lock is held; the task runs without it.

    def next_task(self) -> Callable[[], None] | None:
        """Wait for work and return it as a task; None: the scheduler is closed."""
        state = self._state
        while True:
            if state.returned and state.free_cores:
                work, output = state.returned.popleft()
                state.free_cores -= 1
                state.claim.engine = work.engine
                state.claim.take([work], 1)
                return partial(self._finish, work, output)
            engine = state.queue.next_engine(self._may_start)
            if engine is not None:
                threads = min(engine.plan.threads, state.cores)
                if threads <= state.free_cores:
                    return self._start(engine, threads)
            if self._delivery.has_deferred:
                return self._delivery.deliver_deferred
            if engine is None and state.closing and not state.in_pipeline:
                return None
            # An idle thread must not keep a model alive.
            engine = state.claim.engine = None
            state.core_work.wait()

    def _may_start(self, engine: Engine) -> bool:
        """Return True if an engine accepts work: the cores stay only a little ahead of a device."""
        state = self._state
        state.claim.engine = engine
        if engine.plan.runs_on == "cores":
            return True
        return state.in_pipeline[engine] < engine.plan.batch * state.streams * _BATCHES_AHEAD

    def _start(self, engine: Engine, threads: int) -> Callable[[], None]:
        """Take an engine's next work, and the cores for it."""
        state, now = self._state, time.monotonic()
        state.claim.engine = engine
        on_cores = engine.plan.runs_on == "cores"
        works = state.queue.take(engine, self._batch_size(engine, threads, now) if on_cores else 1)
        contended = state.contended
        if nothing_runs := state.free_cores == state.cores:
            state.contended = False
        state.free_cores -= threads
        state.claim.take(works, threads)
        ends = now + state.work_s(engine) * len(works)
        # Drop work that would end late only where other work waits for the core. Else it runs, and
        # so corrects a wrong forecast.
        others_wait = len(works) > 1 or state.queue.waiting(engine) > state.free_cores // threads
        for work in works:
            work.started = now
            work.late = work.caller.expired(ends if others_wait else now)
            if not work.late:
                state.statistics_of(engine).queue_s += work.queue_s
                state.charge(work, state.run_s(engine))
        if on_cores:
            state.expected_ends.begin(works[0], ends)
            may_be_exclusive = nothing_runs and not contended
            return partial(self._run_batch, engine, works, threads, may_be_exclusive)
        state.in_pipeline[engine] += 1
        works[0].in_pipeline = True
        return partial(self._prepare_for_device, works[0])

    def _batch_size(self, engine: Engine, threads: int, now: float) -> int:
        """Return the most work that an engine's next run on cores may take."""
        # Leave busy cores their share, and take little more than half of this core's own. Under
        # light load, large batches or batches of different size make some requests wait much
        # longer than others.
        state = self._state
        share = math.ceil(state.queue.waiting(engine) / (state.cores // threads))
        most = min(engine.plan.batch, share // 2 + 1)
        # Batching must not make a request miss its deadline.
        if most > 1 and (work_s := with_headroom(state.work_s(engine))):
            most = int(min(most, max((state.queue.deadline(engine) - now) / work_s, 1)))
        return most

    # Doing a task, without the lock.

    def _run_batch(
        self, engine: Engine, works: list[Work], threads: int, may_be_exclusive: bool
    ) -> None:
        """Do a batch from preparation to results, on its cores, or on all if nothing else runs."""
        state = self._state
        ready, failed = self._execution.prepare(engine, works)
        self._delivery.deliver_deferred()
        exclusive = may_be_exclusive and bool(ready) and self._claim_all(engine, threads)
        finish = self._execution.finish
        done = [finish(*outcome) for outcome in self._execution.run(engine, ready, exclusive)]
        # Release the cores before the results are delivered, so that the client's next request
        # finds them free.
        with state.lock:
            state.expected_ends.end(works[0])
            if _is_typical(ready, failed, done):
                state.work_s.add(engine, (time.monotonic() - works[0].started) / len(done))
            state.release_cores()
        self._delivery.defer([*failed, *done])

    def _claim_all(self, engine: Engine, threads: int) -> bool:
        """Claim all cores for a run if nothing else runs or waits; return False if not."""
        state = self._state
        with state.lock:
            others = state.contended or state.queue.size or state.free_cores + threads < state.cores
            if others or not engine.plan.exclusive_threads:
                return False
            state.free_cores, state.claim.cores = 0, state.cores
            return True

    def _prepare_for_device(self, work: Work) -> None:
        state = self._state
        ready, failed = self._execution.prepare(work.engine, [work])
        self._delivery.deliver_deferred()
        with state.lock:
            state.prepared.extend(ready)
            state.claim.works = ()  # a stream takes over
            state.stream_work.notify()
            if not ready:
                state.leave_pipeline([work])
            state.release_cores()
        self._delivery.deliver(failed)

    def _finish(self, work: Work, output: Any) -> None:
        """Finish what a device returned."""
        state = self._state
        self._delivery.deliver_deferred()
        done = self._execution.finish(work, output, None)
        with state.lock:
            state.leave_pipeline([work])
            state.release_cores()
        self._delivery.deliver([done])


def _is_typical(ready: list[Work], failed: list[Outcome], done: list[Outcome]) -> bool:
    """Return True if forecasts may learn from a batch: nothing failed, and all ran together.

    Work dropped before its preparation took no time.
    """
    whole = [work.batch for work, _, error in done if error is None] == [len(ready)] * len(ready)
    broken = any(not isinstance(error, DeadlineExceeded) for _, _, error in failed)
    return bool(ready) and whole and not broken and not (ready[0].stop and ready[0].stop.requested)
