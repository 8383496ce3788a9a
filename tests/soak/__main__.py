"""`python -m tests.soak`."""

import json
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

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
    """Keep a trial's rows beside those of earlier runs on this machine, and write the report."""
    kept_file = CACHE / "soak.json"
    kept = json.loads(kept_file.read_text("utf-8")) if kept_file.exists() else {}
    kept[trial] = {"commit": commit(), "rows": [asdict(row) for row in rows]}
    kept_file.write_text(json.dumps(kept), encoding="utf-8")
    out.write_text(_document(kept), encoding="utf-8")


def _document(kept: Mapping[str, Any]) -> str:
    about = machine()
    lines = [
        "# Soak",
        "",
        f"Written by `make soak`, on {about['cores']} cores of {about['processor']}, with "
        f"Python {about['python']}: the attacks and loads of `tests/faults`, run for longer.",
        "",
        "| trial | required | measured | holds | commit |",
        "| --- | --- | --- | --- | --- |",
    ]
    for trial in TRIALS:
        for row in (Row(**row) for row in kept.get(trial, {"rows": ()})["rows"]):
            holds, at = "yes" if row.holds else "**no**", kept[trial]["commit"]
            lines.append(f"| {row.what} | {row.promised} | {row.seen} | {holds} | {at} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    typer.run(soak)
