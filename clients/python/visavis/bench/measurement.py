"""Computes the throughput, latency and cost of a round of calls."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from visavis.bench.limit import LimitRound
from visavis.bench.load import OK, Outcome, Window
from visavis.v1 import vision_pb2 as pb


@dataclass(frozen=True, slots=True)
class Latency:
    """The latency of answers in milliseconds, from when the call was due."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class MethodShare:
    """One of several methods. session_ms_per_s: its time in model sessions per second."""

    per_s: float
    latency: Latency | None
    session_ms_per_s: float


@dataclass(frozen=True, slots=True)
class Round:
    """One round at one load. None means unknown, or no answers.

    per_s: answers per second. errors: failed calls by gRPC status. server_cpu_ms,
    generator_cpu_ms, limit_cpu_ms: CPU time per answer of the server, the load generator and the
    in-process limit. late_ms: how late the generator sent, p99. limit_cores: see LimitRound.
    """

    per_s: float
    latency: Latency | None
    errors: dict[str, int] = field(default_factory=dict)
    server_cpu_ms: float | None = None
    server_rss_mib: float | None = None
    generator_cpu_ms: float | None = None
    late_ms: float | None = None
    limit_per_s: float | None = None
    limit_p50_ms: float | None = None
    limit_cpu_ms: float | None = None
    limit_cores: float | None = None
    methods: dict[str, MethodShare] = field(default_factory=dict)

    @property
    def of_limit(self) -> float | None:
        """The ratio of answers per second to the limit's."""
        return self.per_s / self.limit_per_s if self.limit_per_s else None


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a window. CPU in seconds; None if the server's process is unknown."""

    server_cpu_s: float | None
    server_rss_bytes: int | None
    generator_cpu_s: float


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile, interpolated linearly between neighbours.

    values: sorted, at least one.
    """
    position = (len(values) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (position - below)


def latency_of(outcomes: Iterable[Outcome]) -> Latency | None:
    """Return the latency of the successful calls; None if all failed."""
    values = sorted(o.latency_s * 1e3 for o in outcomes if o.code == OK)
    if not values:
        return None
    p50, p95, p99 = (percentile(values, percent) for percent in (50, 95, 99))
    return Latency(p50, p95, p99, values[-1])


def measured(window: Window, cost: Cost, limit: Sequence[LimitRound] = ()) -> Round:
    """Return the figures of a window.

    limit: its rounds just before and just after the window. Their mean is used, so that slow
    changes of the machine's speed affect both alike.
    """
    seconds = window.closed - window.opened
    answered = [o for o in window.outcomes if o.code == OK]
    count = len(answered)
    cpu_s, rss = cost.server_cpu_s, cost.server_rss_bytes
    late = sorted((o.sent - o.due) * 1e3 for o in window.outcomes)
    return Round(
        # In the open loop, calls that are due in the window may be answered after it.
        per_s=sum(o.done < window.closed for o in answered) / seconds,
        latency=latency_of(answered),
        errors=dict(Counter(o.code for o in window.outcomes if o.code != OK)),
        server_cpu_ms=cpu_s / count * 1e3 if cpu_s is not None and count else None,
        server_rss_mib=rss / (1 << 20) if rss is not None else None,
        generator_cpu_ms=cost.generator_cpu_s / count * 1e3 if count else None,
        late_ms=percentile(late, 99) if late else None,
        limit_per_s=statistics.fmean(r.per_s for r in limit) if limit else None,
        limit_p50_ms=statistics.fmean(r.p50_ms for r in limit) if limit else None,
        limit_cpu_ms=statistics.fmean(r.cpu_ms for r in limit) if limit else None,
        limit_cores=statistics.fmean(r.cores for r in limit) if limit else None,
        methods=_shares(answered, seconds),
    )


def _shares(answered: Sequence[Outcome], seconds: float) -> dict[str, MethodShare]:
    """Return the share of each method; empty if there is only one."""
    methods = sorted({o.call.method for o in answered})
    if len(methods) < 2:
        return {}
    of_method = session_ms(answered)
    shares = {}
    for method in methods:
        own = [o for o in answered if o.call.method == method]
        session_ms_per_s = of_method.get(method, 0.0) / seconds
        shares[method] = MethodShare(len(own) / seconds, latency_of(own), session_ms_per_s)
    return shares


def median_round(rounds: Sequence[Round]) -> Round:
    """Return the median of each figure over the rounds, and the sum of errors."""
    latencies = [r.latency for r in rounds if r.latency]
    methods = {
        name: [r.methods[name] for r in rounds if name in r.methods]
        for r in rounds
        for name in r.methods
    }
    return Round(
        per_s=statistics.median(r.per_s for r in rounds),
        latency=_median_latency(latencies),
        errors=dict(sum((Counter(r.errors) for r in rounds), Counter())),
        server_cpu_ms=_median(rounds, lambda r: r.server_cpu_ms),
        server_rss_mib=_median(rounds, lambda r: r.server_rss_mib),
        generator_cpu_ms=_median(rounds, lambda r: r.generator_cpu_ms),
        late_ms=_median(rounds, lambda r: r.late_ms),
        limit_per_s=_median(rounds, lambda r: r.limit_per_s),
        limit_p50_ms=_median(rounds, lambda r: r.limit_p50_ms),
        limit_cpu_ms=_median(rounds, lambda r: r.limit_cpu_ms),
        limit_cores=_median(rounds, lambda r: r.limit_cores),
        methods={
            name: MethodShare(
                statistics.median(share.per_s for share in shares),
                _median_latency([share.latency for share in shares if share.latency]),
                statistics.median(share.session_ms_per_s for share in shares),
            )
            for name, shares in methods.items()
        },
    )


def median_of_limit(rounds: Sequence[Round]) -> float | None:
    """Return the median of the rounds' ratios to the limit before and after each."""
    return _median(rounds, lambda r: r.of_limit)


def runs(outcome: Outcome) -> list[tuple[str, float]]:
    """Return the model and the session time in ms of each run behind a response."""
    method, response = outcome.call.method, outcome.response
    answers: Iterable[pb.ClassifyResponse | pb.DetectResponse | pb.ModelAnswer]
    if method == "classify":
        answers = [pb.ClassifyResponse.FromString(response)]
    elif method == "detect":
        answers = [pb.DetectResponse.FromString(response)]
    else:
        comparisons = pb.CompareResponse.FromString(response).comparisons
        answers = [answer for task in comparisons for answer in task.answers]
    return [(answer.served_by.model, answer.timings.inference_ms) for answer in answers]


def session_ms(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return the session time of each method, in ms.

    All answers of a batch report the identical time of its run. That time is divided among them,
    also across methods.
    """
    of_method = [(o.call.method, run) for o in outcomes for run in runs(o)]
    sharing = Counter(run for _, run in of_method)
    obtained: dict[str, float] = {}
    for method, run in of_method:
        obtained[method] = obtained.get(method, 0.0) + run[1] / sharing[run]
    return obtained


_T = TypeVar("_T")


def _median(items: Iterable[_T], figure: Callable[[_T], float | None]) -> float | None:
    values = [value for item in items if (value := figure(item)) is not None]
    return statistics.median(values) if values else None


def _median_latency(latencies: Sequence[Latency]) -> Latency | None:
    if not latencies:
        return None
    return Latency(
        *(
            statistics.median(getattr(latency, name) for latency in latencies)
            for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")
        )
    )
