"""Attacks by requests and by files, for longer than in the tests."""

import asyncio
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
from PIL import Image
from visavis import Client
from visavis.bench.channels import Channels
from visavis.bench.load import OK, Outcome, closed_loop
from visavis.bench.workload import calls_of

from tests.clients.dataset import odd
from tests.export.forgeries import KINDS
from tests.faults import costly
from tests.faults.attacks import HungUp, RawConnection
from tests.faults.calls import channel, health
from tests.faults.memory_group import memory_group
from tests.faults.process import ServerProcess, started
from tests.faults.reloading import put
from tests.faults.sizes import large_requests, longest_health_s
from tests.server import graphs
from tests.soak.report import REFUSED, Row, Soak, counted, peak_per_s, percent, took_s
from tests.surroundings import Surroundings

_LARGEST_MESSAGE = 32 << 20


def full_pipe(soak: Soak) -> Sequence[Row]:
    """Log every call into a pipe that nothing reads."""
    seconds = 60 * soak.length
    folder = soak.folder / "logged"
    put(folder, "colors", 1)
    picture = soak.folder / "red.png"
    Image.new("RGB", (64, 64), (255, 0, 0)).save(picture)
    calls = calls_of("classify", ("colors",), [picture])

    async def call(address: str) -> Counter[str]:
        async with Channels(address, 8, 60.0) as channels:
            window = await closed_loop(channels.send, [calls], 8, 3.0, seconds)
        return Counter(outcome.code for outcome in window.outcomes)

    debug = ("--log-level", "debug")
    with started(folder, soak.folder, subprocess.PIPE, *debug) as (process, port):
        address = f"127.0.0.1:{port}"
        with Client(address) as client:
            client.wait_until_ready(60)
        codes = asyncio.run(call(address))
        began = time.monotonic()
        process.terminate()
        code, took_s = process.wait(60), time.monotonic() - began
    return [
        Row(
            f"{codes.total():,} calls in {seconds:.0f} s, logged into a pipe that nothing reads",
            "all answered",
            counted(codes),
            set(codes) == {OK},
        ),
        Row(
            "SIGTERM after these calls",
            "exit code 0 within 5 s",
            f"exit code {code} after {took_s:.1f} s",
            code == 0 and took_s < 5.0,
        ),
    ]


def worst_picture(soak: Soak) -> Sequence[Row]:
    """Search each format for 5 minutes for the slowest picture that the limits allow."""
    rows = []
    for form in costly.FORMATS:
        outcome = costly.searched_elsewhere(300 * soak.length, 1, form)
        worst_ms, beyond_mib = outcome["worst_ms"], outcome["beyond_mib"]
        rows.append(
            Row(
                f"slowest of {outcome['tried']:,} {form} pictures, built to be slow",
                "below 500 ms of CPU time, and less than 50 MiB above the memory estimate",
                f"{worst_ms} ms, {beyond_mib:+} MiB; {outcome['decoded']:,} decoded",
                worst_ms < 500 and beyond_mib < 50 and outcome["decoded"] > 0,
            )
        )
    return rows


def poison_at_start(soak: Soak) -> Sequence[Row]:
    """Start with one good model among others that hang, crash or fill the memory."""
    folder, timeout_s = soak.folder / "poison", 5.0
    kinds: dict[str, Callable[[], bytes]] = {
        "endless": graphs.loop_without_end,
        "huge": graphs.huge_constant,
        "unknown": graphs.unknown_operator,
        "garbage": lambda: np.random.default_rng(0).bytes(1 << 20),
        "empty": lambda: b"",
    }
    for name, make in kinds.items():
        graphs.put(folder, name, 1, make())
    os.mkfifo(_beside(folder, "fifo"))
    _beside(folder, "device").symlink_to("/dev/zero")
    os.truncate(graphs.put(folder, "sparse", 1, b""), 1 << 40)
    put(folder, "colors", 1)
    bad = {*kinds, "fifo", "device", "sparse"}
    took_s, named = [], []
    for _ in range(max(1, round(5 * soak.length))):
        began = time.monotonic()
        with ServerProcess(folder, soak.folder, VISAVIS_LOAD_TIMEOUT_S=str(timeout_s)) as server:
            took_s.append(time.monotonic() - began)
            entries = [json.loads(line) for line in server.log.splitlines()]
            named.append({e["model"].split("/")[0] for e in entries if e["event"] == "refused"})
    return [
        Row(
            f"{len(took_s)} starts with {len(bad)} bad models and a good one",
            "the good one is served within 40 s, and the log names all others",
            f"served after {max(took_s):.1f} s at most; {min(map(len, named))} named",
            all(each == bad for each in named) and max(took_s) < 40,
        )
    ]


def _beside(folder: Path, name: str) -> Path:
    """Return the path for a model's file, in a new folder."""
    path = folder / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    return path


def loop_lag(soak: Soak) -> Sequence[Row]:
    """Check health while requests arrive that repeat one field as often as a message allows."""
    folder = soak.folder / "sizes"
    put(folder, "colors", 1)
    rounds = max(1, round(20 * soak.length))
    requests = large_requests(_LARGEST_MESSAGE - 1000)
    longest_s, codes = 0.0, set[str]()
    with soak.server(folder, "--max-message-bytes", str(_LARGEST_MESSAGE)) as server:
        for _ in range(rounds):
            took_s, ended = asyncio.run(longest_health_s(server.address, requests))
            longest_s, codes = max(longest_s, took_s), codes | ended
    return [
        Row(
            f"slowest health check during {rounds * len(requests)} requests of 32 MiB that repeat "
            "labels, tasks, elements or sizes",
            "below 1 s",
            f"{longest_s * 1e3:.0f} ms; the requests got {', '.join(sorted(codes))}",
            longest_s < 1.0 and "INTERNAL" not in codes,
        )
    ]


def short_memory(soak: Soak) -> Sequence[Row]:
    """64 callers with JPEGs of 2 MB in 700 MB, and 64 with raw 4K frames in 2 GB."""
    chance = np.random.default_rng(0)
    photograph = soak.folder / "photograph.jpg"
    noise = chance.integers(0, 255, (1300, 1700, 3), np.uint8)
    Image.fromarray(noise).save(photograph, quality=92)
    frame = soak.folder / "frame.png"
    Image.fromarray(noise).resize((3840, 2160)).save(frame)
    return [
        *_in_short_memory(soak, "JPEGs of 2 MB, in 700 MB", photograph, 700_000_000, False),
        *_in_short_memory(soak, "raw 4K frames, in 2 GB", frame, 2_000_000_000, True),
    ]


def _in_short_memory(
    soak: Soak, what: str, picture: Path, limit_bytes: int, raw: bool
) -> Sequence[Row]:
    seconds = max(10.0, 60 * soak.length)
    calls = calls_of("classify", ("resnet50",), [picture], raw=raw)
    with soak.server(soak.site.fp32) as server:
        peak = asyncio.run(peak_per_s(server, calls, seconds / 2))

    async def load(server: ServerProcess) -> Counter[str]:
        async with Channels(server.address, 64, 60.0) as channels:
            window = await closed_loop(channels.send, [calls], 64, 3.0, seconds)
        return Counter(outcome.code for outcome in window.outcomes)

    with memory_group(limit_bytes) as group:
        server = ServerProcess(soak.site.fp32, soak.folder)
        group.take(server.process.pid)
        with server:
            codes = asyncio.run(load(server))
            lives, most_mib = server.process.poll() is None, group.peak_mib
    goodput = codes[OK] / seconds / peak
    others = {c: n for c, n in codes.items() if c not in (OK, REFUSED)}
    return [
        Row(
            f"64 callers with {what}, for {seconds:.0f} s",
            "answered or rejected; the server is never killed, and keeps 90 % of the rate that it "
            "has for 8 callers without a limit",
            f"{percent(goodput)} of {peak:.1f} per second; {codes[REFUSED]:,} rejected"
            + (f", {counted(others)}" if others else "")
            + f"; at most {most_mib:.0f} MiB{'' if lives else '; KILLED'}",
            lives and not others and goodput >= 0.9,
        )
    ]


def stalled_senders(soak: Soak) -> Sequence[Row]:
    """Stall 16 messages on each of 20 connections, beside a neighbour."""
    picture = soak.folder / "red.png"
    Image.new("RGB", (64, 64), (255, 0, 0)).save(picture)
    seconds = 40 * soak.length
    calls = calls_of("classify", ("slow",), [picture])
    healths: list[float] = []
    over = threading.Event()

    def attack(server: ServerProcess) -> None:
        with suppress(HungUp), closing(RawConnection(server.port)) as attacker:
            while not over.is_set():
                while attacker.calls < 16 and not over.is_set():
                    attacker.stall(attacker.open_call(), 4 << 20)
                attacker.events(0.2)

    async def neighbours(server: ServerProcess) -> list[Outcome]:
        async def watch_health() -> None:
            async with channel(server.address) as one:
                while True:
                    began = time.monotonic()
                    await health(one)
                    healths.append(time.monotonic() - began)
                    await asyncio.sleep(0.2)

        watching = asyncio.create_task(watch_health())
        async with Channels(server.address, 1, 60.0) as channels:
            window = await closed_loop(channels.send, [calls], 1, 3.0, seconds)
        watching.cancel()
        return list(window.outcomes)

    with soak.server(soak.slow) as server, ThreadPoolExecutor(20) as threads:
        attacks = [threads.submit(attack, server) for _ in range(20)]
        outcomes = asyncio.run(neighbours(server))
        over.set()
        for each in attacks:
            each.result()
    answered = sorted(took_s(outcome) for outcome in outcomes if outcome.code == OK)
    p99_s = answered[int(0.99 * len(answered))] if answered else math.inf
    health_s = sorted(healths)[int(0.99 * len(healths))]
    return [
        Row(
            f"a client beside 20 connections that each stall 16 half-sent messages, for "
            f"{seconds:.0f} s",
            "every call answered, p99 below 4 s; health checks' p99 below 1 s",
            f"{len(answered)} of {len(outcomes)} answered, p99 {p99_s:.2f} s; health checks' p99 "
            f"{health_s:.2f} s",
            len(answered) == len(outcomes) and p99_s < 4 and health_s < 1,
        )
    ]


def forged_checkpoints(soak: Soak) -> Sequence[Row]:
    """Checkpoints of each exported kind, with payloads in every text, name and number."""
    counts = {kind: max(5, round(1500 * soak.length)) for kind in KINDS}
    with tempfile.TemporaryDirectory(dir=soak.folder) as folder:
        found = Surroundings.under(Path(folder, "surroundings"))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.export.forgeries", "7", folder),
                *(f"{kind}={count}" for kind, count in counts.items()),
            ],
            cwd=found.elsewhere,
            env=found.environment_of_tests(),
            stdout=subprocess.PIPE,
            check=True,
        )
        marks = list(Path(folder).rglob("PWNED"))
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b'{"kind"')]
    return [
        Row(
            f"{counts[report['kind']]:,} forged checkpoints of {report['kind']}",
            "each read, or rejected with one sentence; no program started, nothing compiled, "
            "imported or written; memory grows by less than 200 MiB",
            f"{counted(report['outcomes'])}; {len(report['watched'])} forbidden events; slowest "
            f"{report['slowest_s']} s; {report['grown_mib']:+} MiB"
            + "".join(f"; {odd}" for odd in (report["odd"] + report["watched"])[:3]),
            not (report["odd"] or report["watched"] or marks) and report["grown_mib"] < 200,
        )
        for report in reports
    ]


def odd_folders(soak: Soak) -> Sequence[Row]:
    """Folders of pictures and labels in the forms of many tools, half of them with a fault."""
    number = max(100, round(10_000 * soak.length))
    counts, wrong = odd.tried(7, number)
    return [
        Row(
            f"{number:,} folders of labels, half of them with a fault",
            "read correctly, or rejected with the file and line",
            f"{counted(counts)}; {len(wrong)} wrong" + "".join(f"; {each}" for each in wrong[:3]),
            not wrong,
        )
    ]
