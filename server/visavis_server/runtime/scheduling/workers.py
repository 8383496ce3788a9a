"""The scheduler's threads: they run tasks, survive errors, and report what keeps them busy."""

import math
import threading
import time
from collections.abc import Callable

import structlog

from visavis_server.errors import ModelFailed
from visavis_server.runtime.scheduling.delivery import Delivery
from visavis_server.runtime.scheduling.state import State

_log = structlog.get_logger()

# The pause of a thread after an error in the scheduler: one that recurs must not take a core.
_PAUSE_S = 0.05


class Workers:
    """The threads of one scheduler.

    stuck_s: a thread is stuck after this time on one task; longer than any batch takes.
    """

    def __init__(self, state: State, delivery: Delivery, stuck_s: float) -> None:
        self._state = state
        self._delivery = delivery
        self._stuck_s = stuck_s
        self._threads: list[threading.Thread] = []
        # By thread: since when it has been busy, and with which engine. Guarded by the lock.
        self._busy: dict[str, tuple[float, str]] = {}
        self.errors = 0

    def start(self, name: str, next_task: Callable[[], Callable[[], None] | None]) -> None:
        """Start a thread that does tasks until next_task returns None.

        next_task is called with the lock held, the tasks without it.
        """

        def run() -> None:
            running = True
            while running:
                try:
                    running = self._run_one(name, next_task)
                except BaseException as error:  # noqa: BLE001  no error may end the thread
                    _log.error("scheduler error; the thread continues", thread=name, exc_info=error)
                    self._recover()

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run_one(self, name: str, next_task: Callable[[], Callable[[], None] | None]) -> bool:
        """Choose and do one task; return False if there are no more."""
        state = self._state
        # While the thread waits for the next task, it must not keep the last one's model alive.
        claim = state.claim
        claim.choosing, claim.engine, claim.works = True, None, ()
        with state.lock:
            self._busy.pop(name, None)
            task = next_task()
            claim.choosing = False
            if task is not None and claim.engine is not None:
                self._busy[name] = time.monotonic(), claim.engine.name
        if task is not None:
            task()
        return task is not None

    def _recover(self) -> None:
        """After an error in the scheduler, fail the work that this thread took, and free its cores.

        If the error came before any work was taken, all work that waits for the engine at turn
        fails, or all work if no engine was chosen: it would break the next thread too.
        """
        state, claim = self._state, self._state.claim
        with state.lock:
            self.errors += 1
            works = list(claim.works)
            if claim.choosing and not works:
                works = state.queue.clear(claim.engine)
            if works:
                state.expected_ends.end(works[0])
            state.leave_pipeline(works)
            state.free_cores, claim.cores = state.free_cores + claim.cores, 0
            state.wake_all()
        claim.engine, claim.works = None, ()
        deferred = self._delivery.take_deferred()
        done = {id(work) for work, _, _ in deferred}
        failed = ModelFailed("the server failed to process this request; see its log")
        lost = [(work, None, failed) for work in works if id(work) not in done]
        self._delivery.deliver([*deferred, *lost])
        time.sleep(_PAUSE_S)

    def trouble(self) -> str:
        """Name a thread that has ended, or is stuck while work waits; empty if all is well.

        The caller holds the lock.
        """
        state, now = self._state, time.monotonic()
        for thread in self._threads:
            if not thread.is_alive():
                return f"the thread {thread.name} has ended"
        if state.queue.size or state.prepared or state.returned:
            for name, (since, engine) in self._busy.items():
                if now - since > self._stuck_s:
                    return f"{name} has been busy for {now - since:.0f} s ({engine})"
        return ""

    def join(self, timeout_s: float | None) -> None:
        """Wait until all threads have ended, at most timeout_s."""
        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(None if timeout_s is None else max(end - time.monotonic(), 0.0))

    def still_running(self) -> list[str]:
        """Name the threads that have not ended, each with what keeps it busy."""
        now = time.monotonic()
        with self._state.lock:
            busy = dict(self._busy)
        alive = [thread.name for thread in self._threads if thread.is_alive()]
        return [
            f"{name} ({busy[name][1]}, {now - busy[name][0]:.1f} s)" if name in busy else name
            for name in alive
        ]
