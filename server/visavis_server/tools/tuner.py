"""Measures how a model runs best on this machine, for throughput or for latency.

The server's own scheduler runs every candidate. Candidates take turns over several rounds, so that
other load on the machine affects all of them.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from visavis_server.models import golden
from visavis_server.models.loader import Loader
from visavis_server.models.model_files import ModelFile
from visavis_server.models.planning import Planner
from visavis_server.models.served_model import ServedModel
from visavis_server.runtime.plan import Device, Plan
from visavis_server.runtime.scheduling.scheduler import Caller, Scheduler
from visavis_server.settings import TunedPlan
from visavis_server.vision.results import Options, Picture

Goal = Literal["throughput", "latency"]

# A smaller gain, or one that is missing in a round, may be noise: the default is kept.
_NOTICEABLE = 1.03
_BATCHES = {"cores": (1, 2, 4, 8), "device": (1, 4, 8, 16, 32)}
# Clients per core: enough that work always waits, or one for each core.
_CALLERS: dict[Goal, int] = {"throughput": 8, "latency": 1}
_QUEUE_SIZE = 10_000


@dataclass(slots=True)
class Candidate:
    """One plan for a model, and its measurements, one per round.

    per_s: answers per second. p95_ms: the 95th percentile of the latency.
    """

    tuning: TunedPlan
    plan: Plan
    per_s: list[float] = field(default_factory=list)
    p95_ms: list[float] = field(default_factory=list)

    def gain(self, over: "Candidate") -> float:
        """Return the gain over another candidate: the median ratio of the rounds."""
        return statistics.median(self._gains(over))

    def clearly_beats(self, other: "Candidate") -> bool:
        """Return True if it is better in every round, and by enough."""
        return min(self._gains(other)) > 1 and self.gain(other) >= _NOTICEABLE

    def _gains(self, over: "Candidate") -> list[float]:
        if self.tuning.goal == "throughput":
            rounds = zip(self.per_s, over.per_s, strict=True)
        else:
            rounds = zip(over.p95_ms, self.p95_ms, strict=True)
        return [better / worse for better, worse in rounds]


class Tuner:
    """Measures the candidates of one model; the first of them is the untuned plan.

    Raises StartupError if the file can't be served. Use it as a context manager.
    """

    def __init__(self, file: ModelFile, planner: Planner, goal: Goal, cache_dir: Path) -> None:
        self._goal = goal
        device = planner.provider.device
        self._cores = planner.cores
        self._scheduler = Scheduler(planner.cores, _QUEUE_SIZE, planner.streams)
        self._runner = asyncio.Runner()

        def load(tuning: dict[str, TunedPlan]) -> ServedModel:
            tuned = replace(planner, tuning=tuning)
            model = Loader(tuned, self._scheduler, cache_dir).load(file)
            model.engine.sessions.make_exclusive()
            return model

        untuned = load({})
        self._models = [untuned]
        self.candidates = [Candidate(_tuning(untuned.plan, goal, device), untuned.plan)]
        batches = _BATCHES[untuned.plan.runs_on] if goal == "throughput" else (1,)
        for tuning in _widths(untuned.plan, planner.cores, goal, device, max(batches)):
            model = load({file.name: tuning})
            for batch in batches:
                # The graph may have a fixed batch of 1.
                plan = replace(model.plan, batch=min(batch, model.plan.batch))
                if all(replace(plan, why=c.plan.why) != c.plan for c in self.candidates):
                    self._models.append(model.planned(plan))
                    self.candidates.append(Candidate(_tuning(plan, goal, device), plan))

    def __enter__(self) -> "Tuner":
        return self

    def __exit__(self, *exception: object) -> None:
        self._scheduler.close()
        # Last: a thread of the scheduler that wakes a loop while it closes may write into a file
        # descriptor that has just been reused.
        self._runner.close()

    def measure(self, seconds: float, rounds: int, advance: Callable[[], None]) -> Candidate:
        """Measure each candidate in every round and return the best; advance: called after each."""
        callers = _CALLERS[self._goal] * self._cores
        for _ in range(rounds):
            for candidate, model in zip(self.candidates, self._models, strict=True):
                waits_s, took_s = self._runner.run(_load(model, callers, seconds))
                candidate.per_s.append(len(waits_s) / took_s)
                candidate.p95_ms.append(statistics.quantiles(waits_s, n=20)[-1] * 1e3)
                advance()
        untuned = self.candidates[0]
        better = [each for each in self.candidates if each.clearly_beats(untuned)]
        return max(better, key=lambda each: each.gain(untuned), default=untuned)


def _widths(plan: Plan, cores: int, goal: Goal, device: Device, batch: int) -> Iterator[TunedPlan]:
    """Yield tunings that need sessions of their own: fewer runs of more threads each."""
    if plan.runs_on == "device":
        yield _tuning(replace(plan, batch=batch), goal, device)
        return
    for threads in (1, 2, 4, 8, 16, 32, 64):
        if threads <= cores:
            yield TunedPlan(
                device=device,
                goal=goal,
                threads=threads,
                instances=cores // threads,
                batch=batch,
                exclusive_threads=plan.exclusive_threads if threads < plan.exclusive_threads else 0,
            )


def _tuning(plan: Plan, goal: Goal, device: Device) -> TunedPlan:
    return TunedPlan(
        device=device,
        goal=goal,
        threads=plan.threads,
        instances=plan.instances,
        batch=plan.batch,
        exclusive_threads=plan.exclusive_threads,
    )


async def _load(model: ServedModel, callers: int, seconds: float) -> tuple[list[float], float]:
    """Return the latency of each call, and the total time, with clients that call continuously."""
    picture = golden.picture()
    waits_s: list[float] = []
    started = time.perf_counter()

    async def caller() -> None:
        while (begun := time.perf_counter()) < started + seconds or len(waits_s) < 2:
            await model.answer(Picture(lambda: picture), Options(), Caller("tune"))
            waits_s.append(time.perf_counter() - begun)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return waits_s, time.perf_counter() - started
