"""The scheduler's order of work, refusals and recovery; driven by events, never by time."""

import asyncio
import math
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from visavis_server.errors import DeadlineExceeded, ModelFailed, Overloaded
from visavis_server.runtime.plan import Plan
from visavis_server.runtime.scheduling.scheduler import Caller, Scheduler, Stop

CALLER = Caller("Classify")


class Gate:
    """Work that signals when it begins, and waits until it may end."""

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
    """One core, and a queue of two."""
    scheduler = Scheduler(cores=1, queue_size=2)
    yield scheduler
    gate.may_end.set()
    scheduler.close()


async def blocked(scheduler: Scheduler, gate: Gate) -> "asyncio.Task[tuple[str, float]]":
    """Keep the only core busy until the gate opens."""
    task = asyncio.create_task(scheduler.run(gate, CALLER))
    await gate.wait_until_it_runs()
    return task


async def submitted(scheduler: Scheduler, ran: list[str], name: str) -> "asyncio.Task[object]":
    """Queue work that records its name when it runs."""
    task = asyncio.create_task(scheduler.run(lambda: ran.append(name), CALLER))
    await asyncio.sleep(0)  # Lets the task reach the queue.
    return task


async def test_work_returns_its_result_and_its_queue_time(scheduler: Scheduler) -> None:
    result, queue_ms = await scheduler.run(lambda: 42, CALLER)
    assert result == 42
    assert 0 <= queue_ms < 10_000


async def test_work_runs_outside_the_event_loops_thread(scheduler: Scheduler) -> None:
    thread, _ = await scheduler.run(threading.current_thread, CALLER)
    assert thread is not threading.main_thread()
    assert thread.name.startswith("core")


async def test_an_exception_reaches_its_caller_and_affects_no_other_work(
    scheduler: Scheduler,
) -> None:
    def broken() -> None:
        raise KeyError("lost")

    for _ in range(10):  # More than the queue holds: failed work leaves it.
        with pytest.raises(KeyError, match="lost"):
            await scheduler.run(broken, CALLER)
    assert (await scheduler.run(lambda: 1, CALLER))[0] == 1


async def test_waiting_work_runs_in_order_of_arrival(scheduler: Scheduler, gate: Gate) -> None:
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


async def test_cancelled_work_frees_its_place_in_the_queue(
    scheduler: Scheduler, gate: Gate
) -> None:
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
        scheduler.run(lambda: ran.append("expired"), Caller("Classify", time.monotonic()))
    )
    in_time = asyncio.create_task(
        scheduler.run(lambda: ran.append("in time"), Caller("Classify", time.monotonic() + 600))
    )
    await asyncio.sleep(0)
    gate.may_end.set()
    with pytest.raises(DeadlineExceeded, match="while the request was waiting"):
        await expired
    await asyncio.gather(first, in_time)
    assert ran == ["in time"]


async def test_a_full_queue_refuses_work_with_a_retry_time(
    scheduler: Scheduler, gate: Gate
) -> None:
    ran: list[str] = []
    first = await blocked(scheduler, gate)
    waiting = [await submitted(scheduler, ran, name) for name in ("a", "b")]
    with pytest.raises(
        Overloaded, match="2 requests are waiting for a core; the limit is 2"
    ) as refused:
        await scheduler.run(lambda: ran.append("refused"), CALLER)
    assert refused.value.retry_after_s > 0
    gate.may_end.set()
    await asyncio.gather(first, *waiting)
    assert ran == ["a", "b"]
    assert (await scheduler.run(lambda: "there is room again", CALLER))[0] == "there is room again"


async def test_concurrent_work_never_exceeds_the_cores() -> None:
    scheduler = Scheduler(cores=2, queue_size=10)
    gates = [Gate() for _ in range(3)]
    tasks = [asyncio.create_task(scheduler.run(gate, CALLER)) for gate in gates]
    await gates[0].wait_until_it_runs()
    await gates[1].wait_until_it_runs()
    assert not gates[2].began.is_set()
    gates[1].may_end.set()
    await gates[2].wait_until_it_runs()
    gates[0].may_end.set()
    gates[2].may_end.set()
    assert [result for result, _ in await asyncio.gather(*tasks)] == ["done"] * 3
    scheduler.close()


async def test_closing_finishes_running_work_and_cancels_waiting_work() -> None:
    scheduler, gate, ran = Scheduler(cores=1, queue_size=5), Gate(), []
    first = await blocked(scheduler, gate)
    waiting = await submitted(scheduler, ran, "dropped")
    closing = asyncio.create_task(asyncio.to_thread(scheduler.close))
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.may_end.set()
    assert (await first)[0] == "done"
    await closing
    assert ran == []


class Recorder:
    """An engine that records its calls, and whose runs can be held.

    A job is a string: preparing "bad ..." fails, and "poison" fails the run that it is in.
    """

    def __init__(self, name: str = "model", **plan: Any) -> None:
        self.name = name
        self.plan = Plan(**plan)
        self.batches: list[list[str]] = []
        self.exclusive: list[bool] = []
        self.finished: list[str] = []
        self.began = threading.Semaphore(0)
        self.may_end = threading.Event()
        self.may_end.set()
        self.on_run: Callable[[list[str]], None] = lambda jobs: None
        self.on_prepare: Callable[[str], None] = lambda job: None

    def allocate(self, jobs: list[str]) -> None:
        assert jobs or not self.batches

    def prepare(self, job: str) -> None:
        self.on_prepare(job)
        if job.startswith("bad"):
            raise ValueError(f"{job} can't be prepared")

    def run(self, jobs: list[str], exclusive: bool, stop: Stop) -> list[str]:
        self.batches.append(list(jobs))
        self.exclusive.append(exclusive)
        self.began.release()
        self.on_run(jobs)
        assert self.may_end.wait(10)
        if "poison" in jobs:
            raise RuntimeError("poisoned")
        return [job.upper() for job in jobs]

    def finish(self, job: str, output: str) -> str:
        self.finished.append(job)
        return f"{job} -> {output}"

    async def running(self) -> None:
        """Wait until one more run has begun."""
        assert await asyncio.to_thread(self.began.acquire, timeout=10)


@pytest_asyncio.fixture
async def make() -> AsyncIterator[Callable[..., Scheduler]]:
    """Return a factory of schedulers, which are closed at the end."""
    made: list[Scheduler] = []

    def make(**sizes: int) -> Scheduler:
        made.append(Scheduler(**{"cores": 1, "queue_size": 100, **sizes}))
        return made[-1]

    yield make
    for scheduler in made:
        await asyncio.to_thread(scheduler.close)


def ask(
    scheduler: Scheduler, engine: Recorder, job: str, caller: Caller = CALLER
) -> "asyncio.Task[Any]":
    async def answer() -> Any:
        return (await scheduler.submit(engine, job, caller))[0]

    return asyncio.create_task(answer())


async def behind_a_run(
    scheduler: Scheduler, engine: Recorder, jobs: list[str], *calls: Caller
) -> list[Any]:
    """Queue jobs behind a run that is held until all are waiting; return their outcomes."""
    engine.may_end.clear()
    first = ask(scheduler, engine, "first")
    await engine.running()
    calls = calls or (CALLER,) * len(jobs)
    tasks = [ask(scheduler, engine, *pair) for pair in zip(jobs, calls, strict=True)]
    await asyncio.sleep(0)
    engine.may_end.set()
    assert await first == "first -> FIRST"
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_run_takes_waiting_jobs_up_to_its_batch_size(make: Any) -> None:
    engine = Recorder(batch=4)
    answers = await behind_a_run(make(), engine, list("abcdef"))
    assert answers == [f"{job} -> {job.upper()}" for job in "abcdef"]
    assert engine.batches == [["first"], ["a", "b", "c", "d"], ["e", "f"]]


async def test_batches_shrink_under_light_load(make: Any) -> None:
    engine = Recorder(batch=8)
    await behind_a_run(make(), engine, list("abcdefg"))
    assert engine.batches == [["first"], ["a", "b", "c", "d"], ["e", "f"], ["g"]]


async def test_nothing_waits_for_a_batch_to_fill(make: Any) -> None:
    engine = Recorder(batch=4)
    scheduler = make()
    assert await ask(scheduler, engine, "a") == "a -> A"
    assert await ask(scheduler, engine, "b") == "b -> B"
    assert engine.batches == [["a"], ["b"]]


async def test_cores_share_waiting_work(make: Any) -> None:
    scheduler, engine, wide = make(cores=2), Recorder(batch=8), Recorder("wide", threads=2)
    wide.may_end.clear()
    both_cores = ask(scheduler, wide, "wide")
    await wide.running()
    tasks = [ask(scheduler, engine, job) for job in "abcdef"]
    await asyncio.sleep(0)
    engine.may_end.clear()
    wide.may_end.set()
    await engine.running()
    await engine.running()
    engine.may_end.set()
    await asyncio.gather(both_cores, *tasks)
    assert sorted(engine.batches) == [["a", "b"], ["c", "d"], ["e"], ["f"]]


async def delivered_before(scheduler: Scheduler, engine: Recorder, moment: str) -> bool:
    """Return True if one run's result is delivered before a step of the next run."""
    engine.may_end.clear()
    first = ask(scheduler, engine, "first")
    await engine.running()
    reached, may_go_on = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        reached.set()
        assert may_go_on.wait(10)

    setattr(engine, moment, hold)
    second = ask(scheduler, engine, "second")
    await asyncio.sleep(0)
    engine.may_end.set()
    assert await asyncio.to_thread(reached.wait, 10)
    await asyncio.sleep(0)  # Lets the loop process what was delivered.
    delivered = first.done()
    may_go_on.set()
    assert await asyncio.gather(first, second) == ["first -> FIRST", "second -> SECOND"]
    return delivered


async def test_results_are_delivered_when_the_next_run_begins(make: Any) -> None:
    assert not await delivered_before(make(), Recorder(), "on_prepare")
    assert await delivered_before(make(), Recorder(), "on_run")


async def test_results_do_not_wait_for_a_batch_that_is_slow_to_prepare(
    make: Any, clock: "Clock"
) -> None:
    engine, scheduler = Recorder(batch=2), make()
    engine.may_end.clear()
    first = ask(scheduler, engine, "first")
    await engine.running()
    prepared, may_go_on = threading.Event(), threading.Event()

    def large(job: str) -> None:
        if job == "large":
            clock.pass_by(0.03)
        else:
            prepared.set()
            assert may_go_on.wait(10)

    engine.on_prepare = large
    others = [ask(scheduler, engine, job) for job in ("large", "small")]
    await asyncio.sleep(0)
    engine.may_end.set()
    assert await asyncio.to_thread(prepared.wait, 10)
    assert await asyncio.wait_for(first, 10) == "first -> FIRST"
    may_go_on.set()
    assert await asyncio.gather(*others) == ["large -> LARGE", "small -> SMALL"]


async def test_results_are_delivered_if_the_next_batch_cannot_be_allocated(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Recorder()

    def allocate(jobs: list[str]) -> None:
        if jobs == ["b"]:
            raise MemoryError("no room")

    monkeypatch.setattr(engine, "allocate", allocate)
    a, b, c = await behind_a_run(make(), engine, ["a", "b", "c"])
    assert (a, c) == ("a -> A", "c -> C")
    assert isinstance(b, MemoryError)


async def test_a_job_that_cannot_be_prepared_fails_alone(make: Any) -> None:
    engine = Recorder(batch=4)
    a, bad, b, c = await behind_a_run(make(), engine, ["a", "bad", "b", "c"])
    assert (a, b, c) == ("a -> A", "b -> B", "c -> C")
    assert str(bad) == "bad can't be prepared"
    assert engine.batches == [["first"], ["a", "b"], ["c"]]


async def test_a_job_that_breaks_its_run_fails_alone(make: Any) -> None:
    engine = Recorder(batch=4)
    a, poison, b, c = await behind_a_run(make(), engine, ["a", "poison", "b", "c"])
    assert (a, b, c) == ("a -> A", "b -> B", "c -> C")
    assert str(poison) == "poisoned"
    assert engine.batches == [["first"], ["a", "poison", "b"], ["a"], ["poison"], ["b"], ["c"]]


async def test_a_result_that_cannot_be_finished_fails_alone(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Recorder(batch=4)
    finish = engine.finish

    def breaks(job: str, output: str) -> str:
        if job == "b":
            raise KeyError("no such label")
        return finish(job, output)

    monkeypatch.setattr(engine, "finish", breaks)
    a, b = await behind_a_run(make(), engine, ["a", "b"])
    assert a == "a -> A"
    assert isinstance(b, KeyError)


async def test_a_run_with_a_wrong_number_of_outputs_fails(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Recorder(batch=4)
    monkeypatch.setattr(engine, "run", lambda jobs, exclusive, stop: [])
    with pytest.raises(RuntimeError, match="model returned 0 outputs for 1 inputs"):
        await ask(make(), engine, "a")


async def test_the_work_due_first_runs_first(make: Any) -> None:
    engine, now = Recorder(), time.monotonic()
    calls = (CALLER, Caller("Classify", now + 1000), Caller("Classify", now + 20), CALLER)
    await behind_a_run(make(), engine, ["a", "late", "soon", "b"], *calls)
    assert engine.batches[1:] == [["soon"], ["a"], ["b"], ["late"]]


async def test_work_cancelled_while_it_is_prepared_costs_no_run(make: Any) -> None:
    engine, scheduler = Recorder(), make()
    preparing, may_go_on = threading.Event(), threading.Event()

    def slow(job: str) -> None:
        preparing.set()
        assert may_go_on.wait(10)

    engine.on_prepare = slow
    task = ask(scheduler, engine, "gone")
    assert await asyncio.to_thread(preparing.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_go_on.set()
    assert await ask(scheduler, engine, "here") == "here -> HERE"
    assert engine.batches == [["here"]]


async def test_a_lone_request_gets_all_cores(make: Any) -> None:
    scheduler, engine = make(cores=2), Recorder(exclusive_threads=2)
    for job in "abc":
        await ask(scheduler, engine, job)
    assert engine.exclusive == [True, True, True]
    assert scheduler.statistics()[engine].exclusive == 3


async def test_nothing_starts_beside_an_exclusive_run(make: Any) -> None:
    scheduler, engine = make(cores=2), Recorder(exclusive_threads=2)
    other = Recorder("other", exclusive_threads=2)
    engine.may_end.clear()
    first = ask(scheduler, engine, "a")
    await engine.running()
    second = ask(scheduler, other, "b")
    await asyncio.sleep(0)
    assert other.batches == []
    engine.may_end.set()
    assert await first == "a -> A"
    assert await second == "b -> B"


async def test_with_two_callers_each_keeps_to_one_core(make: Any) -> None:
    scheduler, engine = make(cores=2), Recorder(exclusive_threads=2)
    engine.may_end.clear()
    first = ask(scheduler, engine, "alone")
    await engine.running()
    second = ask(scheduler, engine, "b1")  # arrives while the first runs
    await asyncio.sleep(0)
    engine.may_end.set()
    await first
    await asyncio.gather(second)
    # The second run is not exclusive: other work arrived during the first.
    assert engine.exclusive == [True, False]
    await ask(scheduler, engine, "alone again")
    assert engine.exclusive == [True, False, True]


async def test_one_core_has_no_exclusive_runs(make: Any) -> None:
    scheduler, engine = make(cores=1), Recorder(exclusive_threads=0)
    await ask(scheduler, engine, "a")
    assert engine.exclusive == [False]


async def test_runs_never_claim_more_cores_than_exist(make: Any) -> None:
    scheduler, engine = make(cores=4), Recorder(threads=2)
    engine.may_end.clear()
    tasks = [ask(scheduler, engine, job) for job in "abc"]
    await engine.running()
    await engine.running()
    assert len(engine.batches) == 2  # two runs of two threads fill four cores
    engine.may_end.set()
    await asyncio.gather(*tasks)
    assert len(engine.batches) == 3


async def test_outcomes_are_counted(make: Any) -> None:
    scheduler, engine = make(queue_size=3), Recorder(batch=2)
    engine.may_end.clear()
    first = ask(scheduler, engine, "first")
    await engine.running()
    tasks = [ask(scheduler, engine, job) for job in ("a", "bad", "c")]
    await asyncio.sleep(0)
    assert scheduler.waiting(engine) == 3
    with pytest.raises(Overloaded, match="3 requests are waiting for model; the limit is 3"):
        await ask(scheduler, engine, "refused")
    tasks[2].cancel()
    await asyncio.sleep(0)
    assert scheduler.waiting(engine) == 2
    engine.may_end.set()
    await asyncio.gather(first, *tasks, return_exceptions=True)
    counted = scheduler.statistics()[engine]
    assert dict(counted.batches) == {1: 2}
    assert (counted.failed, counted.refused, counted.cancelled) == (1, 1, 1)
    assert counted.queue_s > 0
    assert scheduler.waiting(engine) == 0


# A device: its streams run batches while the cores prepare the next ones.


def device(**plan: Any) -> Recorder:
    return Recorder("device", runs_on="device", **plan)


async def test_a_device_runs_prepared_work_in_batches(make: Any) -> None:
    scheduler, engine = make(cores=2, streams=1), device(batch=8)
    answers = await behind_a_run(scheduler, engine, [f"job {i}" for i in range(16)])
    assert answers == [f"job {i} -> JOB {i}" for i in range(16)]
    sizes = [len(batch) for batch in engine.batches]
    assert sizes[0] == 1  # the first run did not wait for more
    assert max(sizes) == 8 and sum(sizes) == 17


async def test_a_stream_copies_while_another_runs(make: Any) -> None:
    scheduler, engine = make(cores=2, streams=2), device(batch=1)
    both = threading.Barrier(2)
    engine.on_run = lambda jobs: both.wait(10) and None  # each waits for the other to run too
    assert await asyncio.gather(ask(scheduler, engine, "a"), ask(scheduler, engine, "b")) == [
        "a -> A",
        "b -> B",
    ]


async def test_the_cores_prepare_while_the_device_runs_but_not_without_bound(make: Any) -> None:
    scheduler, engine = make(cores=2, streams=1), device(batch=4)
    prepared: list[str] = []
    enough = threading.Event()

    def note(job: str) -> None:
        prepared.append(job)
        if len(prepared) == 8:
            enough.set()

    engine.on_prepare = note
    engine.may_end.clear()
    tasks = [ask(scheduler, engine, f"job {i}") for i in range(40)]
    await engine.running()
    assert await asyncio.to_thread(enough.wait, 10)
    # Two batches for the one stream; the rest waits undecoded, and can still be dropped.
    assert len(prepared) == 8
    assert scheduler.waiting(engine) == 32
    engine.may_end.set()
    assert len(await asyncio.gather(*tasks)) == 40
    assert len(prepared) == 40


async def test_failures_on_a_device_affect_no_other_work(make: Any) -> None:
    scheduler, engine = make(cores=1, streams=1), device(batch=8)
    a, bad, poison, b = await behind_a_run(scheduler, engine, ["a", "bad", "poison", "b"])
    assert (a, b) == ("a -> A", "b -> B")
    assert (str(bad), str(poison)) == ("bad can't be prepared", "poisoned")
    assert await ask(scheduler, engine, "c") == "c -> C"  # nothing still counts as in the pipeline


def short_of_memory(engine: Recorder, *, most: int) -> None:
    """Let runs of more jobs fail for want of memory, and every run with a "large" one."""

    def run(jobs: list[str]) -> None:
        if len(jobs) > most or "large" in jobs:
            raise Overloaded("the device is out of memory", 1.0)

    engine.on_run = run


async def test_a_batch_that_exceeds_the_memory_is_run_in_halves(make: Any) -> None:
    scheduler, engine = make(cores=1, streams=1), device(batch=8)
    short_of_memory(engine, most=4)
    answers = await behind_a_run(scheduler, engine, [f"job {i}" for i in range(8)])
    assert answers == [f"job {i} -> JOB {i}" for i in range(8)]
    sizes = [len(batch) for batch in engine.batches]
    assert sizes[1] > 4  # the one that failed
    assert sizes[2:4] == [(sizes[1] + 1) // 2, sizes[1] // 2]
    assert scheduler.statistics()[engine].failed == 0


async def test_a_half_that_exceeds_the_memory_is_refused_and_its_neighbours_are_not(
    make: Any,
) -> None:
    scheduler, engine = make(cores=1, streams=1), device(batch=4)
    short_of_memory(engine, most=4)
    engine.may_end.clear()
    held = ask(scheduler, engine, "held")  # so that the next four make one batch
    await engine.running()
    tasks = [ask(scheduler, engine, job) for job in ("a", "b", "c", "large")]
    while len(scheduler._state.prepared) < 4:
        await asyncio.sleep(0)
    engine.may_end.set()
    answers = await asyncio.gather(held, *tasks, return_exceptions=True)
    assert answers[:3] == ["held -> HELD", "a -> A", "b -> B"]
    assert [(type(each), each.retry_after_s) for each in answers[3:]] == [(Overloaded, 1.0)] * 2
    assert engine.batches == [["held"], ["a", "b", "c", "large"], ["a", "b"], ["c", "large"]]
    assert await ask(scheduler, engine, "next") == "next -> NEXT"


async def test_one_job_that_exceeds_the_memory_is_refused_at_once(make: Any) -> None:
    scheduler, engine = make(cores=1, streams=1), device(batch=4)
    short_of_memory(engine, most=4)
    with pytest.raises(Overloaded, match="out of memory"):
        await ask(scheduler, engine, "large")
    assert engine.batches == [["large"]]


async def test_abandoned_work_never_reaches_the_device(make: Any) -> None:
    scheduler, engine = make(cores=1, streams=1), device(batch=2)
    engine.may_end.clear()
    first = ask(scheduler, engine, "first")
    await engine.running()
    tasks = [ask(scheduler, engine, f"job {i}") for i in range(10)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    engine.may_end.set()
    assert await first == "first -> FIRST"
    assert await ask(scheduler, engine, "last") == "last -> LAST"
    assert engine.batches == [["first"], ["last"]]


async def test_work_cancelled_before_the_device_leaves_its_pipeline(make: Any) -> None:
    scheduler, engine = make(cores=1, streams=1), device(batch=1)
    preparing, may_go_on = threading.Semaphore(0), threading.Semaphore(0)

    def slow(job: str) -> None:
        preparing.release()
        assert may_go_on.acquire(timeout=10)

    engine.on_prepare = slow
    for _ in range(5):  # more than the pipeline holds
        task = ask(scheduler, engine, "gone")
        assert await asyncio.to_thread(preparing.acquire, timeout=10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        may_go_on.release()
    may_go_on.release()
    assert await asyncio.wait_for(ask(scheduler, engine, "here"), 10) == "here -> HERE"
    assert engine.batches == [["here"]]


async def test_closing_finishes_work_in_the_device_pipeline() -> None:
    scheduler, engine = Scheduler(cores=1, queue_size=10, streams=1), device(batch=1)
    engine.may_end.clear()
    running = ask(scheduler, engine, "running")
    await engine.running()
    closing = asyncio.create_task(asyncio.to_thread(scheduler.close))
    engine.may_end.set()
    assert await running == "running -> RUNNING"
    await asyncio.wait_for(closing, 10)
    with pytest.raises(asyncio.CancelledError):
        await ask(scheduler, engine, "late")


# Time: work that cannot meet its deadline is refused at once, and abandoned runs are stopped.


class Slow(Recorder):
    """An engine whose runs take a given time by the fake clock."""

    def __init__(self, clock: "Clock", seconds: float, **plan: Any) -> None:
        super().__init__("slow", **plan)
        self.on_run = lambda jobs: clock.pass_by(seconds * len(jobs))


class Clock:
    """A fake for time.monotonic."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def busy(scheduler: Scheduler, engine: Recorder) -> "asyncio.Task[Any]":
    """Let the scheduler learn how long a run takes; then hold it in one."""
    await ask(scheduler, engine, "teaches")
    await engine.running()
    engine.may_end.clear()
    running = ask(scheduler, engine, "runs")
    await engine.running()
    return running


async def test_a_request_that_cannot_meet_its_deadline_is_refused_at_once(
    make: Any, clock: Clock
) -> None:
    scheduler, engine = make(), Slow(clock, seconds=1.0)
    running = await busy(scheduler, engine)
    earlier = Caller("Classify", clock.now + 4.0)
    waiting = [ask(scheduler, engine, f"waits {i}", earlier) for i in range(3)]
    await asyncio.sleep(0)
    # One run, three waiting, its own, and 25 % headroom.
    needed = r"would take 5\.0 s, including 25% headroom; the deadline is in 4\.5 s"
    with pytest.raises(Overloaded, match=f"slow is busy: an answer {needed}") as refused:
        await ask(scheduler, engine, "late", Caller("Classify", clock.now + 4.5))
    assert 0 < refused.value.retry_after_s < 3
    in_time = ask(scheduler, engine, "in time", Caller("Classify", clock.now + 10))
    await asyncio.sleep(0)
    engine.on_run = lambda jobs: None
    engine.may_end.set()
    await asyncio.gather(running, *waiting, in_time)
    assert scheduler.statistics()[engine].refused == 1


async def test_there_is_room_if_one_of_several_engines_has_room(make: Any, clock: Clock) -> None:
    scheduler, engine, idle = make(), Slow(clock, seconds=1.0), Slow(clock, seconds=1.0)
    running = await busy(scheduler, engine)
    earlier, late = Caller("Classify", clock.now + 4.0), Caller("Classify", clock.now + 4.5)
    scheduler.require_room([engine], late)
    waiting = [ask(scheduler, engine, f"waits {i}", earlier) for i in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match=r"slow is busy: an answer would take 5\.0 s"):
        scheduler.require_room([engine], late)
    scheduler.require_room([engine], Caller("Classify", clock.now + 10))
    scheduler.require_room([engine, idle], late)
    scheduler.require_room([], late)
    assert scheduler.statistics()[engine].refused == 1
    engine.may_end.set()
    await asyncio.gather(running, *waiting)


async def test_urgent_work_does_not_wait_for_work_due_later(make: Any, clock: Clock) -> None:
    scheduler, engine = make(), Slow(clock, seconds=1.0)
    running = await busy(scheduler, engine)
    patient = [ask(scheduler, engine, f"patient {i}") for i in range(20)]
    await asyncio.sleep(0)
    soon = ask(scheduler, engine, "soon", Caller("Classify", clock.now + 2.5))
    await asyncio.sleep(0)
    engine.may_end.set()
    await asyncio.gather(running, *patient, soon)
    assert engine.batches[2] == ["soon"]


@pytest.mark.parametrize("job", ["bad picture", "large picture"])
async def test_pictures_that_are_slow_to_prepare_cost_their_sender_turns(
    make: Any, clock: Clock, job: str
) -> None:
    """Answered or rejected alike: else a neighbour would wait for all of them."""
    scheduler, greedy, neighbour = make(), Recorder("greedy"), Slow(clock, seconds=0.1)
    order: list[str] = []

    def prepare(job: str) -> None:
        order.append("greedy")
        clock.pass_by(1.0)

    greedy.on_prepare, neighbour.on_prepare = prepare, lambda job: order.append("neighbour")
    for _ in range(3):
        await ask(scheduler, neighbour, "usual")
        await neighbour.running()
    order.clear()
    neighbour.may_end.clear()
    running = ask(scheduler, neighbour, "holds the core")
    await neighbour.running()
    crowd = [ask(scheduler, greedy, job) for _ in range(20)]
    await asyncio.sleep(0)
    answer = ask(scheduler, neighbour, "waits")
    await asyncio.sleep(0)
    neighbour.may_end.set()
    await asyncio.gather(running, answer, *crowd, return_exceptions=True)
    assert order.index("neighbour", 1) <= 3


async def test_the_queue_is_also_bounded_in_seconds(make: Any, clock: Clock) -> None:
    scheduler, engine = make(max_queue_wait_s=2.5), Slow(clock, seconds=1.0)
    running = await busy(scheduler, engine)
    waiting = [ask(scheduler, engine, f"waits {i}") for i in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match=r"would wait 3\.0 s; the limit is 2\.5 s"):
        await ask(scheduler, engine, "too many")
    engine.may_end.set()
    await asyncio.gather(running, *waiting)


async def test_the_retry_time_is_at_most_half_a_minute(make: Any, clock: Clock) -> None:
    scheduler, engine = make(max_queue_wait_s=1.0), Slow(clock, seconds=100.0)
    running = await busy(scheduler, engine)
    while clock.now < 1200.0:  # both runs have taken their time
        await asyncio.to_thread(lambda: None)
    waiting = ask(scheduler, engine, "waits")
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match=r"would wait 100\.0 s") as refused:
        scheduler.require_room([engine], CALLER)
    assert refused.value.retry_after_s == 30.0
    engine.may_end.set()
    await asyncio.gather(running, waiting)


async def test_a_wrong_forecast_is_corrected(make: Any, clock: Clock) -> None:
    scheduler, engine = make(), Slow(clock, seconds=100.0)
    await ask(scheduler, engine, "an outlier")
    engine.on_run = lambda jobs: clock.pass_by(0.1)
    for _ in range(30):  # The core is idle: each is tried, whatever the forecast.
        assert await ask(scheduler, engine, "a", Caller("Classify", clock.now + 1.0)) == "a -> A"


async def test_work_that_would_be_late_yields_to_work_that_can_be_in_time(
    make: Any, clock: Clock
) -> None:
    scheduler, engine = make(), Slow(clock, seconds=1.0)
    running = await busy(scheduler, engine)
    doomed = ask(scheduler, engine, "doomed", Caller("Classify", clock.now + 3))
    later = ask(scheduler, engine, "later", Caller("Classify", clock.now + 30))
    await asyncio.sleep(0)
    clock.pass_by(2.5)
    engine.may_end.set()
    with pytest.raises(DeadlineExceeded):
        await doomed
    await asyncio.gather(running, later)
    assert ["doomed"] not in engine.batches


async def test_batching_makes_no_request_miss_its_deadline(make: Any, clock: Clock) -> None:
    scheduler, engine = make(), Slow(clock, seconds=1.0, batch=4)
    running = await busy(scheduler, engine)
    patient = [ask(scheduler, engine, job) for job in "abcde"]
    soon = ask(scheduler, engine, "soon", Caller("Classify", clock.now + 1.5))
    await asyncio.sleep(0)
    engine.may_end.set()
    assert await soon == "soon -> SOON"
    await asyncio.gather(running, *patient)
    assert engine.batches[2:] == [["soon"], ["a", "b", "c"], ["d", "e"]]


async def test_a_run_is_stopped_when_the_last_caller_has_left(make: Any) -> None:
    scheduler, engine, stopped = make(), Recorder(batch=2), threading.Event()
    engine.may_end.clear()
    first = ask(scheduler, engine, "first")
    await engine.running()
    pair = [ask(scheduler, engine, job) for job in "ab"]
    await asyncio.sleep(0)
    run = engine.run

    def stoppable(jobs: list[str], exclusive: bool, stop: Stop) -> list[str]:
        def end() -> None:
            stopped.set()
            engine.may_end.set()

        engine.may_end.clear()
        stop.on_request(end)
        run(jobs, exclusive, stop)
        raise RuntimeError("ended in the middle")

    engine.run = stoppable  # type: ignore[method-assign]
    engine.may_end.set()
    await first
    await engine.running()
    pair[0].cancel()
    await asyncio.gather(pair[0], return_exceptions=True)
    assert not stopped.is_set()
    pair[1].cancel()
    await asyncio.gather(pair[1], return_exceptions=True)
    assert await asyncio.to_thread(stopped.wait, 10)
    del engine.run
    assert await ask(scheduler, engine, "next") == "next -> NEXT"
    assert scheduler.statistics()[engine].failed == 0


async def test_200_cancelled_and_200_expired_cost_no_run(make: Any) -> None:
    scheduler, engine = make(queue_size=1000), Recorder()
    engine.may_end.clear()
    first = ask(scheduler, engine, "first")
    await engine.running()
    cancelled = [ask(scheduler, engine, f"cancelled {i}") for i in range(200)]
    expired = [
        ask(scheduler, engine, f"expired {i}", Caller("Classify", time.monotonic()))
        for i in range(200)
    ]
    await asyncio.sleep(0)
    for task in cancelled:
        task.cancel()
    await asyncio.gather(*cancelled, return_exceptions=True)
    engine.may_end.set()
    await first
    outcomes = await asyncio.gather(*expired, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {DeadlineExceeded}
    assert engine.batches == [["first"]]


@pytest.mark.parametrize("runs_on", ["cores", "device"])
async def test_the_scheduler_keeps_no_engine_alive(make: Any, runs_on: str) -> None:
    scheduler, engine = make(streams=1), Recorder(runs_on=runs_on)
    await asyncio.gather(*(ask(scheduler, engine, job) for job in "abc"))
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    weakref.finalize(engine, loop.call_soon_threadsafe, gone.set).atexit = False
    del engine
    await asyncio.wait_for(gone.wait(), 10)
    assert scheduler.statistics() == {}


# Forecasts learn nothing from failures, and idle cores take every request.


SOON = 2.0


async def refused_soon(scheduler: Scheduler, engine: Recorder, clock: "Clock") -> bool:
    """Return True if a request with a short deadline is refused while the only core is busy."""
    engine.may_end.clear()
    engine.on_run = lambda jobs: None
    running = ask(scheduler, engine, "runs")
    await engine.running()
    urgent = ask(scheduler, engine, "soon", Caller("Classify", clock.now + SOON))
    await asyncio.sleep(0)
    engine.may_end.set()
    outcome, _ = await asyncio.gather(urgent, running, return_exceptions=True)
    return isinstance(outcome, Overloaded)


async def learned(scheduler: Scheduler, engine: Recorder) -> None:
    for _ in range(3):
        await ask(scheduler, engine, "usual")
        await engine.running()


async def test_forecasts_learn_from_runs(make: Any, clock: Clock) -> None:
    scheduler, engine = make(), Slow(clock, seconds=3.0)
    await learned(scheduler, engine)
    assert await refused_soon(scheduler, engine, clock)


@pytest.mark.parametrize("runs_on", ["cores", "device"])
@pytest.mark.parametrize("broken", ["bad", "poison"])
async def test_forecasts_ignore_failed_work(
    make: Any, clock: Clock, broken: str, runs_on: str
) -> None:
    scheduler, engine = make(streams=1), Slow(clock, seconds=0.1, runs_on=runs_on)
    await learned(scheduler, engine)
    slowly = lambda _: clock.pass_by(1000.0)  # noqa: E731
    for _ in range(5):
        engine.on_prepare = slowly if broken == "bad" else engine.on_prepare
        engine.on_run = slowly if broken == "poison" else engine.on_run
        with pytest.raises((ValueError, RuntimeError)):
            await ask(scheduler, engine, broken)
    engine.on_prepare = lambda job: None
    while engine.began.acquire(blocking=False):
        pass
    assert not await refused_soon(scheduler, engine, clock)


@pytest.mark.parametrize("broken", ["bad", "poison"])
async def test_forecasts_ignore_a_batch_with_a_failure(
    make: Any, clock: Clock, broken: str
) -> None:
    scheduler, engine = make(), Slow(clock, seconds=0.1, batch=8)
    await learned(scheduler, engine)
    engine.on_prepare = lambda job: clock.pass_by(1000.0 if job == "bad" else 0.0)
    if broken == "poison":
        engine.on_run = lambda jobs: clock.pass_by(1000.0 if "poison" in jobs else 0.0)
    await behind_a_run(scheduler, engine, [broken, *"abcde"])
    engine.on_prepare = lambda job: None
    while engine.began.acquire(blocking=False):
        pass
    assert not await refused_soon(scheduler, engine, clock)


async def test_forecasts_ignore_stopped_runs(make: Any, clock: Clock) -> None:
    scheduler, engine = make(), Slow(clock, seconds=0.1)
    await learned(scheduler, engine)
    engine.may_end.clear()
    left = ask(scheduler, engine, "left")
    await engine.running()
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    clock.pass_by(1000.0)
    engine.may_end.set()
    await learned(scheduler, engine)
    assert not await refused_soon(scheduler, engine, clock)


async def test_one_outlier_changes_the_forecast_little(make: Any, clock: Clock) -> None:
    scheduler, engine = make(), Slow(clock, seconds=0.1)
    await learned(scheduler, engine)
    engine.on_run = lambda jobs: clock.pass_by(1000.0)
    await ask(scheduler, engine, "an outlier")
    await engine.running()
    assert not await refused_soon(scheduler, engine, clock)


async def test_an_outlier_at_the_start_is_forgotten_with_the_next_run(
    make: Any, clock: Clock
) -> None:
    scheduler, engine = make(), Slow(clock, seconds=1000.0)
    await ask(scheduler, engine, "an outlier")
    await engine.running()
    engine.on_run = lambda jobs: clock.pass_by(0.1)
    await ask(scheduler, engine, "usual")
    await engine.running()
    assert not await refused_soon(scheduler, engine, clock)


async def test_idle_cores_take_one_request_each_whatever_the_forecast(
    make: Any, clock: Clock
) -> None:
    scheduler, engine = make(cores=4), Slow(clock, seconds=1000.0)
    await ask(scheduler, engine, "an outlier")
    engine.on_run = lambda jobs: None
    # All are submitted before a core's thread can take the first.
    soon = [ask(scheduler, engine, str(i), Caller("Classify", clock.now + SOON)) for i in range(4)]
    assert await asyncio.gather(*soon) == [f"{i} -> {i}" for i in range(4)]


# An error in the scheduler's own code: the thread continues, and the work that it took fails.


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as entries:
        yield entries


class Plans(Recorder):
    """An engine whose plan can be read a limited number of times, and then raises."""

    reads_left = math.inf

    @property
    def plan(self) -> Plan:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise KeyError("no plan")
        return self._plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._plan = plan


@pytest.mark.parametrize("runs_on", ["cores", "device"])
@pytest.mark.parametrize("reads", range(12))
async def test_an_engine_that_breaks_the_scheduler_fails_alone(
    make: Any, logged: list[Any], runs_on: str, reads: int
) -> None:
    scheduler = make(cores=2, streams=1)
    engine, other = Plans(runs_on=runs_on), Recorder()
    assert await ask(scheduler, engine, "a") == "a -> A"
    for _ in range(3):
        engine.reads_left = reads
        outcomes = await asyncio.gather(
            *(ask(scheduler, engine, job) for job in "abc"), return_exceptions=True
        )
        for outcome in outcomes:
            assert isinstance(outcome, str | KeyError | ModelFailed)
        assert await ask(scheduler, other, "b") == "b -> B"
    engine.reads_left = math.inf
    assert await asyncio.gather(*(ask(scheduler, engine, job) for job in "xyz")) == [
        "x -> X",
        "y -> Y",
        "z -> Z",
    ]
    assert scheduler._state.free_cores == 2
    assert not scheduler._state.in_pipeline
    assert scheduler._state.expected_ends.remaining_s(0.0) == 0.0


@pytest.mark.parametrize(
    ("part", "method"),
    [
        ("_core_loop", "_start"),
        ("_core_loop", "_batch_size"),
        ("_core_loop", "_run_batch"),
        ("_core_loop", "_claim_all"),
        ("_execution", "prepare"),
        ("_execution", "run"),
        ("_execution", "finish"),
        ("_delivery", "deliver"),
    ],
)
async def test_an_error_in_the_scheduler_ends_no_thread(
    make: Any, monkeypatch: pytest.MonkeyPatch, logged: list[Any], part: str, method: str
) -> None:
    scheduler, engine = make(), Recorder(exclusive_threads=1)
    owner = getattr(scheduler, part)
    real = getattr(owner, method)
    broken = iter([True])

    def once_broken(*arguments: Any, **named: Any) -> Any:
        if next(broken, False):
            raise RuntimeError("a mistake")
        return real(*arguments, **named)

    monkeypatch.setattr(owner, method, once_broken)
    with pytest.raises(ModelFailed, match="the server failed to process this request"):
        await asyncio.wait_for(ask(scheduler, engine, "lost"), 10)
    assert await asyncio.wait_for(ask(scheduler, engine, "next"), 10) == "next -> NEXT"
    assert scheduler.errors == 1
    assert [str(entry["exc_info"]) for entry in logged] == ["a mistake"]
    assert scheduler._state.free_cores == 1
    assert scheduler.trouble() == ""


@pytest.mark.parametrize(
    ("part", "method"),
    [
        ("_core_loop", "_prepare_for_device"),
        ("_core_loop", "_finish"),
        ("_device_loop", "_run_batch"),
        ("_execution", "run"),
    ],
)
async def test_an_error_in_the_scheduler_leaves_the_device_pipeline_empty(
    make: Any, monkeypatch: pytest.MonkeyPatch, logged: list[Any], part: str, method: str
) -> None:
    scheduler, engine = make(streams=1), device()
    owner = getattr(scheduler, part)
    real = getattr(owner, method)
    broken = iter([True])

    def once_broken(*arguments: Any, **named: Any) -> Any:
        if next(broken, False):
            raise RuntimeError("a mistake")
        return real(*arguments, **named)

    monkeypatch.setattr(owner, method, once_broken)
    with pytest.raises(ModelFailed, match="the server failed to process this request"):
        await asyncio.wait_for(ask(scheduler, engine, "lost"), 10)
    assert await asyncio.wait_for(ask(scheduler, engine, "next"), 10) == "next -> NEXT"
    assert (scheduler._state.free_cores, dict(scheduler._state.in_pipeline)) == (1, {})


async def test_an_engine_that_raises_system_exit_ends_no_thread(
    make: Any, logged: list[Any]
) -> None:
    scheduler, engine = make(), Recorder()

    def exits(jobs: list[str]) -> None:
        raise SystemExit

    engine.on_run = exits
    with pytest.raises(ModelFailed):
        await asyncio.wait_for(ask(scheduler, engine, "lost"), 10)
    engine.on_run = lambda jobs: None
    assert await ask(scheduler, engine, "next") == "next -> NEXT"


async def test_a_stuck_core_is_reported_if_work_waits(make: Any, clock: Clock) -> None:
    scheduler, engine = make(stuck_s=60), Recorder("stuck")
    engine.may_end.clear()
    running = ask(scheduler, engine, "runs")
    await engine.running()
    clock.pass_by(61.0)
    assert scheduler.trouble() == ""  # no work waits
    waiting = ask(scheduler, engine, "waits")
    await asyncio.sleep(0)
    assert scheduler.trouble() == "core-0 has been busy for 61 s (stuck)"
    engine.may_end.set()
    await asyncio.gather(running, waiting)
    assert scheduler.trouble() == ""


async def test_closing_waits_no_longer_than_its_timeout(make: Any, gate: Gate) -> None:
    scheduler = make()
    task = await blocked(scheduler, gate)
    scheduler.close(0.01)
    (still,) = scheduler.still_running()
    assert still.startswith("core-0 (a core, ")
    gate.may_end.set()
    await task


async def test_a_thread_that_has_ended_is_reported(make: Any) -> None:
    scheduler = make()
    ended = threading.Thread(name="core-7")
    scheduler._workers._threads.append(ended)
    try:
        assert scheduler.trouble() == "the thread core-7 has ended"
    finally:
        scheduler._workers._threads.remove(ended)


async def test_something_waits_while_no_core_has_begun_it(scheduler: Scheduler, gate: Gate) -> None:
    assert not scheduler.something_waits
    first = await blocked(scheduler, gate)
    assert not scheduler.something_waits
    waiting = await submitted(scheduler, [], "waits")
    assert scheduler.something_waits
    gate.may_end.set()
    await asyncio.gather(first, waiting)
    assert not scheduler.something_waits


async def test_what_became_of_work_is_counted(scheduler: Scheduler, gate: Gate) -> None:
    def broken() -> None:
        raise KeyError("lost")

    first = await blocked(scheduler, gate)
    expired = asyncio.create_task(
        scheduler.run(lambda: None, Caller("Classify", time.monotonic() - 1))
    )
    failing = asyncio.create_task(scheduler.run(broken, CALLER))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await scheduler.run(lambda: None, CALLER)
    gate.may_end.set()
    await asyncio.gather(first, expired, failing, return_exceptions=True)
    (counted,) = scheduler.statistics().values()
    assert (counted.expired, counted.failed, counted.refused, counted.cancelled) == (1, 1, 1, 0)
