"""What runs, what waits, and what never runs: driven by events, never by time."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from server.errors import DeadlineExceeded, Overloaded
from server.scheduler import Scheduler


class Gate:
    """Work that says when it began and waits until it may end."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.may_end = threading.Event()

    def __call__(self) -> str:
        self.began.set()
        assert self.may_end.wait(10)
        return "done"

    async def wait_until_it_runs(self) -> None:
        assert await asyncio.to_thread(self.began.wait, 10)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.may_end.set()


@pytest.fixture
def scheduler(gate: Gate) -> Iterator[Scheduler]:
    """One worker, room for two that wait."""
    scheduler = Scheduler(workers=1, queue_size=2)
    yield scheduler
    gate.may_end.set()
    scheduler.close()


async def blocked(scheduler: Scheduler, gate: Gate) -> "asyncio.Task[tuple[str, float]]":
    """Keep the only worker busy until the gate opens."""
    task = asyncio.create_task(scheduler.run(gate))
    await gate.wait_until_it_runs()
    return task


async def submitted(scheduler: Scheduler, ran: list[str], name: str) -> "asyncio.Task[object]":
    """Put work that records its name behind what is there already."""
    task = asyncio.create_task(scheduler.run(lambda: ran.append(name)))
    await asyncio.sleep(0)  # Lets the task reach the queue.
    return task


async def test_work_gives_back_its_result_and_how_long_it_waited(scheduler: Scheduler) -> None:
    result, queue_ms = await scheduler.run(lambda: 42)
    assert result == 42
    assert 0 <= queue_ms < 10_000


async def test_work_runs_outside_the_loops_thread(scheduler: Scheduler) -> None:
    thread, _ = await scheduler.run(threading.current_thread)
    assert thread is not threading.main_thread()
    assert thread.name.startswith("worker")


async def test_what_work_raises_reaches_its_caller_and_spoils_nothing(
    scheduler: Scheduler,
) -> None:
    def broken() -> None:
        raise KeyError("lost")

    for _ in range(10):  # more than the queue holds: failed work counts as finished
        with pytest.raises(KeyError, match="lost"):
            await scheduler.run(broken)
    assert (await scheduler.run(lambda: 1))[0] == 1


async def test_waiting_work_runs_in_the_order_it_came(scheduler: Scheduler, gate: Gate) -> None:
    ran: list[str] = []
    first = await blocked(scheduler, gate)
    waiting = [await submitted(scheduler, ran, name) for name in ("a", "b")]
    gate.may_end.set()
    await asyncio.gather(first, *waiting)
    assert ran == ["a", "b"]


async def test_cancelled_work_never_runs(scheduler: Scheduler, gate: Gate) -> None:
    ran: list[str] = []
    first = await blocked(scheduler, gate)
    dropped = await submitted(scheduler, ran, "dropped")
    kept = await submitted(scheduler, ran, "kept")
    dropped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dropped
    gate.may_end.set()
    await asyncio.gather(first, kept)
    assert ran == ["kept"]


async def test_cancelled_work_gives_back_its_place(scheduler: Scheduler, gate: Gate) -> None:
    ran: list[str] = []
    first = await blocked(scheduler, gate)
    for _ in range(20):
        task = await submitted(scheduler, ran, "dropped")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    kept = await submitted(scheduler, ran, "kept")
    gate.may_end.set()
    await asyncio.gather(first, kept)
    assert ran == ["kept"]


async def test_expired_work_never_runs(scheduler: Scheduler, gate: Gate) -> None:
    ran: list[str] = []
    first = await blocked(scheduler, gate)
    expired = asyncio.create_task(
        scheduler.run(lambda: ran.append("expired"), deadline=time.monotonic())
    )
    in_time = asyncio.create_task(
        scheduler.run(lambda: ran.append("in time"), deadline=time.monotonic() + 600)
    )
    await asyncio.sleep(0)
    gate.may_end.set()
    with pytest.raises(DeadlineExceeded, match="while the request was waiting"):
        await expired
    await asyncio.gather(first, in_time)
    assert ran == ["in time"]


async def test_a_full_queue_refuses_more_and_says_when_to_come_back(
    scheduler: Scheduler, gate: Gate
) -> None:
    ran: list[str] = []
    first = await blocked(scheduler, gate)
    waiting = [await submitted(scheduler, ran, name) for name in ("a", "b")]
    with pytest.raises(Overloaded, match="2 pieces of work are waiting, the limit is 2") as refused:
        await scheduler.run(lambda: ran.append("refused"))
    assert refused.value.retry_after_s > 0
    gate.may_end.set()
    await asyncio.gather(first, *waiting)
    assert ran == ["a", "b"]
    assert (await scheduler.run(lambda: "there is room again"))[0] == "there is room again"


async def test_no_more_work_runs_at_once_than_there_are_workers() -> None:
    scheduler = Scheduler(workers=2, queue_size=10)
    gates = [Gate() for _ in range(3)]
    tasks = [asyncio.create_task(scheduler.run(gate)) for gate in gates]
    await gates[0].wait_until_it_runs()
    await gates[1].wait_until_it_runs()
    assert not gates[2].began.is_set()
    gates[1].may_end.set()
    await gates[2].wait_until_it_runs()
    gates[0].may_end.set()
    gates[2].may_end.set()
    assert [result for result, _ in await asyncio.gather(*tasks)] == ["done"] * 3
    scheduler.close()


async def test_closing_lets_what_runs_finish_and_drops_what_waits() -> None:
    scheduler, gate, ran = Scheduler(workers=1, queue_size=5), Gate(), []
    first = await blocked(scheduler, gate)
    waiting = await submitted(scheduler, ran, "dropped")
    closing = asyncio.create_task(asyncio.to_thread(scheduler.close))
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.may_end.set()
    assert (await first)[0] == "done"
    await closing
    assert ran == []
