"""Damaged pictures, requests that mean nothing, and connections that are no client's."""

import asyncio
import re
import resource
import signal
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from visavis.v1 import vision_pb2 as pb

from tests.server.pictures import RED, plain
from tests.surroundings import Surroundings

from .attacks import METHOD, HungUp, Proxy, RawConnection
from .calls import OK, channel, classify, ended, health, stub_of
from .conftest import Serve
from .fuzz_seeds import seeds_of_targets
from .mutants import decoded_elsewhere, pictures_in
from .process import ServerProcess

SHORT = 1500
FORMATS = ("JPEG", "PNG", "WEBP")
HONEST = {OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


@pytest.mark.parametrize("form", FORMATS)
def test_every_undecodable_image_is_refused_without_a_crash(
    sample_pictures: tuple[Path, ...], tmp_path: Path, form: str
) -> None:
    outcome = decoded_elsewhere(SHORT, 1, pictures_in(form, sample_pictures, tmp_path))
    assert set(outcome["kinds"]) <= {"decoded", "refused"}, outcome
    assert outcome["kinds"]["refused"] > SHORT / 20
    assert outcome["peak_mib"] < 200
    assert outcome["grown_mib"] < 20


finite_or_not = st.floats(width=32)
encoded = st.one_of(st.binary(max_size=300), st.just(plain(RED)), st.just(plain(RED)[:60]))
raw = st.builds(
    pb.RawImage,
    format=st.integers(0, 6),
    width=st.integers(-3, 20),
    height=st.integers(-3, 20),
    data=st.binary(max_size=1300),
)
pictures = st.one_of(
    st.just(pb.Image()), st.builds(pb.Image, encoded=encoded), st.builds(pb.Image, raw=raw)
)
names = st.one_of(st.sampled_from(["colors", "boxes", "fragile", ""]), st.text(max_size=30))
requests = st.one_of(
    st.builds(
        pb.ClassifyRequest,
        image=pictures,
        model=names,
        top_k=st.integers(-(2**31), 2**31 - 1),
        version=st.integers(-2, 3),
        annotate=st.booleans(),
    ),
    st.builds(
        pb.DetectRequest,
        image=pictures,
        model=names,
        score_threshold=finite_or_not,
        iou_threshold=finite_or_not,
        max_detections=st.integers(-(2**31), 2**31 - 1),
        labels=st.lists(st.text(max_size=10), max_size=3),
        class_agnostic=st.booleans(),
        annotate=st.booleans(),
    ),
    st.builds(
        pb.CompareRequest,
        image=pictures,
        models=st.lists(names, max_size=4),
        tasks=st.lists(st.sampled_from([0, 1, 2]), max_size=4),
        baseline=names,
        annotate=st.booleans(),
    ),
)


def test_any_request_is_answered_or_refused_by_its_field(serve: Serve) -> None:
    server = serve()
    with grpc.insecure_channel(server.address) as one:

        @settings(max_examples=300, suppress_health_check=list(HealthCheck), deadline=None)
        @given(request=requests, damage=st.binary(max_size=6), at=st.integers(0, 400))
        def ask(request: pb.ClassifyRequest, damage: bytes, at: int) -> None:
            method = f"/visavis.v1.VisionService/{type(request).__name__[:-7]}"
            whole = request.SerializeToString()
            for data in (whole, whole[:at] + damage + whole[at + len(damage) :]):
                assert _code(one.unary_unary(method), data) in HONEST

        ask()


def _code(call: "grpc.UnaryUnaryMultiCallable[bytes, bytes]", data: bytes) -> grpc.StatusCode:
    try:
        call(data, timeout=30)
    except grpc.RpcError as error:
        code = error.code()
        # A dark picture breaks the model `fragile`, which says so.
        dark = code is grpc.StatusCode.INTERNAL and "NaN or infinity" in (error.details() or "")
        return OK if dark else code
    return OK


@pytest.mark.parametrize("target", seeds_of_targets())
def test_a_fuzzer_finds_nothing_in_what_strangers_send(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="needs atheris")
    # Linux lets a process begin with the peak of the one that started it, which may have run torch.
    own_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    options = ["-max_total_time=4", "-timeout=5", f"-artifact_prefix={tmp_path}/"]
    options.append(f"-rss_limit_mb={own_mib + 2048}")
    (seeds := tmp_path / "seeds").mkdir()
    for number, seed in enumerate(seeds_of_targets()[target]):
        (seeds / str(number)).write_bytes(seed)
    found = Surroundings.under(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.fuzz", target, *options, seeds],
        capture_output=True,
        text=True,
        check=False,
        cwd=found.elsewhere,
        env=found.environment_of_tests(),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done " in done.stderr
    # The fuzzer sees which of the server's code an input reaches: that much at the first ones.
    assert re.search(r"INITED cov: \d\d", done.stderr), done.stderr[-3000:]


async def neighbours_are_unharmed(server: ServerProcess) -> None:
    """Assert that a call on a connection of its own is answered, and health too."""
    async with channel(server.address) as one:
        calls = [ended(stub_of(one).Classify(classify(), timeout=10)) for _ in range(8)]
        assert {outcome.code for outcome in await asyncio.gather(*calls)} == {OK}
        assert await health(one) == 1


async def test_header_only_streams_are_ended_and_harm_nobody(serve: Serve) -> None:
    server = serve(VISAVIS_MESSAGE_TIMEOUT_S="2")
    with closing(RawConnection(server.port)) as attacker:
        for _ in range(200):
            attacker.open_call()
        await neighbours_are_unharmed(server)
        ended_streams = 0
        while ended_streams < 200:
            events = await asyncio.to_thread(attacker.events, 10)
            assert events, f"only {ended_streams} of 200 calls were ended"
            ended_streams += sum(type(event).__name__ == "StreamEnded" for event in events)
        await neighbours_are_unharmed(server)


async def test_stalled_bodies_take_little_memory_and_harm_nobody(serve: Serve) -> None:
    server = serve(VISAVIS_MESSAGE_TIMEOUT_S="5")
    await neighbours_are_unharmed(server)
    before = server.rss_mib
    with closing(RawConnection(server.port)) as attacker:

        def attack() -> None:
            with suppress(HungUp):  # or the server reads no more of it
                for _ in range(100):
                    attacker.stall(attacker.open_call(), 4 << 20)

        await asyncio.gather(asyncio.to_thread(attack), neighbours_are_unharmed(server))
        await neighbours_are_unharmed(server)
        assert server.rss_mib - before < 200  # all at once would be 400
    await neighbours_are_unharmed(server)


async def test_rapid_resets_harm_nobody(serve: Serve) -> None:
    server = serve()
    async with channel(server.address) as one:
        innocent = [
            asyncio.ensure_future(ended(stub_of(one).Classify(classify("slow")))) for _ in range(8)
        ]

        def attack() -> None:
            with suppress(HungUp), closing(RawConnection(server.port)) as attacker:
                for _ in range(20_000):
                    attacker.reset(attacker.open_call())
                    attacker.events(0.0)

        await asyncio.to_thread(attack)
        assert {outcome.code for outcome in await asyncio.gather(*innocent)} == {OK}
    await neighbours_are_unharmed(server)


async def test_20_000_resets_in_one_burst_harm_nobody(serve: Serve) -> None:
    server = serve()
    async with channel(server.address) as one:
        stub = stub_of(one)
        await stub.Classify(classify())

        def attack() -> None:
            with suppress(HungUp), closing(RawConnection(server.port)) as attacker:
                attacker.reset_many(20_000)
                for _ in range(10):  # or until the server has ended the connection
                    attacker.events(0.2)

        attacks = asyncio.gather(*(asyncio.to_thread(attack) for _ in range(4)))
        while not attacks.done():
            outcome = await ended(stub.Classify(classify(), timeout=30))
            assert outcome.code is OK, outcome.error
            assert outcome.seconds < 5
        await attacks
    await neighbours_are_unharmed(server)


async def test_names_of_methods_that_are_not_text_harm_nobody(serve: Serve) -> None:
    server = serve()
    async with channel(server.address) as one:
        stub = stub_of(one)
        innocent = [asyncio.ensure_future(ended(stub.Classify(classify("slow")))) for _ in range(8)]
        await asyncio.sleep(0.2)  # until they run

        def attack() -> None:
            with closing(RawConnection(server.port)) as attacker:
                for name in (b"/\xff", METHOD.encode() + b"\xff", b"\xc3\x28") * 20:
                    attacker.open_call(method=name)
                while attacker.calls:
                    assert attacker.events(10), f"{attacker.calls} calls were not ended"

        await asyncio.to_thread(attack)
        await neighbours_are_unharmed(server)
        await asyncio.to_thread(attack)
        assert {outcome.code for outcome in await asyncio.gather(*innocent)} == {OK}
        await neighbours_are_unharmed(server)
    assert "its method's name is not UTF-8" in server.log
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


async def test_pings_without_end_are_sent_away(serve: Serve) -> None:
    server = serve()

    def attack() -> None:
        with closing(RawConnection(server.port)) as attacker:
            for _ in range(10_000):
                attacker.ping()
                attacker.events(0.001)

    with pytest.raises(HungUp):
        await asyncio.to_thread(attack)
    await neighbours_are_unharmed(server)


@pytest.mark.parametrize("fault", ["drip", "black_hole", "reset"])
async def test_a_network_that_misbehaves_costs_only_its_own_calls(serve: Serve, fault: str) -> None:
    server = serve(VISAVIS_MESSAGE_TIMEOUT_S="2")
    async with Proxy(server.port) as proxy, channel(f"127.0.0.1:{proxy.port}") as faulty:
        assert (await ended(stub_of(faulty).Classify(classify(), timeout=10))).code is OK
        calls = [
            asyncio.ensure_future(ended(stub_of(faulty).Classify(classify("slow"), timeout=4)))
            for _ in range(8)
        ]
        await asyncio.sleep(0.05)
        if fault == "reset":
            proxy.reset()
        else:
            setattr(proxy, fault, True)
        await neighbours_are_unharmed(server)
        codes = {outcome.code for outcome in await asyncio.gather(*calls)}
        assert codes <= {OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    await neighbours_are_unharmed(server)


async def test_more_connections_than_the_limit_are_refused(serve: Serve) -> None:
    server = serve(VISAVIS_MAX_CONNECTIONS="8")
    held: list[RawConnection] = []

    def attack() -> None:
        for _ in range(20):
            held.append(RawConnection(server.port))
            held[-1].events(0.5)
            held[-1].open_call()
            held[-1].events(0.5)

    with pytest.raises(HungUp):
        await asyncio.to_thread(attack)
    assert len(held) >= 8
    for each in held:
        each.close()
    await neighbours_are_unharmed(server)
