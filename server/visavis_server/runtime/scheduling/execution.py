"""The steps of one batch: prepare each job, run all together, finish each result."""

import time
from typing import Any

from visavis_server.errors import DeadlineExceeded, Overloaded
from visavis_server.runtime.scheduling.delivery import Delivery
from visavis_server.runtime.scheduling.state import State
from visavis_server.runtime.scheduling.work import Engine, Outcome, Stop, Work

_TOO_LATE = "the deadline passed while the request was waiting"


class Execution:
    """Does the work of a batch. The caller must not hold the state's lock."""

    def __init__(self, state: State, delivery: Delivery) -> None:
        self._state = state
        self._delivery = delivery

    def prepare(self, engine: Engine, works: list[Work]) -> tuple[list[Work], list[Outcome]]:
        """Prepare each job; return the work that is ready, and the outcomes of what failed."""
        ready: list[Work] = []
        failed: list[Outcome] = []
        for work in works:
            if work.late:
                failed.append((work, None, DeadlineExceeded(_TOO_LATE)))
            elif not work.abandoned:
                ready.append(work)
        try:
            engine.allocate([work.job for work in ready])
        except Exception as error:  # noqa: BLE001  reported to the callers
            return [], [*failed, *((work, None, error) for work in ready)]
        for work in tuple(ready):
            began = time.monotonic()
            try:
                engine.prepare(work.job)
            except Exception as error:  # noqa: BLE001  reported to the caller
                ready.remove(work)
                failed.append((work, None, error))
            work.prepare_s = time.monotonic() - began
            self._delivery.deliver_overdue()
        with self._state.lock:
            for work in works:
                if work not in ready:
                    # A picture that is slow to reject costs its sender turns too.
                    self._state.charge(work, work.prepare_s)
        return ready, failed

    def run(
        self, engine: Engine, works: list[Work], exclusive: bool, *, halved: bool = False
    ) -> list[Outcome]:
        """Run a batch; if it fails, run each job alone, so that only the faulty one fails.

        If the memory is short, run the halves instead, once. halved: it is such a half.
        """
        with self._state.lock:
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
                    f"{engine.name} returned {len(outputs)} outputs for {len(works)} inputs"
                )
        except Exception as error:  # noqa: BLE001  reported to the callers
            if stop.requested:
                return []
            short = isinstance(error, Overloaded)
            if len(works) > 1 and not (short and halved):
                size = (len(works) + 1) // 2 if short else 1
                parts = [works[at : at + size] for at in range(0, len(works), size)]
                done = [self.run(engine, part, exclusive, halved=short) for part in parts]
                return [outcome for outcomes in done for outcome in outcomes]
            outputs, failure = [None] * len(works), error
        seconds = time.monotonic() - started
        each_s = seconds / len(works)
        state = self._state
        with state.lock:
            state.last_run = started + seconds
            counters = state.statistics_of(engine)
            counters.batches[len(works)] += 1
            counters.exclusive += exclusive
            counters.batch_s[len(works)] += seconds
            if failure is None and not stop.requested:
                state.run_s.add(engine, each_s)
                if engine.plan.runs_on == "device":
                    state.work_s.add(engine, each_s)
            for work in works:
                work.run_s, work.batch = seconds, len(works)
                state.charge(work, work.prepare_s + each_s)
        return [(work, output, failure) for work, output in zip(works, outputs, strict=True)]

    def finish(self, work: Work, output: Any, error: Exception | None) -> Outcome:
        """Turn an output into the job's result; `error` is passed on."""
        if error is not None:
            return work, None, error
        try:
            return work, work.engine.finish(work.job, output), None
        except Exception as failure:  # noqa: BLE001  reported to the caller
            return work, None, failure
