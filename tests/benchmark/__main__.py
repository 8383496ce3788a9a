"""`python -m tests.benchmark`, and `make bench`."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status
from visavis.errors import VisavisError

from . import accelerator, accuracy, cost, speed, tensor_view, workers
from .document import Line, document
from .growth import Growth, grown
from .site import CACHE, ROOT, NotRun, Site, data_folder
from .targets import Measurement

_MEASUREMENTS = (
    *speed.MEASUREMENTS,
    *tensor_view.MEASUREMENTS,
    *accelerator.MEASUREMENTS,
    *cost.MEASUREMENTS,
    *workers.MEASUREMENTS,
    *accuracy.MEASUREMENTS,
)
_GROWTH = "growth"
_SECONDS, _ROUNDS, _MINUTES = 5.0, 3, 0.5
_NAMES = (*(measurement.name for measurement in _MEASUREMENTS), _GROWTH)

_console = Console(highlight=False)


def benchmark(
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,...",
            help=f"What to measure; prints it and writes nothing: {', '.join(_NAMES)}.",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Length of a round.")] = _SECONDS,
    rounds: Annotated[int, typer.Option(help="Rounds at each load.")] = _ROUNDS,
    minutes: Annotated[float, typer.Option(help="How long to hold a constant rate.")] = _MINUTES,
    out: Annotated[Path, typer.Option(help="The file to write.")] = ROOT / "BENCHMARKS.md",
    cache: Annotated[Path, typer.Option(help="Where exported models are kept.")] = CACHE,
) -> None:
    """Measure every target for speed, and write down what was reached."""
    names = [name.strip() for value in only or () for name in value.split(",")]
    if unknown := set(names) - set(_NAMES):
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}", param_hint="--only")
    began = time.monotonic()
    # The machine is the server's while it is measured: the spinner turns slowly.
    with Status("", console=_console, refresh_per_second=2, speed=0.3) as status:
        site = Site(
            weights=data_folder("VISAVIS_WEIGHTS"),
            images=data_folder("VISAVIS_IMAGES"),
            cache=cache.expanduser(),
            seconds=seconds,
            rounds=rounds,
            minutes=minutes,
            tell=lambda what: status.update(f"{_clock(began)} {what}"),
        )
        _alone_here()
        try:
            site.tell(f"models in {site.fp32}")
        except VisavisError as error:
            _console.print(f"[red]no models[/]: {error}", soft_wrap=True)
            raise typer.Exit(1) from None
        lines = []
        for measurement in _MEASUREMENTS:
            if names and measurement.name not in names:
                continue
            for line in _lines(measurement, site):
                lines.append(line)
                _print(line)
        growth = _growth(site) if not names or _GROWTH in names else None
    how = f"{rounds} round{'s' if rounds > 1 else ''} of {seconds:g} s at each load."
    lengths = f"--seconds {seconds:g} --rounds {rounds} --minutes {minutes:g}"
    usual = (seconds, rounds, minutes) == (_SECONDS, _ROUNDS, _MINUTES)
    command = "make bench" if usual else f"python -m tests.benchmark {lengths}"
    text = document(lines, growth, command, how)
    if names:
        if growth:
            _console.print(text[text.index("## Growth") : text.index("## Repeat")])
        return
    out.write_text(text, encoding="utf-8")
    _console.print(f"\n{out} written after {_clock(began)} min", soft_wrap=True)


def _lines(measurement: Measurement, site: Site) -> Iterator[Line]:
    site.tell(measurement.name)
    try:
        results = measurement.measure(site)
    except (NotRun, VisavisError) as error:
        reason = " ".join(str(error).replace("|", "/").split())[:300]
        kind = "not run" if isinstance(error, NotRun) else "**failed**"
        met = None if isinstance(error, NotRun) else False
        for target in measurement.targets:
            yield Line(target.row, target.text, f"{kind}: {reason}", met)
        return
    for target, result in zip(measurement.targets, results, strict=True):
        yield Line(target.row, target.text, result.text, target.reached(result.figure))


def _growth(site: Site) -> Growth | None:
    try:
        return grown(site)
    except VisavisError as error:
        _console.print(f"[red]growth failed[/]: {error}")
        return None


def _print(line: Line) -> None:
    mark = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[dim]·[/]"}[line.met]
    result = line.result.replace("**", "")
    _console.print(f"{mark} {line.row}  [dim]{line.target}[/]\n    {result}", soft_wrap=True)


def _alone_here() -> None:
    """Say so where something else keeps the cores busy, since figures will show it."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores / 4:
        _console.print(f"[yellow]the machine is busy: its load average is {load:.1f}[/]")


def _clock(began: float) -> str:
    seconds = int(time.monotonic() - began)
    return f"{seconds // 60}:{seconds % 60:02}"


if __name__ == "__main__":
    typer.run(benchmark)
