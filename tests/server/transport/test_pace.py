"""Work that blocks the event loop alternates with everything else."""

import asyncio
import time

import pytest

from visavis_server.transport.pace import Pace


async def copying(ready: asyncio.Event, log: list[str], name: str) -> str:
    """Wait, then block the loop for longer than its limit per iteration."""
    await ready.wait()
    until = time.perf_counter() + 0.006
    while time.perf_counter() < until:
        pass
    log.append(name)
    return name


async def test_simultaneous_work_is_done_in_order_with_other_tasks_in_between() -> None:
    pace, ready, log = Pace(), asyncio.Event(), list[str]()

    async def run(name: str) -> str:
        return await pace.paced(copying(ready, log, name))

    tasks = [asyncio.create_task(run(name)) for name in "abcde"]
    await asyncio.sleep(0)
    ready.set()
    while len(log) - log.count("other") < 5:
        await asyncio.sleep(0)
        log.append("other")
    done = [name for name in log if name != "other"]
    assert done == list("abcde")
    assert all(log[log.index(name) - 1] == "other" for name in "bcde")
    assert await asyncio.gather(*tasks) == list("abcde")


async def test_small_work_shares_an_iteration() -> None:
    pace, log = Pace(), list[str]()

    async def run(name: str) -> None:
        await pace.turn()
        pace.spend(time.perf_counter() - 0.001)
        log.append(name)

    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(run(name))
        await asyncio.sleep(0)
        log.append("other")
    assert log == ["a", "b", "c", "other"]


async def test_any_number_of_small_messages_never_waits() -> None:
    pace = Pace()
    for _ in range(1000):
        pace.spend(time.perf_counter())
    waiting = pace.turn()
    with pytest.raises(StopIteration):
        waiting.send(None)


async def test_errors_and_cancellation_reach_the_work_and_its_caller() -> None:
    pace, seen = Pace(), list[str]()

    async def broken() -> None:
        await asyncio.sleep(0)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await pace.paced(broken())

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def run() -> None:
        await pace.paced(endless())

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]


async def test_work_cancelled_while_it_waits_never_continues() -> None:
    pace, ready, log = Pace(), asyncio.Event(), list[str]()

    async def run(name: str) -> str:
        return await pace.paced(copying(ready, log, name))

    tasks = [asyncio.create_task(run(name)) for name in "ab"]
    await asyncio.sleep(0)
    ready.set()
    while not log:
        await asyncio.sleep(0)
    tasks[1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert log == ["a"]
    assert isinstance(results[1], asyncio.CancelledError)
