"""What becomes of throughput with more connections, and of latency as time goes by."""

from dataclasses import dataclass

from visavis.bench.measurement import Latency
from visavis.bench.rounds import Load, Plan
from visavis.bench.workload import calls_of

from .site import CLASSIFY, Site

_CONNECTIONS = (8, 32, 128, 256)
_SLICE_S = 10.0
_MOST_SLICES = 10
# Of the throughput: high enough to queue now and then, low enough for a queue to go away.
_STEADY = 0.6


@dataclass(frozen=True)
class Growth:
    """Rows of two tables.

    connections: how many, answers per second, latency, errors. steady: seconds from the start,
    answers per second, latency, the server's memory in MiB, at a rate that stays what it is.
    """

    connections: list[tuple[int, float, Latency | None, int]]
    rate_per_s: float
    steady: list[tuple[float, float, Latency | None, float | None]]


def grown(site: Site) -> Growth:
    """Return how ResNet-50's answers fare, one connection for each caller, then at a rate."""
    calls = [calls_of("classify", CLASSIFY, site.pictures)]
    with site.server(site.fp32) as (server, watched, _):
        loads = [Load(callers=number) for number in _CONNECTIONS]
        plan = Plan(server.address, calls, loads, seconds=site.seconds, rounds=1, check=True)
        rows = site.load(plan, watched)
        rate = round(_STEADY * max(row.median.per_s for row in rows), 1)
        seconds = max(_SLICE_S, site.minutes * 60 / _MOST_SLICES)
        slices = max(1, round(site.minutes * 60 / seconds))
        plan = Plan(server.address, calls, [Load(rate_per_s=rate)], seconds=seconds, rounds=slices)
        (steady,) = site.load(plan, watched)
    return Growth(
        [
            (row.load.callers or 0, row.median.per_s, row.median.latency, _count(row.median.errors))
            for row in rows
        ],
        rate,
        [(n * seconds, r.per_s, r.latency, r.server_rss_mib) for n, r in enumerate(steady.rounds)],
    )


def _count(errors: dict[str, int]) -> int:
    return sum(errors.values())
