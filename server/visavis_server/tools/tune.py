"""`visavis tune`: measures how models run best on this machine and writes the settings file."""

import errno
import shutil
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated

import tomlkit
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from visavis_server.command import complain, flowing, new_app, run
from visavis_server.errors import InvalidSettings, ModelNotFound, StartupError, listed
from visavis_server.models.model_files import scan
from visavis_server.models.planning import planner_of
from visavis_server.plain_text import escaped
from visavis_server.settings import DEFAULT_FILE, TunedPlan, load_settings
from visavis_server.tools.tuner import Candidate, Goal, Tuner

_app = new_app()


def _tune(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Models.", show_default="all")
    ] = None,
    models: Annotated[
        Path | None, typer.Option(help="Model repository, a folder.", show_default="models")
    ] = None,
    goal: Annotated[
        Goal, typer.Option("--for", metavar="GOAL", help="throughput or latency.")
    ] = "throughput",
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="As in visavis serve.", show_default="auto")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Seconds to measure each candidate, per round.")
    ] = 2.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds.")] = 3,
    config: Annotated[
        Path, typer.Option(help="Settings file to write; created if it does not exist.")
    ] = DEFAULT_FILE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
) -> None:
    """Measure which threads, concurrent runs and batch size suit each model on this machine.

    Throughput: the most answers per second under constant load. Latency: the lowest 95th
    percentile, with one client per core. The result is written into the settings file, which
    the server reads. Tuning is optional: the server's defaults are good. Run it on an
    otherwise idle machine.
    """
    console = Console(stderr=True)
    flags = {key: value for key, value in (("models", models), ("device", device)) if value}
    try:
        settings = load_settings(flags, config if config.is_file() else None)
        planner, _ = planner_of(settings)
        newest = {file.name: file for file in scan(settings.models)}
        if not newest:
            raise StartupError(
                f"the model repository {settings.models} holds no models; export one with "
                f"`visavis export resnet50 --out {settings.models}`, or choose another folder "
                "with --models"
            )
        if unknown := set(names or ()) - set(newest):
            raise ModelNotFound(
                f"there is no model {listed(unknown)} in {settings.models}; "
                f"the models are: {listed(newest)}"
            )
        if not dry_run:
            _require_writable(config)
        tuned: dict[str, TunedPlan] = {}
        for name in names or newest:
            with (
                Tuner(newest[name], planner, goal, settings.engine_dir()) as tuner,
                Progress(
                    TextColumn("{task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TimeRemainingColumn(),
                    console=console,
                    transient=True,
                ) as progress,
            ):
                task = progress.add_task(
                    escape(escaped(name)), total=len(tuner.candidates) * rounds
                )
                best = tuner.measure(seconds, rounds, partial(progress.advance, task))
                table = _table(name, tuner.candidates, best)
            Console().print(table)
            tuned[name] = best.tuning
        if not dry_run:
            write(config, tuned)
            typer.echo(
                f"wrote {escaped(str(config))}; the server reads visavis.toml, or --config FILE"
            )
    except (StartupError, ModelNotFound) as error:
        complain(str(error))
        raise typer.Exit(2 if isinstance(error, InvalidSettings) else 1) from None


def write(path: Path, tuned: dict[str, TunedPlan]) -> None:
    """Write the tunings into a settings file and keep the rest of it.

    Raises StartupError if the file can't be read or written.
    """
    try:
        document = (
            tomlkit.parse(path.read_text("utf-8-sig")) if path.is_file() else tomlkit.document()
        )
        tables = document.setdefault("tuning", tomlkit.table(is_super_table=True))
        for name, tuning in tuned.items():
            tables[name] = tuning.model_dump()
        _replace(path.resolve(), tomlkit.dumps(document))
    except OSError as error:
        raise _unwritable(path, error) from None
    except tomlkit.exceptions.TOMLKitError as error:
        raise StartupError(f"the settings file {path} can't be written: {error}") from None


def _require_writable(path: Path) -> None:
    """Raise StartupError unless a file can be written; leaves it unchanged."""
    try:
        is_new = not path.exists()
        path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> StartupError:
    return StartupError(
        f"the settings file {path} can't be written: {error.strerror}; choose another with "
        "--config, or write nothing with --dry-run"
    )


def _replace(path: Path, text: str) -> None:
    """Write a temporary file and rename it, so that a full disk keeps the old file."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, "utf-8")
        if path.exists():
            shutil.copymode(path, part)
        part.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        # The file may be writable but not its folder, as for a file mounted into a container.
        path.write_text(text, "utf-8")
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _table(name: str, candidates: list[Candidate], best: Candidate) -> Table:
    """Return a table of the measurements; gains are relative to the untuned plan."""
    title = Text(f"{escaped(name)}, for {best.tuning.goal}")
    table = Table(title=title, title_justify="left", box=None)
    for heading in ("at once", "threads", "batch", "per s", "p95 ms", "gain"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for candidate in candidates:
        plan, notes = candidate.plan, []
        if candidate is candidates[0]:
            notes.append("without tuning")
        if candidate is best:
            notes.append("best")
        table.add_row(
            str(plan.instances),
            str(plan.threads) if plan.runs_on == "cores" else "-",
            str(plan.batch),
            f"{median(candidate.per_s):.1f}",
            f"{median(candidate.p95_ms):.1f}",
            f"{candidate.gain(candidates[0]):.2f}",
            ", ".join(notes),
            style="bold" if candidate is best else None,
        )
    return table


_app.command(help=flowing(_tune.__doc__))(_tune)


def main(args: list[str], prog: str = "python -m visavis_server.tools.tune") -> int:
    """Run the command; returns its exit code."""
    return run(_app, args, prog)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
