"""Generates load: a closed loop of waiting callers, or an open loop at a fixed rate.

All times are in seconds of time.perf_counter().
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

import grpc

from visavis.bench.channels import Send
from visavis.bench.workload import Call

OK = "OK"
# A pause after a failed call, so that rejected callers do not spin.
_AFTER_ERROR_S = 0.01


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one call.

    due: when it was scheduled. sent, done: when it started and ended. code: name of its gRPC
    status. response: the serialised response; empty if the call failed.
    """

    call: Call
    due: float
    sent: float
    done: float
    code: str
    response: bytes = b""

    @property
    def latency_s(self) -> float:
        """The time since the call was due, so that late sending counts as latency."""
        return self.done - self.due


@dataclass(frozen=True, slots=True)
class Window:
    """The measured calls, and the period in which they were measured."""

    opened: float
    closed: float
    outcomes: tuple[Outcome, ...]


Mark = Callable[[], None]
"""Called when a window opens and when it closes."""


async def closed_loop(
    send: Send,
    calls: Sequence[Sequence[Call]],
    callers: int,
    warm_up_s: float,
    seconds: float,
    mark: Mark = lambda: None,
) -> Window:
    """Return the calls that ended in a window, from callers with one call at a time each.

    calls: the calls of each method; callers are spread evenly over the methods. The window opens
    when the warm-up is over and every caller has had an answer: before that, queues are still
    filling and latencies are too low.
    """
    outcomes: list[Outcome] = []
    unanswered = set(range(callers))
    settled, over = asyncio.Event(), False

    async def call_again(caller: int) -> None:
        own = calls[caller % len(calls)]
        start = caller // len(calls) % len(own)
        for call in cycle([*own[start:], *own[:start]]):
            outcome = await _outcome(send, call, caller, time.perf_counter())
            outcomes.append(outcome)
            unanswered.discard(caller)
            if not unanswered:
                settled.set()
            if over:
                return
            if outcome.code != OK:
                await asyncio.sleep(_AFTER_ERROR_S)

    async with asyncio.TaskGroup() as tasks:
        for caller in range(callers):
            tasks.create_task(call_again(caller))
        await asyncio.sleep(warm_up_s)
        await settled.wait()
        mark()
        opened = time.perf_counter()
        await asyncio.sleep(seconds)
        closed = time.perf_counter()
        mark()
        over = True
    done = tuple(outcome for outcome in outcomes if opened <= outcome.done < closed)
    return Window(opened, closed, done)


async def open_loop(
    send: Send,
    calls: Sequence[Sequence[Call]],
    rate_per_s: float,
    warm_up_s: float,
    seconds: float,
    seed: int,
    mark: Mark = lambda: None,
) -> Window:
    """Return the calls that were due in a window, sent at a rate regardless of answers.

    Each call's method is random. Latency counts from when a call was due, which avoids coordinated
    omission: a slow server or client does not delay the measurement of later calls.
    """
    outcomes: list[Outcome] = []
    start = time.perf_counter()
    opens, closes = start + warm_up_s, start + warm_up_s + seconds

    async def call_once(call: Call, number: int, due: float) -> None:
        outcomes.append(await _outcome(send, call, number, due))

    async def mark_at(moment: float) -> None:
        await asyncio.sleep(moment - time.perf_counter())
        mark()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(mark_at(opens))
        tasks.create_task(mark_at(closes))
        arrivals = schedule(calls, rate_per_s, warm_up_s + seconds, seed)
        for number, (offset, call) in enumerate(arrivals):
            if (wait_s := start + offset - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            tasks.create_task(call_once(call, number, start + offset))
    return Window(opens, closes, tuple(o for o in outcomes if opens <= o.due < closes))


def schedule(
    calls: Sequence[Sequence[Call]], rate_per_s: float, seconds: float, seed: int
) -> Iterator[tuple[float, Call]]:
    """Yield each call with its due time in seconds from the start, a Poisson process."""
    generator = random.Random(seed)
    of_methods = [cycle(own) for own in calls]
    due = generator.expovariate(rate_per_s)
    while due < seconds:
        yield due, next(generator.choice(of_methods))
        due += generator.expovariate(rate_per_s)


async def _outcome(send: Send, call: Call, caller: int, due: float) -> Outcome:
    sent = time.perf_counter()
    try:
        response = await send(call, caller)
    except grpc.aio.AioRpcError as error:
        return Outcome(call, due, sent, time.perf_counter(), error.code().name)
    return Outcome(call, due, sent, time.perf_counter(), OK, response)
