"""What serving costs: CPU beyond the pipeline, time to start, memory, idling models."""

import asyncio
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from visavis.bench.rounds import Load
from visavis.bench.workload import calls_of

from tests.server import graphs
from tests.surroundings import VISAVIS, Surroundings
from visavis_server.card import LabelSet, ModelInput, ShorterSide

from .site import CLASSIFY, DETECT, INT8, NotRun, Site, send_all
from .targets import Measurement, Result, at_most

_MIB = 1 << 20
_CALLS, _CALLERS = 1000, 8
_IDLE_S = 20.0  # CPU is counted in steps of 10 ms
_STARTS = 3
_MORE_MODELS = 4
# A free core's worth of nothing: timers of the runtime that every server has.
_IDLE_MS_PER_S = 2.0


def _beyond_pipeline(site: Site) -> Sequence[Result]:
    """Measure with a model that costs next to nothing, or its own noise would hide the server's."""
    loads = [Load(callers=_CALLERS), Load(rate_per_s=50)]
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        _put_costless(repository)
        rows = site.rows(
            "classify",
            ("colors",),
            loads,
            served=repository,
            limit=repository,
            as_served=True,
        )
    at_callers, at_rate = (
        statistics.median((r.server_cpu_ms or 0.0) - (r.limit_cpu_ms or 0.0) for r in row.rounds)
        for row in rows
    )
    median = rows[0].median
    echo_at_callers, echo_at_rate = (
        row.median.server_cpu_ms or 0.0 for row in site.echo("classify", loads)
    )
    return [
        Result(
            at_callers,
            f"**{at_callers:.2f} ms** ({median.server_cpu_ms:.2f} less the same pipeline's "
            f"{median.limit_cpu_ms:.2f} in-process; {at_rate:.2f} at 50 calls/s); of this, gRPC "
            f"alone takes {echo_at_callers:.2f} ({echo_at_rate:.2f}) to receive the same bytes",
        )
    ]


def _put_costless(repository: Path) -> None:
    """Write a classifier that takes 224 × 224 pixels, as ResNet-50 does, and only averages them."""
    document = graphs.classifier_document(
        input=ModelInput(tensor="images", width=224, height=224, resize=ShorterSide(size=256)),
        label_set=LabelSet(name="three-colors", labels=graphs.COLORS),
    )
    model, _ = graphs.export(graphs.classifier(size=224), document)
    graphs.put(repository, "colors", 1, model)


def _start(site: Site) -> Sequence[Result]:
    repository = site.fp32
    seconds = []
    for number in range(_STARTS):
        site.tell(f"start {number + 1} of {_STARTS}")
        seconds.append(_seconds_until_ready(repository))
    median = statistics.median(seconds)
    each = ", ".join(f"{s:.2f}" for s in seconds)
    return [Result(median, f"**{median:.2f} s** (from the command to SERVING: {each})")]


def _seconds_until_ready(repository: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        address, found = f"unix:{folder}/server", Surroundings.under(Path(folder))
        began = time.perf_counter()
        process = subprocess.Popen(
            [VISAVIS, "serve", "--models", str(repository), "--grpc", address],
            cwd=found.elsewhere,
            env=found.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            # gRPC would wait before it tries again to connect; a file is there or not.
            while not Path(folder, "server").exists() and process.poll() is None:
                time.sleep(0.005)
            with grpc.insecure_channel(address) as channel:
                health = health_pb2_grpc.HealthStub(channel)
                request = health_pb2.HealthCheckRequest()
                while process.poll() is None:
                    status = health.Check(request, wait_for_ready=True).status
                    if status == health_pb2.HealthCheckResponse.SERVING:
                        return time.perf_counter() - began
                    time.sleep(0.01)
            raise NotRun(f"the server ended with exit code {process.returncode}")
        finally:
            process.terminate()
            process.wait()


def _memory(site: Site, *, int8: bool, options: Sequence[str]) -> Sequence[Result]:
    repository = site.int8 if int8 else site.fp32
    names = [(INT8[name],) if int8 else (name,) for name in (*CLASSIFY, *DETECT)]
    with site.server(repository, *options) as (server, watched, _):
        before = watched.rss_bytes() or 0
        calls = [
            call
            for pair in zip(
                calls_of("classify", names[0], site.pictures),
                calls_of("detect", names[1], site.scenes),
                strict=True,
            )
            for call in pair
        ]
        site.tell(f"{_CALLS} calls, {'int8' if int8 else 'fp32'} {' '.join(options)}")
        asyncio.run(send_all(server.address, calls, _CALLS, _CALLERS))
        after = watched.rss_bytes() or 0
    mib = after / _MIB
    return [Result(mib, f"**{mib:.0f} MiB** ({before / _MIB:.0f} when ready)")]


def _idle(site: Site) -> Sequence[Result]:
    with tempfile.TemporaryDirectory(dir=site.cache) as folder:
        repository = Path(folder)
        for name in (*CLASSIFY, *DETECT):
            shutil.copytree(site.fp32 / name, repository / name)
        few_cpu, few_rss = _idling(site, repository)
        more_bytes = 0
        for name in (*CLASSIFY, *DETECT):
            for number in range(_MORE_MODELS // 2):
                copy = repository / f"{name}-{number}"
                shutil.copytree(site.fp32 / name, copy)
                more_bytes += sum(file.stat().st_size for file in copy.rglob("*.onnx"))
        many_cpu, many_rss = _idling(site, repository)
    grown = (many_rss - few_rss) / more_bytes
    return [
        Result(
            many_cpu - few_cpu,
            f"**{many_cpu - few_cpu:+.1f} ms per s** with {_MORE_MODELS} more models "
            f"({few_cpu:.1f} without)",
        ),
        Result(grown, f"**{grown:.2f}** times the files' {more_bytes / _MIB:.0f} MiB"),
    ]


def _idling(site: Site, repository: Path) -> tuple[float, int]:
    """Return what an idle server uses: CPU in ms per second, and RSS in bytes."""
    with site.server(repository) as (_, watched, _client):
        site.tell(f"idle, {len(list(repository.iterdir()))} models")
        time.sleep(2)  # What it began when it became ready comes to its end.
        before = watched.cpu_s() or 0.0
        time.sleep(_IDLE_S)
        after = watched.cpu_s() or 0.0
        return (after - before) / _IDLE_S * 1e3, watched.rss_bytes() or 0


def _memory_measurement(name: str, most: int, *, int8: bool, options: Sequence[str]) -> Measurement:
    kind = " ".join(("int8" if int8 else "fp32", *options))
    target = at_most(f"RSS after {_CALLS:,} calls, both models, {kind}", most, f"{most} MiB")
    measure: Callable[[Site], Sequence[Result]] = partial(_memory, int8=int8, options=options)
    return Measurement(name, (target,), measure)


MEASUREMENTS = (
    Measurement(
        "overhead",
        (at_most("Server CPU per request beyond the pipeline", 0.5, "below 0.5 ms"),),
        _beyond_pipeline,
    ),
    Measurement("start", (at_most("Ready after start, both models", 1.5, "1.5 s"),), _start),
    _memory_measurement("memory-fp32", 600, int8=False, options=()),
    _memory_measurement("memory-int8", 380, int8=True, options=()),
    _memory_measurement("memory-fp32-low", 400, int8=False, options=("--low-memory",)),
    _memory_measurement("memory-int8-low", 280, int8=True, options=("--low-memory",)),
    Measurement(
        "idle",
        (
            at_most("More models in the repository, idle: CPU", _IDLE_MS_PER_S, "none"),
            at_most("More models in the repository: memory", 1.25, "the weights only"),
        ),
        _idle,
    ),
)
