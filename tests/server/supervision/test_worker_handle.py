"""When a worker is replaced, and when it is killed."""

import time

from visavis_server.supervision.worker_handle import WorkerHandle


def test_the_first_end_is_made_good_at_once_and_early_ones_ever_later() -> None:
    worker = WorkerHandle(1)
    assert [worker.delay_s() for _ in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]


def test_a_worker_that_has_served_for_long_is_replaced_at_once() -> None:
    worker = WorkerHandle(1)
    for _ in range(5):
        worker.delay_s()
    worker.ready_at = time.monotonic() - 60
    assert worker.delay_s() == 0
    assert worker.early_ends == 0


def test_a_silent_worker_is_killed_and_one_that_loads_is_not() -> None:
    worker = WorkerHandle(1)
    long_ago = time.monotonic() - 60
    worker.heard_at = worker.proved_at = long_ago
    assert worker.why_kill(None) == ""
    worker.ready_at = long_ago
    assert "silent for 30 s" in worker.why_kill(None)
    worker.heard_at = time.monotonic()
    assert worker.why_kill(None) == ""
    assert "no model has answered for 10 s" in worker.why_kill(10)
    assert worker.why_kill(100) == ""
