"""`python -m tests.soak`."""

import signal
import tempfile
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from visavis.bench.report import machine

from tests.benchmark.document import commit
from tests.benchmark.site import CACHE, ROOT, Site, data_folder

from .report import Row, Soak
from .trials import TRIALS

_console = Console(highlight=False)


def soak(
    only: Annotated[
        str, typer.Option(metavar="NAME,...", help=f"Trials: {', '.join(TRIALS)}.  [all]")
    ] = "",
    length: Annotated[float, typer.Option(help="1: the whole length; less: for a first try.")] = 1,
    out: Annotated[Path, typer.Option(help="The file to write.")] = ROOT / "SOAK.md",
) -> None:
    """Run the tests' attacks and loads for longer, and report what was seen.

    At the whole length, each trial replaces its rows of the report; the others keep theirs.
    """
    names = only.split(",") if only else list(TRIALS)
    if unknown := set(names) - set(TRIALS):
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}", param_hint="--only")
    # A shell ignores SIGINT for what runs in the background, and processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    broken = False
    site = Site(data_folder("VISAVIS_WEIGHTS"), data_folder("VISAVIS_IMAGES"), CACHE)
    for name in names:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            rows = list(TRIALS[name](Soak(site, length, Path(folder))))
        for row in rows:
            broken |= not row.holds
            mark = "[green]✓[/]" if row.holds else "[red]✗[/]"
            _console.print(f"{mark} {row.what}  [dim]{row.promised}[/]\n    {row.seen}")
        _console.print(f"  [dim]{name}: {time.monotonic() - began:.0f} s[/]")
        if length == 1:
            _record(name, rows, out)
    raise typer.Exit(int(broken))


def _record(trial: str, rows: Sequence[Row], out: Path) -> None:
    """Write a trial's rows into the report, and keep those of the other trials."""
    kept = _kept(out)
    kept[trial] = [
        f"| {trial} | {row.what} | {row.promised} | {row.seen} | "
        f"{'yes' if row.holds else '**no**'} | {commit()} |"
        for row in rows
    ]
    about = machine()
    lines = [
        "# Soak",
        "",
        f"Written by `make soak`, on {about['cores']} cores of {about['processor']}, with "
        f"Python {about['python']}: the attacks and loads of `tests/faults`, run for longer.",
        "Each row names the commit that it was measured at.",
        "",
        "| trial | what | required | measured | holds | commit |",
        "| --- | --- | --- | --- | --- | --- |",
        *chain.from_iterable(kept.get(name, ()) for name in TRIALS),
    ]
    out.write_text("\n".join([*lines, ""]), encoding="utf-8")


def _kept(out: Path) -> dict[str, list[str]]:
    """Return the rows of a report by trial."""
    kept: dict[str, list[str]] = {}
    for line in out.read_text("utf-8").splitlines() if out.exists() else ():
        trial = line.removeprefix("| ").partition(" | ")[0]
        if trial in TRIALS:
            kept.setdefault(trial, []).append(line)
    return kept


if __name__ == "__main__":
    typer.run(soak)
