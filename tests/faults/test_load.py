"""More calls than can be answered, and calls that nobody waits for any more."""

import asyncio
import json
import time
import urllib.request
from collections import Counter
from pathlib import Path

import grpc
from visavis.v1 import vision_pb2 as pb

from tests.server import graphs
from tests.server.pictures import BLACK, plain

from .calls import COLORS, OK, channel, classify, ended, health, stub_of
from .conftest import SLOW_S, Serve, slow

REFUSED = grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_overload_is_refused_at_once_with_retry_info_and_health_is_exempt(
    serve: Serve,
) -> None:
    server = serve("--cores", "1")
    deadline_s, rate = 10 * SLOW_S, 10 / SLOW_S
    async with channel(server.address) as one, channel(server.address) as other:
        await stub_of(one).Classify(classify("slow"))
        calls, healths = [], []
        end = time.monotonic() + 5
        while time.monotonic() < end:
            call = stub_of(one).Classify(classify("slow"), timeout=deadline_s)
            calls.append(asyncio.ensure_future(ended(call)))
            if len(calls) % 20 == 0:
                healths.append(asyncio.ensure_future(health(other)))
            await asyncio.sleep(1 / rate)
        outcomes = await asyncio.gather(*calls)
        assert set(await asyncio.gather(*healths)) == {1}
    codes = Counter(outcome.code for outcome in outcomes)
    assert codes[OK] > 10
    # What can't be done is not begun: nearly all that is not answered is refused.
    assert codes[REFUSED] > 0.8 * (len(outcomes) - codes[OK])
    refusals = [outcome for outcome in outcomes if outcome.code is REFUSED]
    assert all(refusal.retry_after_s for refusal in refusals)
    # Who is refused hears it while there is time to go elsewhere.
    assert sum(refusal.seconds for refusal in refusals) / len(refusals) < deadline_s / 2


async def test_with_1_running_200_cancelled_and_200_expired_at_most_one_more_runs(
    serve: Serve,
) -> None:
    server = serve("--cores", "1", "--metrics", "127.0.0.1:0")
    async with channel(server.address) as one:
        stub = stub_of(one)
        runs_before = await _runs(server.log)
        running = asyncio.ensure_future(ended(stub.Classify(classify("slow"))))
        await asyncio.sleep(0)
        cancelled = [stub.Classify(classify("slow")) for _ in range(200)]
        expired = [
            asyncio.ensure_future(ended(stub.Classify(classify("slow"), timeout=SLOW_S / 4)))
            for _ in range(200)
        ]
        await asyncio.sleep(SLOW_S / 4)
        for call in cancelled:
            call.cancel()
        assert (await running).code is OK
        assert OK not in {outcome.code for outcome in await asyncio.gather(*expired)}
        assert (await ended(stub.Classify(classify()))).code is OK
        # The first, and perhaps one that was taken before it was cancelled.
        assert await _runs(server.log) - runs_before <= 2


async def test_a_run_that_nobody_waits_for_any_more_is_ended(serve: Serve, tmp_path: Path) -> None:
    graphs.put(tmp_path / "models", "slow", 1, slow(seconds=10 * SLOW_S))
    colors, _ = graphs.export(graphs.classifier(), graphs.classifier_document())
    graphs.put(tmp_path / "models", "colors", 1, colors)
    server = serve("--cores", "1", models=tmp_path / "models")
    async with channel(server.address) as one:
        stub = stub_of(one)

        def used_s() -> float:
            return sum(server.seen.cpu_times()[:2])

        began_s = used_s()
        await stub.Classify(classify("slow"))
        whole_s = used_s() - began_s
        began_s = used_s()
        for _ in range(10):
            call = stub.Classify(classify("slow"))
            await asyncio.sleep(SLOW_S / 2)
            call.cancel()
            # The only core is free again once it answers.
            assert (await ended(stub.Classify(classify()))).code is OK
        # CPU, not time: other load on the machine must not hide runs that go on to their end.
        assert used_s() - began_s < 10 * whole_s / 2
        assert "model failed" not in server.log


async def test_64_callers_get_their_own_answers(serve: Serve) -> None:
    server = serve()
    channels = [channel(server.address) for _ in range(16)]

    async def call(number: int) -> None:
        stub = stub_of(channels[number % len(channels)])
        for turn in range(20):
            color = list(COLORS)[(number + turn) % 3]
            answer = await stub.Classify(classify("colors", color))
            assert answer.classifications[0].label == color

    await asyncio.gather(*(call(number) for number in range(64)))
    for each in channels:
        await each.close()


async def test_600_calls_at_once_on_one_connection_are_all_answered(serve: Serve) -> None:
    server = serve()
    async with channel(server.address) as one:
        stub = stub_of(one)
        calls = (ended(stub.Classify(classify(), timeout=60)) for _ in range(600))
        codes = Counter(outcome.code for outcome in await asyncio.gather(*calls))
    assert codes == {OK: 600}


async def test_a_poison_image_in_a_batch_fails_alone(serve: Serve) -> None:
    server = serve("--cores", "1")
    damaged = COLORS["red"][:60]
    bright = plain((200, 200, 200))
    asked = [("fragile", bright), ("fragile", plain(BLACK)), ("fragile", damaged)] * 20
    async with channel(server.address) as one:
        stub = stub_of(one)
        requests = [pb.ClassifyRequest(model=m, image=pb.Image(encoded=e)) for m, e in asked]
        blocking = asyncio.ensure_future(ended(stub.Classify(classify("slow"))))
        outcomes = await asyncio.gather(*(ended(stub.Classify(request)) for request in requests))
        await blocking
    expected = [OK, grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT] * 20
    assert [outcome.code for outcome in outcomes] == expected


async def _runs(log: str) -> int:
    """Return how many runs the slow model has had, as the metrics say."""
    (ready,) = (e for e in map(json.loads, log.splitlines()) if e.get("event") == "ready")

    def get() -> str:
        with urllib.request.urlopen(f"http://{ready['metrics']}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    lines = (await asyncio.to_thread(get)).splitlines()
    return sum(
        int(float(line.split()[-1]))
        for line in lines
        if line.startswith("visavis_model_runs_total") and 'model="slow"' in line
    )
