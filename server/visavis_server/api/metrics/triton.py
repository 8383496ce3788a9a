"""Models' metrics under the names that Triton's dashboards and autoscalers query.

The text is written here because prometheus_client would append `_total` to the names of counters,
which Triton's lack. Names, labels, units and meaning: Triton's docs/user_guide/metrics.md. The
durations are those of ModelStatistics.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from visavis_server.models.served_model import ServedModel
from visavis_server.runtime.scheduling.scheduler import Statistics
from visavis_server.telemetry.histograms import Histogram, StageHistograms
from visavis_server.telemetry.samples import Family, Samples

PREFIX: Final = "nv_"
"""The beginning of every name in here."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A model, the statistics of its runs, and the number of its waiting requests."""

    model: ServedModel
    counted: Statistics
    waiting: int


Read = Callable[[Measured], float]


def _us(*stages: Callable[[StageHistograms], Histogram]) -> Read:
    """Return a reader of the total duration of some stages, in microseconds."""
    return lambda measured: sum(round(stage(measured.model.stages).sum_s * 1e6) for stage in stages)


def _other_failures(measured: Measured) -> float:
    failures = measured.model.stages.failures
    counted = ("INTERNAL", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")
    return failures.total() - sum(failures[code] for code in counted)


# The values of the label `reason`.
_FAILURES: Final[tuple[tuple[str, Read], ...]] = (
    ("REJECTED", lambda measured: measured.counted.refused + measured.counted.expired),
    ("CANCELED", lambda measured: measured.counted.cancelled),
    ("BACKEND", lambda measured: measured.model.stages.failures["INTERNAL"]),
    ("OTHER", _other_failures),
)
_METRICS: Final[tuple[tuple[str, str, str, Read], ...]] = (
    (
        "nv_inference_request_success",
        "counter",
        "Successful requests; a batch counts as 1.",
        lambda measured: measured.model.stages.total.count,
    ),
    (
        "nv_inference_count",
        "counter",
        "Inferences; a batch of n counts as n.",
        lambda measured: sum(size * runs for size, runs in measured.counted.batches.items()),
    ),
    (
        "nv_inference_exec_count",
        "counter",
        "Runs of the model, of any batch size.",
        lambda measured: measured.counted.batches.total(),
    ),
    (
        "nv_inference_request_duration_us",
        "counter",
        "Microseconds from request to response.",
        _us(lambda stages: stages.total),
    ),
    (
        "nv_inference_queue_duration_us",
        "counter",
        "Microseconds that requests waited in the queue.",
        _us(lambda stages: stages.queue),
    ),
    (
        "nv_inference_compute_input_duration_us",
        "counter",
        "Microseconds of decoding and preprocessing.",
        _us(lambda stages: stages.decode, lambda stages: stages.preprocess),
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "counter",
        "Microseconds of inference.",
        _us(lambda stages: stages.inference),
    ),
    (
        "nv_inference_compute_output_duration_us",
        "counter",
        "Microseconds of postprocessing.",
        _us(lambda stages: stages.postprocess),
    ),
    (
        "nv_inference_pending_request_count",
        "gauge",
        "Requests that wait in the queue.",
        lambda measured: measured.waiting,
    ),
)


def triton_families(measured: Sequence[Measured]) -> list[Family]:
    """Return the metrics of some models."""
    rows = [((("model", m.model.name), ("version", str(m.model.version))), m) for m in measured]
    families = [
        Family(name, kind, about, samples={(name, labels): read(row) for labels, row in rows})
        for name, kind, about, read in _METRICS
    ]
    failure = "nv_inference_request_failure"
    failures: Samples = {
        (failure, (*labels, ("reason", why))): read(row)
        for labels, row in rows
        for why, read in _FAILURES
    }
    about = "Failed requests, by reason."
    return [*families, Family(failure, "counter", about, samples=failures)]


def triton_text(families: Iterable[Family]) -> str:
    """Return metrics in Prometheus' text format 0.0.4. No value of a label needs escaping."""
    lines: list[str] = []
    for family in families:
        lines += (f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}")
        for (name, labels), value in family.samples.items():
            pairs = ",".join(f'{label}="{text}"' for label, text in labels)
            lines.append(f"{name}{{{pairs}}} {value}")
    return "\n".join((*lines, "")) if lines else ""
