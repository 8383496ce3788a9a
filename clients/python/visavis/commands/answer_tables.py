"""The answer of one model as a table."""

import math

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from visavis.commands.console import plain, random_mark
from visavis.results import ClassifyResult, DetectResult, HeatMap, ServedBy

_BAR_WIDTH = 20


def classify_table(result: ClassifyResult) -> RenderableType:
    """Return one model's labels, highest score first."""
    table = plain_table()
    table.add_column("", justify="right", style="dim")
    table.add_column("label", overflow="fold")
    table.add_column("score", justify="right")
    table.add_column("")
    for rank, item in enumerate(result.classifications, 1):
        table.add_row(str(rank), plain(item.label), score(item.score), _bar(item.score))
    return Group(_summary(result), Text(), table, *_heat_map(result.heat_map), Text())


def detect_table(result: DetectResult) -> RenderableType:
    """Return one model's boxes, highest score first."""
    if not result.detections:
        nothing = Text("\nNo object scores above the threshold.\n")
        return Group(_summary(result), nothing, *_heat_map(result.heat_map))
    table = plain_table()
    table.add_column("", justify="right", style="dim")
    table.add_column("label", overflow="fold")
    table.add_column("score", justify="right")
    for edge in ("x min", "y min", "x max", "y max"):
        table.add_column(edge, justify="right")
    for number, item in enumerate(result.detections, 1):
        edges = [f"{edge:.1f}" for edge in item.box.xyxy]
        table.add_row(str(number), plain(item.label), score(item.score), *edges)
    return Group(_summary(result), Text(), table, *_heat_map(result.heat_map), Text())


def heat_map_line(heat_map: HeatMap) -> Text:
    """Return what a heat map is of, and its scale."""
    return Text(
        f"heat map of {plain(heat_map.label)}: {heat_map.width} × {heat_map.height} cells, "
        f"{_rounded(heat_map.min, heat_map)} to {_rounded(heat_map.max, heat_map)}"
    )


def _rounded(value: float, heat_map: HeatMap) -> str:
    """Return a value with as many decimals as the largest magnitude needs for three digits."""
    largest = max(abs(heat_map.min), abs(heat_map.max), 1e-9)
    return f"{round(value, 2 - math.floor(math.log10(largest))) + 0:g}"


def plain_table() -> Table:
    """Return an empty table in the common style, with a line below the header."""
    return Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), show_edge=False)


def score(value: float) -> str:
    """Return a score or another value in [0, 1] with three decimals."""
    return f"{value:.3f}"


def provider(name: str) -> str:
    """Return the short name of an execution provider: CPU, CUDA, Tensorrt."""
    return plain(name.removesuffix("ExecutionProvider"))


def milliseconds(value: float) -> str:
    """Return a duration with one decimal."""
    return f"{value:.1f}"


def variant(served_by: ServedBy) -> str:
    """Return the version, precision and execution provider of a model."""
    parts = [f"v{served_by.version}", plain(served_by.precision)]
    parts.append(provider(served_by.execution_provider))
    return " · ".join(part for part in parts if part)


def _summary(result: ClassifyResult | DetectResult) -> Text:
    size, timings, served_by = result.image_size, result.timings, result.served_by
    summary = Text.assemble(
        f"{size.width} × {size.height} px, ",
        (plain(served_by.model), "bold"),
        f" ({variant(served_by)}), {milliseconds(timings.total_ms)} ms ",
        (f"(inference {milliseconds(timings.inference_ms)} ms)", "dim"),
    )
    if served_by.random_weights:
        summary.append("\n").append_text(random_mark())
        summary.append(" the answer is meaningless")
    return summary


def _heat_map(heat_map: HeatMap | None) -> tuple[Text, ...]:
    return () if heat_map is None else (Text(), heat_map_line(heat_map))


def _bar(value: float) -> Text:
    return Text("━" * round(max(0.0, min(1.0, value)) * _BAR_WIDTH), style="cyan")
