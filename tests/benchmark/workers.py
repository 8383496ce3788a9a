"""What a second process gains and costs: CPU for each call, answers per second, memory."""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from visavis.bench.rounds import Load, Plan, Row
from visavis.bench.workload import calls_of

from tests.server import graphs, pictures

from .site import CLASSIFY, DETECT, NotRun, Site, send_all
from .targets import Measurement, Result, at_least, at_most

_WORKERS = (1, 2, 4, 8)
_CONNECTIONS = 32
_MIB = 1 << 20
# Workers for the memory; each has so many calls before it is weighed.
_WEIGHED, _CALLS = (1, 4), 64


def _costs(site: Site) -> Sequence[Result]:
    """Measure with a device that answers at once, and pictures that cost nothing.

    What is left is what a process can do at most: the model is an average of 64 pixels.
    """
    with tempfile.TemporaryDirectory(dir=site.cache) as folder:
        repository, picture = Path(folder, "models"), Path(folder, "red.png")
        model, _ = graphs.export(graphs.classifier(), graphs.classifier_document())
        graphs.put(repository, "colors", 1, model)
        picture.write_bytes(pictures.plain(pictures.RED))
        rows = {number: _row(site, repository, picture, number) for number in _WORKERS}
    cpu_ms = {number: row.median.server_cpu_ms or 0.0 for number, row in rows.items()}
    per_s = {number: row.median.per_s for number, row in rows.items()}
    dearest = max(cpu_ms.values()) / cpu_ms[1]
    fastest = max(per_s.values()) / per_s[1]
    return [
        Result(dearest, f"**{dearest:.2f}** ({_by_workers(cpu_ms, '.2f')} ms)"),
        Result(
            fastest,
            f"**{fastest:.2f}** ({_by_workers(per_s, '.0f')} answers per s; the callers share the "
            f"{psutil.cpu_count()} cores)",
        ),
    ]


def _row(site: Site, repository: Path, picture: Path, number: int) -> Row:
    with site.server(repository, "--device", "cpu", "--workers", str(number)) as (server, seen, _):
        plan = Plan(
            server.address,
            [calls_of("classify", ("colors",), [picture])],
            [Load(callers=_CONNECTIONS)],
            seconds=site.seconds,
            rounds=site.rounds,
            check=True,
        )
        (row,) = site.load(plan, seen)
    return row


def _memory(site: Site) -> Sequence[Result]:
    one, several = (_proportional_mib(site, number) for number in _WEIGHED)
    more = (several - one) / (_WEIGHED[1] - _WEIGHED[0])
    return [
        Result(
            more / one,
            f"**{more / one:.2f}** ({more:.0f} MiB for each; {one:.0f} MiB for one process, "
            f"{several:.0f} for {_WEIGHED[1]} workers, with ResNet-50 and YOLOv5n)",
        )
    ]


def _proportional_mib(site: Site, number: int) -> float:
    """Return the memory of all processes of a server, in which a shared page counts once."""
    classify = calls_of("classify", CLASSIFY, site.pictures)
    detect = calls_of("detect", DETECT, site.scenes)
    options = ("--device", "cpu", "--workers", str(number))
    with site.server(site.fp32, *options) as (server, _, _client):
        asyncio.run(send_all(server.address, [*classify, *detect], _CALLS * number, _CONNECTIONS))
        process = psutil.Process(server.pid)
        family = [process, *process.children(recursive=True)]
        try:
            return sum(float(each.memory_full_info().pss) for each in family) / _MIB
        except AttributeError:
            raise NotRun("this system does not report shares of memory") from None


def _by_workers(figures: Mapping[int, float], form: str) -> str:
    each = (f"{figure:{form}}" for figure in figures.values())
    return f"with {', '.join(map(str, figures))} workers {', '.join(each)}"


MEASUREMENTS = (
    Measurement(
        "workers",
        (
            at_most("Several workers, a model that costs nothing: CPU per call", 1.15),
            at_least("Several workers, a model that costs nothing: answers per s", 1.3),
        ),
        _costs,
    ),
    Measurement(
        "workers-memory",
        (at_most("Memory of a further worker, both models, fp32", 0.5),),
        _memory,
    ),
)
