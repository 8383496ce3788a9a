"""`visavis bench`: measure a server's throughput, latency, CPU and memory."""

import asyncio
import contextlib
import json as jsonlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import typer
from rich import progress

from visavis.bench.ceiling import Ceiling
from visavis.bench.ceiling import ceiling as measured_ceiling
from visavis.bench.limit import Limit
from visavis.bench.own_server import own_server
from visavis.bench.plot import write_plot
from visavis.bench.process import Watched, listener
from visavis.bench.report import report_json
from visavis.bench.rounds import Benchmark, Plan, Row
from visavis.bench.workload import Call, calls_of, models_asked
from visavis.client import Client
from visavis.commands import bench_options as own
from visavis.commands import options
from visavis.commands.application import application_installed
from visavis.commands.bench_tables import bench_table
from visavis.commands.console import plain, stderr, stdout
from visavis.commands.failures import exit_codes
from visavis.commands.output_files import require_writable
from visavis.dataset import chosen_pictures
from visavis.errors import InvalidSettings, ServerFailed
from visavis.statuses import from_rpc_error


@dataclass(frozen=True)
class _Target:
    """The server under test, and its process if it is local."""

    address: str
    watched: Watched | None


def bench(
    pictures: own.Pictures,
    server: own.Server = None,
    models: own.Models = Path("models"),
    model: own.ModelNames = None,
    method: own.Methods = None,
    callers: own.Callers = None,
    rate: own.Rates = None,
    seconds: own.Seconds = 10.0,
    warm_up: own.WarmUp = 3.0,
    rounds: own.Rounds = 3,
    connections: own.Connections = None,
    raw: own.Raw = False,
    check: own.Check = False,
    limit: own.WithLimit = False,
    limit_model: own.LimitModels = None,
    limit_graph: own.LimitGraphs = None,
    ceiling: own.WithCeiling = False,
    pid: own.Pid = None,
    seed: own.Seed = 0,
    json: own.JsonFile = None,
    plot: own.PlotFile = None,
    timeout: options.Timeout = 60.0,
) -> None:
    """Measure a server's throughput, latency, CPU and memory."""
    methods = own.parse_methods(method)
    loads = own.parse_loads(callers, rate, len(methods))
    if limit and len(methods) > 1:
        raise typer.BadParameter("it can measure only one --method", param_hint="--limit")
    graphs = own.parse_graphs(limit_graph)
    with exit_codes():
        pictures = chosen_pictures(pictures)
        require_writable(json, plot)
        _require_application(server, limit=limit)
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(_target(server, models, pid))
            calls = _calls(target.address, methods, options.listed(model), pictures, raw=raw)
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
                limit_models=options.listed(limit_model) or calls[0][0].models,
            )
            rows = _run(benchmark)
            most = _ceiling(target, calls, timeout) if ceiling else None
        _report(rows, calls, json, plot)
        if most:
            stdout().print(plain(str(most)), soft_wrap=True)
        _raise_failure(rows, benchmark.limit_difference)


def _require_application(server: str | None, *, limit: bool) -> None:
    if (server is None or limit) and not application_installed():
        purpose = "--limit" if server else "to serve models, bench"
        raise InvalidSettings(
            f"{purpose} needs visavis-server: pip install visavis-server; "
            "to measure a running server, give its address with --server"
        )


@contextlib.contextmanager
def _target(server: str | None, models: Path, pid: int | None) -> Iterator[_Target]:
    """Yield the given server, or one that is started for the benchmark."""
    if server is None:
        stderr().print(f"serving {plain(str(models))} …", style="dim", soft_wrap=True)
        with own_server(models) as started:
            yield _Target(started.address, Watched(started.pid))
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
        # Drawing takes CPU time from the server under test.
        refresh_per_second=1,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=benchmark.seconds())

        under_way_s = 0.0

        def show(step: str, seconds: float) -> None:
            nonlocal under_way_s
            bar.update(task, description=step, advance=under_way_s)
            under_way_s = seconds

        benchmark.on_step = show
        return asyncio.run(benchmark.run())


def _ceiling(target: _Target, calls: Sequence[Sequence[Call]], timeout_s: float) -> Ceiling:
    """Return what the server answers when no picture and no model is involved."""
    (model, *_) = calls[0][0].models
    try:
        return asyncio.run(measured_ceiling(target.address, model, target.watched, timeout_s))
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, target.address, timeout_s) from None


def _report(
    rows: Sequence[Row], calls: Sequence[Sequence[Call]], json: Path | None, plot: Path | None
) -> None:
    """Print the table, and write the files."""
    methods = ", ".join(same_method[0].method for same_method in calls)
    models = dict.fromkeys(name for same_method in calls for name in same_method[0].models)
    title = f"{methods}: {', '.join(models)}"
    console = stdout()
    console.print(plain(title), style="bold", soft_wrap=True)
    console.print(bench_table(rows))
    if json:
        try:
            json.write_text(jsonlib.dumps(report_json(rows, {"title": title}), indent=1) + "\n")
        except OSError as error:
            raise InvalidSettings(f"can't write {json}: {error.strerror}") from error
    if plot:
        write_plot(plot, rows, title)


def _raise_failure(rows: Sequence[Row], limit_difference: str) -> None:
    """Raise ServerFailed if answers differ, or if a load had no answers."""
    if limit_difference:
        raise ServerFailed(f"the limit's answers differ from the server's: {limit_difference}")
    if any(row.differences for row in rows):
        raise ServerFailed("answers differ")
    for row in rows:
        if row.median.latency is None:
            errors = ", ".join(row.median.errors) or "no answer in time"
            raise ServerFailed(f"no call succeeded at {row.load}: {errors}")
