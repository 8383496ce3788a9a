"""`python -m tests.soak`."""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from visavis.bench.report import machine

from tests.benchmark.site import CACHE, ROOT, Site, data_folder

from .report import Row, Soak
from .trials import TRIALS

_console = Console(highlight=False)


def soak(
    only: Annotated[
        str, typer.Option(metavar="NAME,...", help=f"What to try: {', '.join(TRIALS)}.  [all]")
    ] = "",
    length: Annotated[float, typer.Option(help="1: whole; less: to try it out.")] = 1.0,
    out: Annotated[Path, typer.Option(help="The file to write.")] = ROOT / "SOAK.md",
) -> None:
    """Try for long what the tests try in short, and write down what was seen."""
    names = only.split(",") if only else list(TRIALS)
    if unknown := set(names) - set(TRIALS):
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}", param_hint="--only")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        site = Site(data_folder("VISAVIS_WEIGHTS"), data_folder("VISAVIS_IMAGES"), CACHE)
        for name in names:
            began = time.monotonic()
            for row in TRIALS[name](Soak(site, length, Path(folder))):
                rows.append(row)
                mark = "[green]✓[/]" if row.holds else "[red]✗[/]"
                _console.print(f"{mark} {row.what}  [dim]{row.promised}[/]\n    {row.seen}")
            _console.print(f"  [dim]{name}: {time.monotonic() - began:.0f} s[/]")
    if not only:
        out.write_text(_document(rows, length), encoding="utf-8")
    raise typer.Exit(int(not all(row.holds for row in rows)))


def _document(rows: list[Row], length: float) -> str:
    about = machine()
    whole = "" if length == 1.0 else f" at {length:g} of its length"
    lines = [
        "# Soak",
        "",
        f"Written by `make soak`{whole}, on {about['cores']} cores of {about['processor']}, with "
        f"Python {about['python']}: what `tests/faults` tries in short, for long.",
        "",
        "| | promised | seen | holds |",
        "| --- | --- | --- | --- |",
        *(
            f"| {row.what} | {row.promised} | {row.seen} | {'yes' if row.holds else '**no**'} |"
            for row in rows
        ),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(soak)
