"""Overload, reloads and damaged pictures, for longer than in the tests."""

import asyncio
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from visavis.bench.channels import Channels
from visavis.bench.load import OK, open_loop
from visavis.bench.workload import Call, calls_of

from tests.benchmark.site import send_all
from tests.faults.calls import channel, health
from tests.faults.conftest import SLOW_S
from tests.faults.mutants import decoded_elsewhere, pictures_in
from tests.faults.process import ServerProcess
from tests.faults.reloading import put, reload_under_callers
from tests.server import graphs
from tests.soak.report import REFUSED, Row, Soak, counted, peak_per_s, percent, took_s
from visavis_server.runtime.cores import usable_cores


def overload_of_a_slow_model(soak: Soak) -> Sequence[Row]:
    """Send a model of 100 ms ten times what it can answer, for a minute."""
    picture = soak.folder / "red.png"
    Image.new("RGB", (64, 64), (255, 0, 0)).save(picture)
    with soak.server(soak.slow) as server:
        calls = calls_of("classify", ("slow",), [picture])
        return asyncio.run(_overload(soak, server, "a model of 100 ms", calls, 10 * SLOW_S, 0.9))


def overload_of_resnet(soak: Soak) -> Sequence[Row]:
    """Send ResNet-50 ten times what it can answer: refusals compete with its runs."""
    with soak.server(soak.site.fp32) as server:
        calls = calls_of("classify", ("resnet50",), soak.site.pictures)
        return asyncio.run(_overload(soak, server, "ResNet-50", calls, 2.0, 0.7))


async def _overload(
    soak: Soak,
    server: ServerProcess,
    what: str,
    calls: Sequence[Call],
    deadline_s: float,
    least: float,
) -> Sequence[Row]:
    seconds = 60 * soak.length
    before = await peak_per_s(server, calls, seconds / 4)
    statuses: list[int] = []

    async def watch_health() -> None:
        async with channel(server.address) as one:
            while True:
                statuses.append(await health(one))
                await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch_health())
    began, cpu_s = time.monotonic(), time.process_time()
    async with Channels(server.address, 32, deadline_s) as channels:
        window = await open_loop(channels.send, [calls], 10 * before, 3.0, seconds, seed=1)
    watching.cancel()
    # The load generator takes cores too: it runs on the same machine.
    own = (time.process_time() - cpu_s) / (time.monotonic() - began) / usable_cores()
    # The speed of a shared machine varies.
    peak = (before + await peak_per_s(server, calls, seconds / 4)) / 2
    codes = Counter(outcome.code for outcome in window.outcomes)
    goodput = codes[OK] / seconds / peak
    refusals_ms = [1e3 * took_s(o) for o in window.outcomes if o.code == REFUSED]
    others = {c: n for c, n in codes.items() if c not in (OK, REFUSED)}
    late = sum(others.values()) / max(1, codes[OK] + sum(others.values()))
    p50_ms = statistics.median(refusals_ms) if refusals_ms else 0.0
    return [
        Row(
            f"{what}, offered 10 times its peak rate for {seconds:.0f} s: answered in time",
            f"at least {percent(least)} of the peak, less the load generator's share of the cores",
            f"{percent(goodput)} of {peak:.1f} per second; {codes[REFUSED]:,} rejected; the load "
            f"generator took {percent(own)} of the cores",
            goodput >= least * (1 - own),
        ),
        Row(
            f"{what}: accepted, but not answered in time",
            f"below {percent(0.1)}",
            percent(late, 1) + (f": {counted(others)}" if others else ""),
            late < 0.1,
        ),
        Row(f"{what}: median time to reject", "below 5 ms", f"{p50_ms:.1f} ms", p50_ms < 5.0),
        Row(
            f"{what}: health checks during the overload",
            "all SERVING",
            f"{Counter(statuses)[1]} of {len(statuses)}",
            set(statuses) == {1},
        ),
    ]


def reloads(soak: Soak) -> Sequence[Row]:
    """Reload a model 50 times under 32 callers, and ResNet-50 beside it every 5 s."""
    count = max(3, round(50 * soak.length))
    folder = soak.folder / "reloaded"
    put(folder, "colors", 1)
    (resnet,) = (soak.site.fp32 / "resnet50").glob("*/model.onnx")
    target = folder / "large" / "1" / "model.onnx"
    target.parent.mkdir(parents=True)
    shutil.copy(resnet, target)
    with soak.server(folder, "--watch-interval-s", "0.2") as server:

        async def touch() -> None:
            while True:
                await asyncio.sleep(5)
                await asyncio.to_thread(_replace, resnet, target)

        async def reload() -> dict[str, list[object]]:
            touching = asyncio.create_task(touch())
            report = await reload_under_callers(server, folder, count, 32, first=2)
            touching.cancel()
            await asyncio.sleep(5)  # The last replaced version is freed.
            return report

        # The first reload allocates memory that stays; it is not counted.
        asyncio.run(reload_under_callers(server, folder, 1, 8))
        before = server.rss_mib
        report = asyncio.run(reload())
        grown = server.rss_mib - before
    return [
        Row(
            f"{count} reloads of a model under 32 callers",
            "no call fails, no answer mixes two versions",
            f"{len(report['failures'])} failed, {len(report['mixed'])} mixed; "
            f"{len(report['versions'])} versions answered",
            not (report["failures"] or report["mixed"]),
        ),
        Row(
            "memory after these reloads",
            "grows by less than 50 MiB",
            f"{grown:+.0f} MiB",
            grown < 50,
        ),
    ]


def _replace(source: Path, target: Path) -> None:
    new = target.with_name("new")
    shutil.copy(source, new)
    new.rename(target)


def memory(soak: Soak) -> Sequence[Row]:
    """Send 20,000 requests of all sizes and methods."""
    count = round(20_000 * soak.length)
    chance = np.random.default_rng(0)
    pictures = []
    for number in range(60):
        width, height = (int(side) for side in 2 ** chance.uniform(0, 11, 2))
        picture = soak.folder / f"{number}.{('png', 'jpg', 'webp')[number % 3]}"
        noise = chance.integers(0, 255, (max(1, height // 8), max(1, width // 8), 3), np.uint8)
        Image.fromarray(noise).resize((width, height)).save(picture)
        pictures.append(picture)
    folder = soak.folder / "mixed"
    put(folder, "colors", 1)
    boxes, _ = graphs.export(graphs.constant(graphs.ROWS), graphs.detector_document())
    graphs.put(folder, "boxes", 1, boxes)
    calls = [
        call
        for trio in zip(
            calls_of("classify", ("colors",), pictures),
            calls_of("detect", ("boxes",), pictures),
            calls_of("compare", ("colors", "boxes"), pictures),
            strict=True,
        )
        for call in trio
    ]
    with soak.server(folder) as server:
        asyncio.run(send_all(server.address, calls, count // 2))
        half = server.rss_mib
        asyncio.run(send_all(server.address, calls, count - count // 2))
        grown = server.rss_mib - half
    return [
        Row(
            f"memory during the second half of {count:,} mixed requests",
            "grows by less than 20 MiB",
            f"{grown:+.1f} MiB, from {half:.0f} MiB",
            grown < 20,
        )
    ]


def damaged_pictures(soak: Soak) -> Sequence[Row]:
    """Decode 50,000 mutants of real pictures in each format."""
    count = round(50_000 * soak.length)
    photographs = sorted((soak.site.images / "imagenet").glob("*.JPEG"))
    rows = []
    for form in ("JPEG", "PNG", "WEBP"):
        with tempfile.TemporaryDirectory(dir=soak.folder) as folder:
            outcome = decoded_elsewhere(count, 7, pictures_in(form, photographs, Path(folder)))
        kinds, longest_ms = outcome["kinds"], outcome["longest_ms"]
        rows.append(
            Row(
                f"{count:,} mutants of {'WebP' if form == 'WEBP' else form} pictures",
                "each decoded or rejected, within 500 ms of CPU time; memory peaks below 200 MiB "
                "and grows by less than 20 MiB",
                f"{counted(kinds)}; longest {longest_ms} ms; peak {outcome['peak_mib']} MiB, "
                f"growth {outcome['grown_mib']} MiB",
                set(kinds) <= {"decoded", "refused"}
                and longest_ms < 500
                and outcome["peak_mib"] < 200
                and outcome["grown_mib"] < 20,
            )
        )
    return rows
