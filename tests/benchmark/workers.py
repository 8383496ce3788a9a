"""What a second process gains and costs: CPU for each call, answers per second, evenness, memory."""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from visavis.bench.rounds import Load, Plan, Row
from visavis.bench.workload import calls_of

from tests.server import graphs, pictures

from .site import Site
from .targets import Measurement, Result, at_least, at_most

_WORKERS = (1, 2, 4, 8)
_CONNECTIONS = 32


def _costs(site: Site) -> Sequence[Result]:
    """Measure with a model and pictures that cost nothing: what is left is the server's own."""
    with tempfile.TemporaryDirectory(dir=site.cache) as folder:
        repository, picture = Path(folder, "models"), Path(folder, "red.png")
        model, _ = graphs.export(graphs.classifier(), graphs.classifier_document())
        graphs.put(repository, "colors", 1, model)
        picture.write_bytes(pictures.plain(pictures.RED))
        rows = {number: _row(site, repository, picture, number) for number in _WORKERS}
    cpu_ms = {number: row.median.server_cpu_ms or 0.0 for number, row in rows.items()}
    per_s = {number: row.median.per_s for number, row in rows.items()}
    cores = psutil.cpu_count() or 1
    dearest, fastest = max(cpu_ms.values()) / cpu_ms[1], max(per_s.values()) / per_s[1]
    return [
        Result(
            dearest,
            f"**{dearest:.2f}** ({_listed(cpu_ms, '.2f')} ms of CPU for each call with "
            f"{_listed(dict.fromkeys(_WORKERS))} workers)",
        ),
        Result(
            fastest,
            f"**{fastest:.2f}** ({_listed(per_s, '.0f')} answers per s with "
            f"{_listed(dict.fromkeys(_WORKERS))} workers on {cores} cores, which the callers share)",
        ),
    ]


def _row(site: Site, repository: Path, picture: Path, number: int) -> Row:
    options = ("--device", "cpu", "--workers", str(number))
    with site.server(repository, *options) as (server, watched, _):
        plan = Plan(
            server.address,
            [calls_of("classify", ("colors",), [picture])],
            [Load(callers=_CONNECTIONS)],
            seconds=site.seconds,
            rounds=site.rounds,
            check=True,
        )
        (row,) = site.load(plan, watched)
    return row
