"""Runs rounds of load, alternating with the in-process limit."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from visavis import statuses
from visavis.bench import checking
from visavis.bench.channels import Channels, Send
from visavis.bench.limit import Limit, LimitRound
from visavis.bench.load import OK, Window, closed_loop, open_loop
from visavis.bench.measurement import Cost, Round, measured, median_of_limit, median_round
from visavis.bench.process import Watched
from visavis.bench.workload import Call

CONNECTIONS_MAX = 256
# Lets the threads of the server or the limit become idle before the other one starts.
_PAUSE_S = 0.2
# The warm-up of later rounds: the server is warm, only its queue is empty.
_LEAD_IN_S = 0.5

OnStep = Callable[[str, float], None]
"""Called at the start of each step with its description and its estimated seconds."""


@dataclass(frozen=True, slots=True)
class Load:
    """Either a number of concurrent callers (closed loop) or calls per second (open loop)."""

    callers: int | None = None
    rate_per_s: float | None = None

    @property
    def unit(self) -> str:
        """The unit of the figure."""
        return "callers" if self.callers else "calls/s"

    @property
    def figure(self) -> str:
        """The number of callers, or of calls per second."""
        return f"{self.callers or self.rate_per_s:g}"

    def __str__(self) -> str:
        return "1 caller" if self.callers == 1 else f"{self.figure} {self.unit}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The calls, loads and durations of a benchmark.

    calls: the calls of each method. seconds: duration of each round. connections: None for one per
    caller, at most CONNECTIONS_MAX. check: True to compare every answer with the first one.
    """

    address: str
    calls: Sequence[Sequence[Call]]
    loads: Sequence[Load]
    seconds: float = 10.0
    warm_up_s: float = 3.0
    rounds: int = 3
    connections: int | None = None
    timeout_s: float = 60.0
    check: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """The results at one load. differences: between answers that should be equal."""

    load: Load
    rounds: tuple[Round, ...]
    checked: int = 0
    differences: tuple[str, ...] = ()

    @property
    def median(self) -> Round:
        """The median of each figure."""
        return median_round(self.rounds)

    @property
    def of_limit(self) -> float | None:
        """The median of the rounds' ratios to the limit."""
        return median_of_limit(self.rounds)


@dataclass
class Benchmark:
    """Executes a plan.

    watched: the server's process, if local. limit: the in-process limit to measure alternately,
    with the arguments of Limit.run. limit_difference: after `run`, the first difference between
    the answers of server and limit; always empty if the limit runs other models.
    """

    plan: Plan
    watched: Watched | None = None
    limit: Limit | None = None
    limit_models: Sequence[str] = ()
    limit_alone: bool = False
    limit_as_served: bool = False
    on_step: OnStep = lambda step, seconds: None
    limit_difference: str = ""
    _expected: dict[bytes, checking.Answer] = field(default_factory=dict)

    async def run(self) -> list[Row]:
        """Return a row per load. Raises VisavisError if a picture has no answer."""
        if self.plan.check or self.limit:
            await self._call_once()
        return [await self._row(load) for load in self.plan.loads]

    def seconds(self) -> float:
        """Return the duration of all rounds together, without warm-ups."""
        measurements = self.plan.rounds + (self.plan.rounds + 1 if self.limit else 0)
        return len(self.plan.loads) * measurements * self.plan.seconds

    async def _call_once(self) -> None:
        """Store the answer to each call, sent one by one, and compare it with the limit's."""
        calls = [call for calls in self.plan.calls for call in calls]
        self.on_step("one call at a time", 0)
        address, timeout_s = self.plan.address, self.plan.timeout_s
        async with Channels(address, 1, timeout_s) as channels:
            for call in calls:
                with statuses.translated(address, timeout_s):
                    response = await channels.send(call, 0)
                self._expected[call.request] = checking.read(call, response)
        if self.limit is None or set(self.limit_models) != set(calls[0].models):
            return
        answers = await asyncio.to_thread(self.limit.answers, self.limit_models)
        for call, answer in zip(calls, answers, strict=True):
            expected = checking.from_limit(answer)
            if text := checking.difference(expected, self._expected[call.request]):
                self.limit_difference = f"{call.picture}: {text}"
                return

    async def _row(self, load: Load) -> Row:
        plan = self.plan
        connections = plan.connections or min(load.callers or CONNECTIONS_MAX, CONNECTIONS_MAX)
        windows, rounds = [], []
        async with Channels(plan.address, connections, plan.timeout_s) as channels:
            before = await self._limit(load)
            for number in range(plan.rounds):
                self.on_step(f"{load}, round {number + 1} of {plan.rounds}", plan.seconds)
                window, cost = await self._round(channels.send, load, number)
                after = await self._limit(load)
                rounds.append(measured(window, cost, [r for r in (before, after) if r]))
                if plan.check:
                    windows.append(window)
                before = after
        checked, differences = self._checked(windows)
        return Row(load, tuple(rounds), checked, differences)

    async def _limit(self, load: Load) -> LimitRound | None:
        if self.limit is None:
            return None
        self.on_step(f"{load}, in-process limit", self.plan.seconds)
        await asyncio.sleep(_PAUSE_S)
        round_ = await asyncio.to_thread(
            self.limit.run,
            self.limit_models,
            self.plan.seconds,
            alone=self.limit_alone,
            as_served=self.limit_as_served,
        )
        await asyncio.sleep(_PAUSE_S)
        return round_

    async def _round(self, send: Send, load: Load, number: int) -> tuple[Window, Cost]:
        marks: list[tuple[float | None, float]] = []
        watched, plan = self.watched, self.plan

        def mark() -> None:
            marks.append((watched.cpu_s() if watched else None, time.process_time()))

        warm_up_s = plan.warm_up_s if number == 0 else min(plan.warm_up_s, _LEAD_IN_S)
        if load.callers:
            window = await closed_loop(
                send, plan.calls, load.callers, warm_up_s, plan.seconds, mark
            )
        else:
            assert load.rate_per_s
            seed = plan.seed + number
            window = await open_loop(
                send, plan.calls, load.rate_per_s, warm_up_s, plan.seconds, seed, mark
            )
        (server_before, own_before), (server_after, own_after) = marks
        known = server_before is not None and server_after is not None
        return window, Cost(
            server_cpu_s=(server_after or 0) - (server_before or 0) if known else None,
            server_rss_bytes=watched.rss_bytes() if watched else None,
            generator_cpu_s=own_after - own_before,
        )

    def _checked(self, windows: Sequence[Window]) -> tuple[int, tuple[str, ...]]:
        outcomes = [o for window in windows for o in window.outcomes if o.code == OK]
        differences = []
        for outcome in outcomes:
            call = outcome.call
            answer = checking.read(call, outcome.response)
            if text := checking.difference(self._expected[call.request], answer):
                differences.append(f"{call.picture}: {text}")
        return len(outcomes), tuple(differences)
