"""What runs where: a bounded number of worker threads, a bounded queue before them.

It knows neither gRPC nor ONNX Runtime: work is anything that can be called.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from server.errors import DeadlineExceeded, Overloaded

Result = TypeVar("Result")


class Scheduler:
    """Runs blocking work on as many threads as there are cores.

    Work of one image stays on one thread, and a session runs on the thread that calls it,
    so that all models together never use more cores than there are.
    """

    def __init__(self, workers: int, queue_size: int) -> None:
        self.workers = workers
        self._queue_size = queue_size
        self._unfinished = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="worker")

    async def run(
        self, work: Callable[[], Result], deadline: float | None = None
    ) -> tuple[Result, float]:
        """Return what work() gives, and the milliseconds that it waited for a worker.

        deadline: on time.monotonic()'s clock. Work whose caller was cancelled, or whose
        deadline has passed, never starts. Raises Overloaded if the queue is full, and
        DeadlineExceeded.
        """
        waiting = self._unfinished - self.workers
        if waiting >= self._queue_size:
            raise Overloaded(
                f"{waiting} pieces of work are waiting, the limit is {self._queue_size}; "
                "try again later",
                retry_after_s=1.0,
            )
        submitted = time.monotonic()

        def timed() -> tuple[Result, float]:
            started = time.monotonic()
            if deadline is not None and started >= deadline:
                raise DeadlineExceeded("the deadline passed while the request was waiting")
            return work(), (started - submitted) * 1e3

        with self._lock:
            self._unfinished += 1
        future = self._threads.submit(timed)
        future.add_done_callback(self._finished)
        # Cancelling the awaiting task cancels the future, which keeps it from starting.
        return await asyncio.wrap_future(future)

    def _finished(self, future: Future[Any]) -> None:
        with self._lock:
            self._unfinished -= 1

    def close(self) -> None:
        """Drop what is waiting, and let what runs finish."""
        self._threads.shutdown(wait=True, cancel_futures=True)
