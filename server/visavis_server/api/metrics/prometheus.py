"""Metrics for Prometheus: calls, memory, and the plan and statistics of each model."""

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.utils import floatToGoString

from visavis_server.api.metrics.triton import PREFIX, Measured, triton_families, triton_text
from visavis_server.models.served_model import ServedModel
from visavis_server.models.watcher import Watcher
from visavis_server.runtime.budget import KINDS, Budget
from visavis_server.runtime.plan import Plan
from visavis_server.runtime.scheduling.scheduler import Scheduler, Statistics
from visavis_server.telemetry.histograms import Histogram
from visavis_server.telemetry.samples import Family

_MODEL = ("model", "version")

# Name, help and reader. prometheus_client appends _total to the names of counters.
_PLANNED: tuple[tuple[str, str, Callable[[Plan], float]], ...] = (
    ("batch_size_limit", "The most images in one run.", lambda plan: plan.batch),
    ("instances", "Concurrent runs.", lambda plan: plan.instances),
    ("threads", "Threads of one run.", lambda plan: plan.threads),
    ("alone_threads", "Threads of an exclusive run; 0: off.", lambda plan: plan.exclusive_threads),
)
_COUNTED: tuple[tuple[str, str, Callable[[Statistics], float]], ...] = (
    ("alone_runs", "Runs that used all cores.", lambda counted: counted.exclusive),
    ("session_seconds", "Duration of all runs.", lambda counted: counted.run_s),
    ("queue_seconds", "Time that requests waited in the queue.", lambda counted: counted.queue_s),
)
_Rows = Sequence[tuple[tuple[str, str], ServedModel, Statistics]]
"""Labels, model and the statistics of its runs."""

_DROPPED: tuple[tuple[str, Callable[[Statistics], float]], ...] = (
    ("cancelled", lambda counted: counted.cancelled),
    ("expired", lambda counted: counted.expired),
    ("failed", lambda counted: counted.failed),
    ("refused", lambda counted: counted.refused),
)


Together = Callable[[list[Family]], Awaitable[list[Family]]]
"""Returns the metrics of all workers, given those of this one."""

# Of OpenMetrics, in an `accept` header.
_VERSION = re.compile(r"(\d{1,3}(\.\d{1,3}){2})?", re.ASCII)

# How the metrics of several workers become one, if not by their sum.
_COMBINED = {
    "visavis_stuck": "each",
    "visavis_memory_budget_bytes": "each",
    "visavis_memory_reserved_bytes": "each",
    "visavis_memory_refusals": "each",
    "visavis_model_batch_size_limit": "max",
    "visavis_model_threads": "max",
    "visavis_model_alone_threads": "max",
}


class Metrics:
    """Counts calls, and reads the scheduler and the budget when it is scraped.

    models: the models to report on. triton: also report Triton's metrics, under its names.
    together: set if this process is one of several workers.
    """

    def __init__(self, scheduler: Scheduler, budget: Budget, triton: bool = False) -> None:
        self.models: Sequence[ServedModel] = ()
        self.watcher: Watcher | None = None
        self.loaded_at_start = 0
        self.together: Together | None = None
        self._triton = triton
        self._scheduler = scheduler
        self._budget = budget
        self._calls: Counter[tuple[str, str, str]] = Counter()
        self._call_s: defaultdict[tuple[str, str], Histogram] = defaultdict(Histogram)

    def record(self, listener: str, method: str, code: str, seconds: float) -> None:
        """Count a finished call; method: an existing one, never an arbitrary string of a client."""
        self._calls[listener, method, code] += 1
        self._call_s[listener, method].add(seconds)

    async def rendered(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics as text, and its content type.

        accept: the request's `accept` header. It is ignored with Triton's names, which OpenMetrics
        does not allow: the text then has Triton's format.
        """
        families = await asyncio.to_thread(self.families)
        if self.together is not None:
            families = await self.together(families)
        return await asyncio.to_thread(_text, families, "" if self._triton else accept)

    def families(self) -> list[Family]:
        """Return the current metrics of this process."""
        own = [_family(metric) for metric in self.collect()]
        if not self._triton:
            return own
        statistics = self._scheduler.statistics()
        measured = [
            Measured(
                model,
                statistics.get(model.engine, Statistics()),
                self._scheduler.waiting(model.engine),
            )
            for model in self.models
        ]
        return [*own, *triton_families(measured)]

    def collect(self) -> Iterator[Metric]:
        """Yield our current metrics."""
        statistics = self._scheduler.statistics()
        rows = [
            ((m.name, str(m.version)), m, statistics.get(m.engine, Statistics()))
            for m in self.models
        ]
        yield from self._server()
        yield from self._memory()
        yield from self._all_calls()
        yield self._loads()
        yield from self._models_now(rows)
        yield from _outcomes(rows)
        yield from _planned(rows)
        yield from _counted(rows)
        yield _stages(rows)

    def _server(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "visavis_build", "The server.", {"version": version("visavis-server")}
        )
        yield GaugeMetricFamily("visavis_cores", "Cores for all models.", self._scheduler.cores)
        errors = CounterMetricFamily(
            "visavis_scheduler_errors", "Internal errors that the scheduler survived."
        )
        errors.add_metric((), self._scheduler.errors)
        yield errors
        stuck = bool(self._scheduler.trouble())
        yield GaugeMetricFamily("visavis_stuck", "1 while a core is stuck.", stuck)

    def _loads(self) -> Metric:
        loads = CounterMetricFamily(
            "visavis_loads", "Model files, at start and since.", labels=("outcome",)
        )
        since = (self.watcher.loads, self.watcher.refusals) if self.watcher else (0, 0)
        loads.add_metric(("loaded",), self.loaded_at_start + since[0])
        loads.add_metric(("refused",), since[1])
        return loads

    def _models_now(self, rows: _Rows) -> Iterator[Metric]:
        how = InfoMetricFamily("visavis_model", "How a model is run, and why.", labels=_MODEL)
        waiting = GaugeMetricFamily(
            "visavis_model_waiting", "Requests that wait in the queue.", labels=_MODEL
        )
        for labels, model, _ in rows:
            by = model.served_by
            how.add_metric(
                labels,
                {
                    "precision": by.precision,
                    "provider": by.execution_provider,
                    "place": model.plan.runs_on,
                    "why": model.plan.why,
                },
            )
            waiting.add_metric(labels, self._scheduler.waiting(model.engine))
        yield from (how, waiting)

    def _memory(self) -> Iterator[Metric]:
        budget = self._budget
        yield GaugeMetricFamily(
            "visavis_memory_budget_bytes", "Memory that all calls may hold.", budget.total_bytes
        )
        reserved = GaugeMetricFamily(
            "visavis_memory_reserved_bytes", "Memory that calls hold, by kind.", labels=("kind",)
        )
        for kind in KINDS:
            reserved.add_metric((kind,), budget.held(kind))
        yield reserved
        yield CounterMetricFamily(
            "visavis_memory_refusals", "Calls rejected for lack of memory.", budget.refusals
        )

    def _all_calls(self) -> Iterator[Metric]:
        calls = CounterMetricFamily(
            "visavis_calls", "Finished calls.", labels=("door", "method", "code")
        )
        for call, number in sorted(self._calls.items()):
            calls.add_metric(call, number)
        yield calls
        seconds = HistogramMetricFamily(
            "visavis_call_seconds",
            "From a call's headers to its end.",
            labels=("door", "method"),
        )
        for where, histogram in sorted(self._call_s.items()):
            _add(seconds, where, histogram)
        yield seconds


def _family(metric: Metric) -> Family:
    samples = {(s.name, tuple(s.labels.items())): s.value for s in metric.samples}
    combined = _COMBINED.get(metric.name, "sum")
    return Family(metric.name, metric.type, metric.documentation, combined, samples)


def _text(families: Sequence[Family], accept: str) -> tuple[bytes, str]:
    """Return metrics as text, and its content type; Triton's come last, in Triton's format."""
    # The encoder repeats a version in the content type, and fails if it is not a number.
    if not all(map(_VERSION.fullmatch, re.findall("version=([^;,]*)", accept))):
        accept = ""
    encode, kind = choose_encoder(accept)
    text: bytes = encode(_Scrape([f for f in families if not f.name.startswith(PREFIX)]))
    return text + triton_text(f for f in families if f.name.startswith(PREFIX)).encode(), kind


class _Scrape:
    """Gives metrics to prometheus_client's encoders."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; the encoders call this."""
        for family in self._families:
            metric = Metric(family.name, family.help, family.kind)
            for (name, labels), value in family.samples.items():
                metric.add_sample(name, dict(labels), value)
            yield metric


def _outcomes(rows: _Rows) -> Iterator[Metric]:
    runs = CounterMetricFamily(
        "visavis_model_runs", "Runs, by batch size.", labels=(*_MODEL, "batch_size")
    )
    dropped = CounterMetricFamily(
        "visavis_model_dropped", "Requests without an answer.", labels=(*_MODEL, "reason")
    )
    for labels, _, counted in rows:
        for size, number in sorted(counted.batches.items()):
            runs.add_metric((*labels, str(size)), number)
        for reason, read in _DROPPED:
            dropped.add_metric((*labels, reason), read(counted))
    yield from (runs, dropped)


def _planned(rows: _Rows) -> Iterator[Metric]:
    for name, text, read in _PLANNED:
        gauge = GaugeMetricFamily(f"visavis_model_{name}", text, labels=_MODEL)
        for labels, model, _ in rows:
            gauge.add_metric(labels, read(model.plan))
        yield gauge


def _counted(rows: _Rows) -> Iterator[Metric]:
    for name, text, read in _COUNTED:
        counter = CounterMetricFamily(f"visavis_model_{name}", text, labels=_MODEL)
        for labels, _, counted in rows:
            counter.add_metric(labels, read(counted))
        yield counter


def _stages(rows: _Rows) -> Metric:
    stages = HistogramMetricFamily(
        "visavis_stage_seconds", "Stages of answered requests.", labels=(*_MODEL, "stage")
    )
    for labels, model, _ in rows:
        for stage, histogram in model.stages.answered().items():
            _add(stages, (*labels, stage), histogram)
    return stages


def _add(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram) -> None:
    bounds: Any = floatToGoString  # untyped
    buckets = [(bounds(bound), number) for bound, number in histogram.buckets()]
    family.add_metric(labels, buckets, histogram.sum_s)
