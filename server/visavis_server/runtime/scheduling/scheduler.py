"""The scheduler: one queue for all models, shared by the cores and the streams of a device.

It knows neither gRPC nor ONNX Runtime nor images: an engine does the work.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from visavis_server.runtime.plan import Plan
from visavis_server.runtime.scheduling.admission import Admission
from visavis_server.runtime.scheduling.core_loop import CoreLoop
from visavis_server.runtime.scheduling.delivery import Delivery, cancel
from visavis_server.runtime.scheduling.device_loop import DeviceLoop
from visavis_server.runtime.scheduling.engine_statistics import Statistics
from visavis_server.runtime.scheduling.execution import Execution
from visavis_server.runtime.scheduling.state import State
from visavis_server.runtime.scheduling.work import Caller, Engine, Stop, Work, WorkTimings
from visavis_server.runtime.scheduling.workers import Workers

__all__ = ["Caller", "Engine", "Scheduler", "Statistics", "Stop", "WorkTimings"]

Result = TypeVar("Result")


class Scheduler:
    """Runs work on one thread for each core, and one for each stream of a device.

    cores: the budget of threads; a run takes as many as its plan says. streams: 0 without
    a device. queue_size: the most work that may wait for one engine. max_queue_wait_s: the longest
    wait of one request. stuck_s: longer than any batch takes. The scheduler keeps no engine alive
    that has no work.
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
        self._state = State(cores, streams)
        self._admission = Admission(self._state, queue_size, max_queue_wait_s)
        self._delivery = Delivery(self._state)
        self._execution = Execution(self._state, self._delivery)
        self._core_loop = CoreLoop(self._state, self._execution, self._delivery)
        self._device_loop = DeviceLoop(self._state, self._execution, self._delivery)
        self._workers = Workers(self._state, self._delivery, stuck_s)
        for i in range(cores):
            self._workers.start(f"core-{i}", self._core_loop.next_task)
        for i in range(streams):
            self._workers.start(f"stream-{i}", self._device_loop.next_task)

    async def submit(self, engine: Engine, job: Any, caller: Caller) -> tuple[Any, WorkTimings]:
        """Return the engine's result for a job, and its timings.

        A job never runs if its caller has left, or if it cannot meet its deadline; a run stops
        once all its callers have left. Raises Overloaded if too much work waits for the engine, or
        the answer would be late; DeadlineExceeded; and whatever the engine raises.
        """
        state = self._state
        loop, now = asyncio.get_running_loop(), time.monotonic()
        with state.lock:
            if state.closing:
                raise asyncio.CancelledError("the scheduler is closed")
            self._admission.require([engine], caller, now)
            work = Work(engine, job, caller, loop, loop.create_future(), now)
            state.queue.put(work)
            state.contended |= state.free_cores < state.cores
            state.core_work.notify()
        try:
            return await work.future, WorkTimings(work.queue_s * 1e3, work.run_s * 1e3, work.batch)
        except asyncio.CancelledError:
            with state.lock:
                state.statistics_of(engine).cancelled += 1
                state.queue.abandon(work)
                if work.stop:
                    work.stop.leave()
            raise

    async def run(self, function: Callable[[], Result], caller: Caller) -> tuple[Result, float]:
        """Return the result of a function run on one core, and its queue time in milliseconds.

        Raises as submit does.
        """
        result, timings = await self.submit(_FUNCTIONS, function, caller)
        return result, timings.queue_ms

    @property
    def something_waits(self) -> bool:
        """True if work is waiting for a core."""
        return self._state.queue.size > 0

    def require_room(self, engines: Iterable[Engine], caller: Caller) -> None:
        """Raise Overloaded if submit would raise it now for every one of the engines."""
        with self._state.lock:
            self._admission.require(engines, caller, time.monotonic())

    def statistics(self) -> dict[Engine, Statistics]:
        """Return a copy of the counters so far, by engine."""
        with self._state.lock:
            return {
                engine: replace(each, batches=each.batches.copy(), batch_s=each.batch_s.copy())
                for engine, each in list(self._state.statistics.items())
            }

    def waiting(self, engine: Engine) -> int:
        """Return the number of jobs that wait for an engine now."""
        with self._state.lock:
            return self._state.queue.waiting(engine)

    def ran_within(self, seconds: float) -> bool:
        """Return True if a run has ended within the last seconds."""
        return time.monotonic() - self._state.last_run < seconds

    @property
    def errors(self) -> int:
        """The number of errors in the scheduler itself that it has survived."""
        return self._workers.errors

    def trouble(self) -> str:
        """Name a thread that has ended, or is stuck while work waits; empty if all is well."""
        with self._state.lock:
            return "" if self._state.closing else self._workers.trouble()

    def close(self, timeout_s: float | None = None) -> None:
        """Cancel waiting work, and wait for running work, at most timeout_s."""
        with self._state.lock:
            self._state.closing = True
            dropped = self._state.queue.clear()
            self._state.wake_all()
        for work in dropped:
            cancel(work)
        self._workers.join(timeout_s)

    def still_running(self) -> list[str]:
        """Name the threads that have not ended, each with what keeps it busy."""
        return self._workers.still_running()


class _Functions:
    """The engine of plain functions: a job is a function, its result the return value."""

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
