"""The results of a benchmark as tables."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from visavis.bench.measurement import MethodShare, Round
from visavis.bench.rounds import Row
from visavis.commands.answer_tables import plain_table
from visavis.commands.console import plain

_NONE = "—"
# Below this share of its cores, the limit competed with other processes.
_CORES_TO_ITSELF = 0.95
# Timers of the event loop are normally late by a millisecond or two.
_LATE_MS = 10.0
_CLIENT_CORES = 0.8
_PERCENTILES = ("p50\nms", "p95\nms", "p99\nms")


def bench_table(rows: Sequence[Row]) -> RenderableType:
    """Return the medians at each load, and the share of each method if there are several."""
    medians = [row.median for row in rows]
    columns = [
        (rows[0].load.unit, [row.load.figure for row in rows]),
        ("per s", [_short(m.per_s) for m in medians]),
        ("of\nlimit", [_figure(row.of_limit, "{:.3f}") for row in rows]),
        *((header, [_percentiles(m)[i] for m in medians]) for i, header in enumerate(_PERCENTILES)),
        ("errors", [_errors(m) for m in medians]),
        ("CPU\nserver", [_figure(m.server_cpu_ms, "{:.1f}") for m in medians]),
        ("CPU\nlimit", [_figure(m.limit_cpu_ms, "{:.1f}") for m in medians]),
        ("CPU\nclient", [_figure(m.generator_cpu_ms, "{:.1f}") for m in medians]),
        ("RSS\nMiB", [_figure(m.server_rss_mib, "{:.0f}") for m in medians]),
    ]
    table = plain_table()
    known = [(header, cells) for header, cells in columns if set(cells) != {_NONE}]
    for header, _ in known:
        table.add_column(header, justify="right")
    for cells in zip(*(cells for _, cells in known), strict=True):
        table.add_row(*cells)
    parts: list[RenderableType] = [table, _legend(rows)]
    if any(m.methods for m in medians):
        parts += [Text(), _methods_table(rows)]
    return Group(*parts, *_checks(rows))


def _methods_table(rows: Sequence[Row]) -> Table:
    table = plain_table()
    table.add_column(rows[0].load.unit, justify="right")
    table.add_column("method")
    headers = ("per s", "session\nms per s", "of the\nmean", *_PERCENTILES)
    for header in headers:
        table.add_column(header, justify="right")
    for row in rows:
        shares = row.median.methods
        mean = sum(share.session_ms_per_s for share in shares.values()) / max(len(shares), 1)
        for method, share in shares.items():
            of_mean = share.session_ms_per_s / mean if mean else None
            table.add_row(
                row.load.figure,
                method,
                _short(share.per_s),
                f"{share.session_ms_per_s:.0f}",
                _figure(of_mean, "{:.2f}"),
                *_percentiles(share),
            )
    return table


def _legend(rows: Sequence[Row]) -> Text:
    lines = ["medians of all rounds; CPU in ms per answer"]
    if any(row.of_limit for row in rows):
        lines.append("limit: the same work without a server, measured alternately")
    legend = Text("\n".join(lines), style="dim")
    for warning in _warnings([row.median for row in rows]):
        legend.append(f"\n{warning}", style="yellow")
    return legend


def _warnings(medians: Sequence[Round]) -> Iterator[str]:
    """Yield the reasons to distrust the figures."""
    limit_cores = min(m.limit_cores or 1.0 for m in medians)
    if limit_cores < _CORES_TO_ITSELF:
        yield (
            f"the limit had {limit_cores:.0%} of its cores: other processes ran, so ratios "
            "are unreliable"
        )
    late_ms = max(m.late_ms or 0.0 for m in medians)
    if late_ms > _LATE_MS:
        yield f"the client sent up to {_short(late_ms)} ms late (p99); latencies include that"
    cores = max((m.generator_cpu_ms or 0.0) * m.per_s / 1e3 for m in medians)
    if cores > _CLIENT_CORES:
        yield f"the client used {cores:.0%} of one core, its maximum; the server may be faster"


def _checks(rows: Sequence[Row]) -> list[RenderableType]:
    if not any(row.checked for row in rows):
        return []
    checked = sum(row.checked for row in rows)
    differences = [text for row in rows for text in row.differences]
    if not differences:
        return [Text(f"\n{checked} answers checked: all equal the first answers")]
    return [
        Text(
            f"\n{len(differences)} of {checked} answers differ from the first answers", "bold red"
        ),
        *(Text(plain(text)) for text in sorted(set(differences))[:5]),
    ]


def _percentiles(item: Round | MethodShare) -> list[str]:
    if item.latency is None:
        return [_NONE] * 3
    latency = item.latency
    return [_short(ms) for ms in (latency.p50_ms, latency.p95_ms, latency.p99_ms)]


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _errors(median: Round) -> str:
    return ", ".join(f"{count} {code}" for code, count in median.errors.items()) or "0"


def _figure(value: float | None, form: str) -> str:
    return _NONE if value is None else form.format(value)
