"""BENCHMARKS.md: the machine, the versions, the table, and how to make it again."""

import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata

import psutil
from visavis.bench.measurement import Latency
from visavis.bench.report import machine

from visavis_server.runtime.cores import instructions

from .growth import Growth
from .site import ROOT

# The instructions that decide how fast a model runs on a CPU.
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_VERSIONS = (
    *("onnxruntime", "onnxruntime-gpu", "numpy", "opencv-python", "pillow"),
    *("grpcio", "protobuf", "torch"),
)


@dataclass(frozen=True)
class Line:
    """One row: what was to be reached, what was, and whether that is enough; None: not judged."""

    row: str
    target: str
    result: str
    met: bool | None


def document(lines: Sequence[Line], growth: Growth | None, command: str, how: str) -> str:
    """Return the text of BENCHMARKS.md. how: the lengths of rounds, in words."""
    judged = [line.met for line in lines if line.met is not None]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "Written by `make bench`, which serves models exported from real weights and sends "
            "them real photographs.",
            "Absolute times are one machine's, and of little meaning elsewhere: most targets are "
            "ratios to what the same machine does in-process with no server "
            "(`visavis_server.tools.limit`), "
            "measured in turns with the server; a ratio is the median over the rounds, each "
            "against the limit just before and just after it.",
            "",
            *_machine(),
            "",
            "## Targets",
            "",
            f"{sum(judged)} of {len(judged)} reached. {how}",
            "Without another unit, a target is a ratio to the fp32 limit: of answers per second, "
            "or of latencies.",
            "The models are ResNet-50 and YOLOv5n at 640.",
            "",
            "| | target | result | met |",
            "| --- | --- | --- | --- |",
            *(f"| {n.row} | {n.target} | {n.result} | {_mark(n.met)} |" for n in lines),
            "",
            *(_growth(growth) if growth else ()),
            "## Repeat it",
            "",
            "```console",
            "$ export VISAVIS_WEIGHTS=FOLDER   # resnet50.pth, yolov5n.pt",
            "$ export VISAVIS_IMAGES=FOLDER    # imagenet/, coco/",
            f"$ {command}",
            "```",
            "",
        ]
    )


def _machine() -> Iterator[str]:
    about = machine()
    load = ", ".join(f"{load:.1f}" for load in psutil.getloadavg())
    versions = ", ".join(
        f"{name} {version}" for name in _VERSIONS if (version := _version(name)) is not None
    )
    yield "| | |"
    yield "| --- | --- |"
    yield f"| processor | {about['processor']}, {about['cores']} cores |"
    present = instructions()
    flags = ", ".join(flag for flag in _FLAGS if flag in present) or "unknown"
    yield f"| its instructions | {flags} |"
    yield f"| memory | {psutil.virtual_memory().total / (1 << 30):.0f} GiB |"
    yield f"| system | {platform.system()} {platform.release()}, Python {about['python']} |"
    yield f"| versions | visavis {_version('visavis-server')} at {commit()}, {versions} |"
    yield f"| load average at the end | {load} |"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "an unknown commit"


def _mark(met: bool | None) -> str:
    return {True: "yes", False: "**no**", None: "—"}[met]


def _growth(growth: Growth) -> Iterator[str]:
    yield "## Growth"
    yield ""
    yield "Classify, fp32, a connection for each caller:"
    yield ""
    yield "| connections | answers per s | p50 ms | p99 ms | errors |"
    yield "| ---: | ---: | ---: | ---: | ---: |"
    for connections, per_s, latency, errors in growth.connections:
        yield f"| {connections} | {per_s:.1f} | {_latency(latency)} | {errors} |"
    yield ""
    yield f"At {growth.rate_per_s:g} calls per second, at random moments, as time goes by:"
    yield ""
    yield "| from second | answers per s | p50 ms | p99 ms | RSS MiB |"
    yield "| ---: | ---: | ---: | ---: | ---: |"
    for second, per_s, latency, rss_mib in growth.steady:
        rss = "—" if rss_mib is None else f"{rss_mib:.0f}"
        yield f"| {second:.0f} | {per_s:.1f} | {_latency(latency)} | {rss} |"
    yield ""


def _latency(latency: Latency | None) -> str:
    return f"{latency.p50_ms:.0f} | {latency.p99_ms:.0f}" if latency else "— | —"
