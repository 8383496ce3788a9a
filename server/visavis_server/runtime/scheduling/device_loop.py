"""The loop of a device stream's thread: it runs prepared work in batches.

A device has several streams, so that one copies while another runs.
"""

from collections.abc import Callable
from functools import partial

from visavis_server.runtime.scheduling.delivery import Delivery
from visavis_server.runtime.scheduling.execution import Execution
from visavis_server.runtime.scheduling.state import State
from visavis_server.runtime.scheduling.work import Engine, Work


class DeviceLoop:
    """Chooses and does the tasks of a device's streams."""

    def __init__(self, state: State, execution: Execution, delivery: Delivery) -> None:
        self._state = state
        self._execution = execution
        self._delivery = delivery

    def next_task(self) -> Callable[[], None] | None:
        """Wait for prepared work and return it as a task; None: the scheduler is closed.

        The state's lock is held; the task runs without it.
        """
        state = self._state
        while not state.prepared:
            if state.closing and not state.in_pipeline:
                return None
            state.stream_work.wait()
        first = state.prepared.popleft()
        engine = state.claim.engine = first.engine
        state.claim.works = [first]  # claimed before the plan is read, which may raise
        more = [w for w in state.prepared if w.engine is engine][: engine.plan.batch - 1]
        batch = state.claim.works = [first, *more]
        for work in more:
            state.prepared.remove(work)
        return partial(self._run_batch, engine, batch)

    def _run_batch(self, engine: Engine, batch: list[Work]) -> None:
        state = self._state
        done = self._execution.run(engine, batch, exclusive=False)
        failed = [outcome for outcome in done if outcome[2] is not None]
        with state.lock:
            returned = [(work, output) for work, output, error in done if error is None]
            state.returned.extend(returned)
            kept = {id(work) for work, _ in returned}
            dropped = [work for work in batch if id(work) not in kept]
            state.claim.works = dropped  # a core takes over the rest
            state.leave_pipeline(dropped)
            state.core_work.notify_all()
        self._delivery.deliver(failed)
