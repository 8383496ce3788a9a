"""`visavis bench`: how much a server answers, how soon, and what it costs."""

import asyncio
import contextlib
import json as jsonlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich import progress

from visavis.bench.limit import Limit
from visavis.bench.own_server import own_server
from visavis.bench.plot import write_plot
from visavis.bench.process import Watched, listener
from visavis.bench.report import report_json
from visavis.bench.rounds import Benchmark, Load, Plan, Row
from visavis.bench.workload import METHODS, Call, calls_of, models_asked
from visavis.client import Client
from visavis.commands import options
from visavis.commands.application import application_installed
from visavis.commands.bench_tables import bench_table
from visavis.commands.console import plain, stderr, stdout
from visavis.commands.failures import exit_codes
from visavis.dataset import chosen_pictures
from visavis.errors import InvalidSettings, ServerFailed

_MIXED = "mixed"
# For each method.
_DEFAULT_CALLERS = (1, 8, 32)

Server = Annotated[
    str | None,
    typer.Option(
        envvar="VISAVIS_SERVER",
        metavar="HOST:PORT",
        help="The server; or unix:PATH. One is started for --models if not given.",
    ),
]
Models = Annotated[
    Path, typer.Option(metavar="FOLDER", help="Model repository, to serve and for --limit.")
]
ModelNames = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME,...",
        help="Models to ask; may be repeated. Not needed where a single one is capable.",
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="METHOD,...",
        help="classify, detect, compare; several are called at once, mixed means all three.",
    ),
]
Callers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="N,...",
        help="Closed loop: callers that wait for their answers.  [1,8,32 per method]",
    ),
]
Rates = Annotated[
    list[str] | None,
    typer.Option(
        "--rate",
        metavar="R,...",
        help="Open loop: calls per second at random moments (Poisson), whoever waits.",
    ),
]
Seconds = Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Length of a round.")]
WarmUp = Annotated[
    float, typer.Option(min=0, metavar="SECONDS", help="Load before the first round, not counted.")
]
Rounds = Annotated[int, typer.Option(min=1, metavar="N", help="Rounds at each load.")]
Connections = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Connections to the server; one per caller, to 256, if not given."
    ),
]
Raw = Annotated[bool, typer.Option("--raw", help="Send decoded pixels, not the pictures' bytes.")]
Check = Annotated[
    bool, typer.Option("--check", help="Hold every answer against the first one to its picture.")
]
WithLimit = Annotated[
    bool,
    typer.Option(
        "--limit",
        help="Measure in turns what this machine can do without a server, and print the ratio.",
    ),
]
LimitModels = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME,...", help="Models that the limit runs; those asked if not given."),
]
LimitGraphs = Annotated[
    list[str] | None,
    typer.Option(
        "--limit-graph",
        metavar="NAME=FILE",
        help="File that the limit runs in a detector's place; its graph gives whole rows.",
    ),
]
Pid = Annotated[
    int | None,
    typer.Option(metavar="PID", help="The server's process; found by its address if it runs here."),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Of the random moments of --rate.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write every round as JSON.")
]
PlotFile = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Write throughput and latency as a PNG."),
]


@dataclass(frozen=True)
class _Target:
    """The server that is measured."""

    address: str
    watched: Watched | None


def bench(
    pictures: Annotated[
        list[Path],
        typer.Argument(
            metavar="PICTURE",
            help="JPEG, PNG or WebP files, or folders of them, sent in turns.",
            show_default=False,
        ),
    ],
    server: Server = None,
    models: Models = Path("models"),
    model: ModelNames = None,
    method: Methods = None,
    callers: Callers = None,
    rate: Rates = None,
    seconds: Seconds = 10.0,
    warm_up: WarmUp = 3.0,
    rounds: Rounds = 3,
    connections: Connections = None,
    raw: Raw = False,
    check: Check = False,
    limit: WithLimit = False,
    limit_model: LimitModels = None,
    limit_graph: LimitGraphs = None,
    pid: Pid = None,
    seed: Seed = 0,
    json: JsonFile = None,
    plot: PlotFile = None,
    timeout: options.Timeout = 60.0,
) -> None:
    """Measure how much a server answers, how soon, and what it costs."""
    methods = _methods(method)
    loads = _loads(callers, rate, len(methods))
    if limit and len(methods) > 1:
        raise typer.BadParameter("several methods have no common limit", param_hint="--limit")
    graphs = dict(_graph(text) for text in limit_graph or ())
    with exit_codes():
        pictures = chosen_pictures(pictures)
        for file in (json, plot):
            if file is not None:
                _require_writable(file)
        if (limit or server is None) and not application_installed():
            needed = "--limit" if server else "to serve models, it"
            raise InvalidSettings(
                f"{needed} needs the application: pip install visavis-server; "
                "a server that runs already is named with --server"
            )
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(_target(server, models, pid))
            calls = _calls(target.address, methods, options.listed(model), pictures, raw=raw)
            limit_models = options.listed(limit_model) or calls[0][0].models
            plan = Plan(
                address=target.address,
                calls=calls,
                loads=loads,
                seconds=seconds,
                warm_up_s=warm_up,
                rounds=rounds,
                connections=connections,
                timeout_s=timeout,
                check=check,
                seed=seed,
            )
            benchmark = Benchmark(
                plan,
                watched=target.watched,
                limit=stack.enter_context(Limit(models, pictures, graphs)) if limit else None,
                limit_models=limit_models,
            )
            rows = _run(benchmark)
        asked = dict.fromkeys(name for same in calls for name in same[0].models)
        title = f"{', '.join(methods)}: {', '.join(asked)}"
        console = stdout()
        console.print(plain(title), style="bold", soft_wrap=True)
        console.print(bench_table(rows))
        _write(rows, title, json, plot)
        _raise_failure(rows, benchmark.limit_difference)


def _methods(given: Sequence[str] | None) -> list[str]:
    names = options.listed(given) or ["classify"]
    names = list(dict.fromkeys(METHODS if _MIXED in names else names))
    for name in names:
        if name not in METHODS:
            raise typer.BadParameter(
                f"{name!r} is unknown; there are: {', '.join((*METHODS, _MIXED))}",
                param_hint="--method",
            )
    return names


def _loads(callers: Sequence[str] | None, rates: Sequence[str] | None, methods: int) -> list[Load]:
    if callers and rates:
        raise typer.BadParameter("give callers or rates, not both", param_hint="--rate")
    if rates:
        return [Load(rate_per_s=rate) for rate in _numbers(rates, float, 0, "--rate")]
    default = ",".join(str(number * methods) for number in _DEFAULT_CALLERS)
    numbers = _numbers(callers or [default], int, methods - 1, "--callers")
    return [Load(callers=number) for number in numbers]


_N = TypeVar("_N", int, float)


def _numbers(given: Sequence[str], kind: Callable[[str], _N], above: int, option: str) -> list[_N]:
    numbers = []
    for text in options.listed(given):
        try:
            numbers.append(kind(text))
        except ValueError:
            what = "whole number" if kind is int else "number"
            raise typer.BadParameter(f"{text!r} is no {what}", param_hint=option) from None
    for number in numbers:
        if not above < number < float("inf"):
            raise typer.BadParameter(
                f"{number} is too few; each method needs a caller"
                if above and option == "--callers"
                else f"{number} can't be used; it must be above {above}",
                param_hint=option,
            )
    return numbers


def _graph(text: str) -> tuple[str, Path]:
    name, _, file = text.partition("=")
    if not file:
        raise typer.BadParameter(f"{text!r} is not NAME=FILE", param_hint="--limit-graph")
    return name, Path(file)


@contextlib.contextmanager
def _target(server: str | None, models: Path, pid: int | None) -> Iterator[_Target]:
    """Yield the server that was named, or one of our own for as long as it takes."""
    if server is None:
        stderr().print(f"serving {plain(str(models))} …", style="dim", soft_wrap=True)
        with own_server(models) as own:
            yield _Target(own.address, Watched(own.pid))
        return
    pid = pid or listener(server)
    yield _Target(server, Watched(pid) if pid else None)


def _calls(
    address: str, methods: Sequence[str], wanted: list[str], pictures: list[Path], *, raw: bool
) -> list[list[Call]]:
    with Client(address) as client:
        cards = client.list_models()
    return [
        calls_of(method, models_asked(method, cards, wanted), pictures, raw=raw)
        for method in methods
    ]


def _run(benchmark: Benchmark) -> list[Row]:
    console = stderr()
    bar = progress.Progress(
        progress.BarColumn(),
        progress.TextColumn("{task.description}"),
        progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        # Drawing takes CPU that is the server's while it is measured.
        refresh_per_second=1,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=benchmark.seconds())

        under_way_s = 0.0

        def tell(what: str, seconds: float) -> None:
            nonlocal under_way_s
            bar.update(task, description=what, advance=under_way_s)
            under_way_s = seconds

        benchmark.tell = tell
        return asyncio.run(benchmark.run())


def _require_writable(file: Path) -> None:
    """Raise InvalidSettings, before any work, unless a file can be written; leaves it as it was."""
    is_new = not file.exists()
    try:
        file.open("ab").close()
        if is_new:
            file.unlink()
    except OSError as error:
        raise InvalidSettings(
            f"can't write {file}: {error.strerror}; name a file in a folder that can be written to"
        ) from error


def _write(rows: Sequence[Row], title: str, json: Path | None, plot: Path | None) -> None:
    if json:
        try:
            json.write_text(jsonlib.dumps(report_json(rows, {"title": title}), indent=1) + "\n")
        except OSError as error:
            raise InvalidSettings(f"can't write {json}: {error.strerror}") from error
    if plot:
        write_plot(plot, rows, title)


def _raise_failure(rows: Sequence[Row], limit_difference: str) -> None:
    """Raise ServerFailed where answers differ, or where a load had none."""
    if limit_difference:
        raise ServerFailed(f"the limit answers otherwise than the server: {limit_difference}")
    if any(row.differences for row in rows):
        raise ServerFailed("answers differ")
    for row in rows:
        if row.median.latency is None:
            errors = ", ".join(row.median.errors) or "no answer in time"
            raise ServerFailed(f"nothing was answered at {row.load}: {errors}")
