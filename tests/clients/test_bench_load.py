import asyncio
import itertools
import statistics
import time
from collections import Counter

import grpc
import pytest
from visavis.bench.channels import Channels
from visavis.bench.load import OK, Window, closed_loop, open_loop, schedule
from visavis.bench.workload import Call
from visavis.v1 import vision_pb2 as pb

from .fakes import FakeServer, refusal

CLASSIFY = Call("classify", "a.jpg", ("m",), pb.ClassifyRequest(model="m").SerializeToString())
DETECT = Call("detect", "a.jpg", ("n",), pb.DetectRequest(model="n").SerializeToString())


class Stub:
    """Answers as soon as it is let; counts how many are under way."""

    def __init__(self) -> None:
        self.under_way: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def send(self, call: Call, caller: int) -> bytes:
        self.under_way[call.method] += 1
        self.most[call.method] = max(self.most[call.method], self.under_way[call.method])
        await asyncio.sleep(0.001)
        self.under_way[call.method] -= 1
        return b"answer"


def test_arrivals_are_the_same_for_the_same_seed_and_others_for_another():
    def arrivals(seed: int) -> list[float]:
        return [due for due, _ in schedule([[CLASSIFY]], 50, 4, seed)]

    assert arrivals(1) == arrivals(1)
    assert arrivals(1) != arrivals(2)


def test_gaps_between_arrivals_are_exponential():
    rate = 50.0
    due = [due for due, _ in schedule([[CLASSIFY]], rate, 400, seed=0)]
    gaps = [later - earlier for earlier, later in itertools.pairwise([0.0, *due])]
    # Of an exponential distribution mean and deviation are 1 / rate, its median ln 2 / rate;
    # with 20,000 gaps the error is below a hundredth.
    assert statistics.fmean(gaps) * rate == pytest.approx(1, abs=0.03)
    assert statistics.stdev(gaps) * rate == pytest.approx(1, abs=0.03)
    assert statistics.median(gaps) * rate == pytest.approx(0.693, abs=0.03)
    assert due[-1] < 400


def test_arrivals_of_several_methods_are_mixed_evenly():
    methods = Counter(c.method for _, c in schedule([[CLASSIFY], [DETECT]], 100, 100, seed=0))
    assert methods["classify"] / methods.total() == pytest.approx(0.5, abs=0.03)


async def test_latency_of_a_late_call_counts_from_when_it_was_due():
    stalled: list[tuple[float, float]] = []

    async def send(call: Call, caller: int) -> bytes:
        if not stalled:
            began = time.perf_counter()
            time.sleep(0.3)
            stalled.append((began, time.perf_counter()))
        return b""

    window = await open_loop(send, [[CLASSIFY]], 200, 0, 1.0, seed=0)
    began, ended = stalled[0]
    meanwhile = [o for o in window.outcomes if began < o.due < ended]
    assert len(meanwhile) > 10
    assert all(o.latency_s >= ended - o.due for o in meanwhile)
    assert all(o.sent >= ended for o in meanwhile)


async def test_calls_at_a_rate_do_not_wait_for_earlier_answers():
    answered = asyncio.Event()
    sent = 0

    async def send(call: Call, caller: int) -> bytes:
        nonlocal sent
        sent += 1
        if sent == 20:
            answered.set()
        # Nobody has an answer before twenty are under way.
        await answered.wait()
        return b""

    window = await asyncio.wait_for(open_loop(send, [[CLASSIFY]], 400, 0, 0.3, seed=0), 30)
    assert len(window.outcomes) == sent >= 20


async def test_callers_wait_for_their_answers_and_each_method_has_its_share_of_them():
    stub = Stub()
    await closed_loop(stub.send, [[CLASSIFY], [DETECT]], 6, 0.05, 0.05)
    assert stub.most == {"classify": 3, "detect": 3}
    assert not stub.under_way.total()


async def test_window_opens_only_when_every_caller_has_had_an_answer():
    held = asyncio.Event()
    marks: list[str] = []
    answers = itertools.count()

    async def send(call: Call, caller: int) -> bytes:
        if caller == 3 and not held.is_set():
            # The others go on meanwhile; the last one's first answer opens the window.
            while next(answers) < 50:
                await asyncio.sleep(0)
            assert marks == []
            held.set()
        await asyncio.sleep(0)
        next(answers)
        return b""

    def mark() -> None:
        marks.append("held" if not held.is_set() else "opened")

    await closed_loop(send, [[CLASSIFY]], 4, 0, 0.01, mark)
    assert marks == ["opened", "opened"]


async def test_only_answers_inside_the_window_count():
    window = await closed_loop(Stub().send, [[CLASSIFY]], 2, 0.02, 0.05)
    assert window.outcomes
    assert all(window.opened <= o.done < window.closed for o in window.outcomes)


async def test_each_caller_sends_all_pictures_in_turn():
    seen: list[str] = []

    async def send(call: Call, caller: int) -> bytes:
        seen.append(call.picture)
        await asyncio.sleep(0)
        return b""

    calls = [Call("classify", name, ("m",), b"") for name in "abc"]
    await closed_loop(send, [calls], 1, 0, 0.05)
    assert seen[:6] == list("abcabc")


async def test_failed_calls_are_results_with_their_status(fake: FakeServer):
    numbers = itertools.count()

    def every_third(request: object, context: grpc.ServicerContext) -> pb.ClassifyResponse:
        if next(numbers) % 3 == 0:
            refusal(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], "full")(request, context)
        return pb.ClassifyResponse()

    fake.answers["Classify"] = every_third
    window = await loaded(fake, 2)
    codes = Counter(o.code for o in window.outcomes)
    assert set(codes) == {OK, "RESOURCE_EXHAUSTED"}
    # One attempt each: what was refused was not sent again.
    assert codes["RESOURCE_EXHAUSTED"] <= fake.calls["Classify"] / 3 + 1


async def test_missing_server_is_counted_and_the_loop_ends(nobody: str):
    async with Channels(nobody, 2, timeout=5) as channels:
        window = await closed_loop(channels.send, [[CLASSIFY]], 2, 0, 0.1)
    assert {o.code for o in window.outcomes} == {"UNAVAILABLE"}


async def test_each_caller_has_its_own_connection(fake: FakeServer):
    peers: set[str] = set()

    def answer(request: object, context: grpc.ServicerContext) -> pb.ClassifyResponse:
        peers.add(context.peer())
        return pb.ClassifyResponse()

    fake.answers["Classify"] = answer
    await loaded(fake, 5)
    assert len(peers) == 5


async def loaded(fake: FakeServer, callers: int, seconds: float = 0.4) -> Window:
    async with Channels(fake.address, callers, timeout=20) as channels:
        return await closed_loop(channels.send, [[CLASSIFY]], callers, 0, seconds)
