"""Plots throughput and latency against load."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visavis.bench.rounds import Row
from visavis.errors import InvalidSettings

_INCHES, _DOTS_PER_INCH = (10.0, 4.5), 120
_LATENCIES = (("p50_ms", "p50"), ("p95_ms", "p95"), ("p99_ms", "p99"))


def write_plot(path: Path, rows: Sequence[Row], title: str) -> None:
    """Write a PNG: answers per second on the left, latencies on the right.

    Raises InvalidSettings if matplotlib is missing or the file can't be written.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise InvalidSettings(
            "--plot needs matplotlib; install it: pip install 'visavis[bench]'"
        ) from None
    # Figure instead of pyplot, which would look for a display.
    figure = Figure(figsize=_INCHES, layout="constrained")
    figure.suptitle(title)
    throughput, latency = figure.subplots(1, 2)
    loads = [row.load.callers or row.load.rate_per_s or 0 for row in rows]
    medians = [row.median for row in rows]
    throughput.plot(loads, [median.per_s for median in medians], "o-", label="server")
    limits = [median.limit_per_s for median in medians]
    if all(limits):
        throughput.plot(loads, limits, "--", color="grey", label="without a server")
    throughput.set_ylabel("answers per second")
    for name, label in _LATENCIES:
        points = [(x, getattr(m.latency, name)) for x, m in zip(loads, medians, strict=True)
                  if m.latency]  # fmt: skip
        latency.plot([x for x, _ in points], [y for _, y in points], "o-", label=label)
    latency.set_ylabel("latency in ms")
    for axes in (throughput, latency):
        _finish(axes, rows)
    try:
        figure.savefig(path, format="png", dpi=_DOTS_PER_INCH)
    except OSError as error:
        raise InvalidSettings(f"can't write {path}: {error.strerror}") from error


def _finish(axes: Any, rows: Sequence[Row]) -> None:
    if rows[0].load.callers:
        callers = [row.load.callers for row in rows]
        axes.set_xscale("log", base=2)
        axes.set_xticks(callers, [str(number) for number in callers])
        axes.set_xlabel("callers")
    else:
        axes.set_xlabel("calls per second")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
