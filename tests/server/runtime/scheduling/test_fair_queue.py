"""Fairness, simulated on one core whose callers send their next request at once."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from visavis_server.runtime.plan import Plan
from visavis_server.runtime.scheduling.fair_queue import FairQueue
from visavis_server.runtime.scheduling.work import Caller, Stop, Work


class Model:
    """An engine that never runs; its runs are charged some seconds."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name, self.seconds, self.plan = name, seconds, Plan()

    def allocate(self, jobs: list[Any]) -> None: ...

    def prepare(self, job: Any) -> None: ...

    def run(self, jobs: list[Any], exclusive: bool, stop: Stop) -> list[Any]:
        raise AssertionError("nothing runs here")

    def finish(self, job: Any, output: Any) -> Any: ...


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class Simulation:
    """A queue for one core, and a clock that its runs advance."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.queue, self.now, self._loop = FairQueue(), 100.0, loop
        self.used: Counter[str] = Counter()
        self.runs: list[tuple[str, str]] = []

    def ask(self, method: str, model: Model, deadline: float | None = None) -> Work:
        """Queue one request."""
        future = self._loop.create_future()
        work = Work(model, None, Caller(method, deadline), self._loop, future, submitted=self.now)
        self.queue.put(work)
        return work

    def run(self) -> Work:
        """Run the next work, and return it."""
        engine = self.queue.next_engine(lambda engine: True)
        assert isinstance(engine, Model)
        (work,) = self.queue.take(engine, 1)
        work.started = self.now
        self.now += engine.seconds
        self.queue.charge(work, engine.seconds)
        self.used[work.caller.method] += engine.seconds
        self.runs.append((work.caller.method, engine.name))
        return work


@pytest.fixture
def simulation(loop: asyncio.AbstractEventLoop) -> Simulation:
    return Simulation(loop)


@pytest.mark.parametrize("seconds", [(0.02, 0.02), (0.01, 0.2), (0.3, 0.01)])
@pytest.mark.parametrize("callers", [(1, 1, 1), (8, 8, 8), (2, 30, 5)])
def test_methods_with_work_waiting_get_equal_time(
    simulation: Simulation, seconds: tuple[float, float], callers: tuple[int, int, int]
) -> None:
    fast, slow = Model("fast", seconds[0]), Model("slow", seconds[1])
    models_of = {"Classify": [fast], "Detect": [slow], "Compare": [fast, slow]}
    # One caller more than can run, so that each method always has waiting work.
    for (method, models), number in zip(models_of.items(), callers, strict=True):
        for i in range(number + 1):
            simulation.ask(method, models[i % len(models)])
    next_model = {"Classify": 0, "Detect": 0, "Compare": 0}
    while simulation.now < 200:
        method = simulation.run().caller.method
        next_model[method] += 1
        simulation.ask(method, models_of[method][next_model[method] % len(models_of[method])])
    fewest, most = min(simulation.used.values()), max(simulation.used.values())
    assert most <= 1.15 * fewest, simulation.used


def test_models_of_one_method_get_equal_time(simulation: Simulation) -> None:
    fast, slow = Model("fast", 0.01), Model("slow", 0.09)
    for _ in range(4):
        simulation.ask("Classify", fast)
        simulation.ask("Classify", slow)
    while len(simulation.runs) < 1000:
        work = simulation.run()
        simulation.ask("Classify", work.engine)  # type: ignore[arg-type]
    runs = Counter(name for _, name in simulation.runs)
    assert 8 <= runs["fast"] / runs["slow"] <= 10


def test_no_method_starves(simulation: Simulation) -> None:
    model = Model("model", 0.02)
    for _ in range(200):
        simulation.ask("Classify", model)
    simulation.ask("Detect", model)
    simulation.run()
    simulation.run()
    assert {method for method, _ in simulation.runs} == {"Classify", "Detect"}


def test_idle_time_earns_little_credit(simulation: Simulation) -> None:
    model = Model("model", 0.1)
    for _ in range(200):
        simulation.ask("Classify", model)
    for _ in range(100):
        simulation.run()
    for _ in range(50):
        simulation.ask("Detect", model)
    for _ in range(20):
        simulation.run()
    # Ten each, plus the half second that a caller may be idle without losing its turn.
    since = Counter(method for method, _ in simulation.runs[100:])
    assert 10 <= since["Detect"] <= 13


def test_the_work_due_first_goes_first_and_without_deadlines_the_first_come(
    simulation: Simulation,
) -> None:
    model = Model("model", 0.1)
    first = simulation.ask("Classify", model)
    second = simulation.ask("Classify", model)
    late = simulation.ask("Classify", model, simulation.now + 1000)
    soon = simulation.ask("Classify", model, simulation.now + 5)
    assert [simulation.run() for _ in range(4)] == [soon, first, second, late]


@pytest.mark.parametrize("timeout", [0.5, 5.0, 60.0, 600.0])
def test_work_with_equal_timeouts_goes_in_order_of_arrival(
    simulation: Simulation, timeout: float
) -> None:
    # gRPC sends some timeouts exactly, and rounds others up by about a hundredth.
    model, chance = Model("model", 0.1), random.Random(0)
    submitted = []
    for _ in range(100):
        simulation.now += timeout / 10_000
        rounded = timeout * (1 + chance.choice((0, 1 / 600)))
        submitted.append(simulation.ask("Classify", model, simulation.now + rounded))
    assert [simulation.run() for _ in submitted] == submitted


def test_work_without_a_deadline_ages_into_its_turn(simulation: Simulation) -> None:
    model = Model("model", 0.1)
    patient = simulation.ask("Classify", model)
    simulation.now += 25
    simulation.ask("Classify", model, simulation.now + 10)
    assert simulation.run() is patient


def test_abandoned_work_leaves_the_queue(simulation: Simulation) -> None:
    model = Model("model", 0.1)
    gone, here = simulation.ask("Classify", model), simulation.ask("Classify", model)
    simulation.queue.abandon(gone)
    simulation.queue.abandon(gone)  # idempotent
    assert simulation.queue.waiting(model) == simulation.queue.size == 1
    assert simulation.run() is here
    assert simulation.queue.next_engine(lambda engine: True) is None
    simulation.queue.abandon(here)  # it has run and is no longer queued
    assert simulation.queue.size == 0


def test_a_batch_is_filled_from_all_methods(simulation: Simulation) -> None:
    model = Model("model", 0.1)
    for method in ("Classify", "Compare", "Classify"):
        simulation.ask(method, model)
    taken = simulation.queue.take(model, 8)
    assert Counter(work.caller.method for work in taken) == {"Classify": 2, "Compare": 1}
    assert simulation.queue.size == 0


def test_clearing_an_engine_leaves_the_work_of_the_others(loop: asyncio.AbstractEventLoop) -> None:
    there, one, other = Simulation(loop), Model("one", 1.0), Model("other", 1.0)
    cleared = [there.ask("Classify", one), there.ask("Detect", one)]
    left = there.ask("Classify", other)
    assert sorted(map(id, there.queue.clear(one))) == sorted(map(id, cleared))
    assert all(work.abandoned for work in cleared) and not left.abandoned
    assert (there.queue.size, there.queue.waiting(one), there.queue.waiting(other)) == (1, 0, 1)
    assert there.queue.clear() == [left]
    assert there.queue.size == 0


def test_a_deadline_has_passed_when_it_is_reached() -> None:
    caller = Caller("Classify", 5.0)
    assert not caller.expired(4.999)
    assert caller.expired(5.0)
    assert not Caller("Classify").expired(1e9)


def test_deadlines_are_exact_to_a_fiftieth_of_the_time_that_they_leave() -> None:
    assert Caller("Classify", 110.0).due_at_latest(100.0) == pytest.approx(110.2)
    assert Caller("Classify", 90.0).due_at_latest(100.0) == 90.0
    # Without a deadline work is due in 30 s.
    assert Caller("Classify").due_at_latest(100.0) == pytest.approx(130.6)


def test_a_run_that_nobody_waits_for_is_ended_once_it_can_be() -> None:
    ended: list[str] = []
    stop = Stop(2)
    stop.leave()
    stop.on_request(lambda: ended.append("ended"))
    assert ended == [] and not stop.requested
    stop.leave()
    assert ended == ["ended"] and stop.requested
    early = Stop(1)
    early.leave()
    early.on_request(lambda: ended.append("before it began"))
    assert ended == ["ended", "before it began"]
