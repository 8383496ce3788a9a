"""The options of `visavis bench`, and how they are parsed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from visavis.bench.rounds import Load
from visavis.bench.workload import METHODS
from visavis.commands.options import listed

_MIXED = "mixed"
# Per method.
_DEFAULT_CALLERS = (1, 8, 32)

Pictures = Annotated[
    list[Path],
    typer.Argument(
        metavar="PICTURE",
        help="JPEG, PNG or WebP files, or folders of them, sent in turn.",
        show_default=False,
    ),
]
Server = Annotated[
    str | None,
    typer.Option(
        envvar="VISAVIS_SERVER",
        metavar="HOST:PORT",
        help="Address of a running server, or unix:PATH.",
        show_default="start one for --models",
    ),
]
Models = Annotated[
    Path, typer.Option(metavar="FOLDER", help="Model repository to serve and to use for --limit.")
]
ModelNames = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME,...",
        help="Models to use; repeatable.",
        show_default="the only capable one; all for compare",
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="METHOD,...",
        help="classify, detect or compare; several are called concurrently. mixed is all three.",
        show_default="classify",
    ),
]
WithCeiling = Annotated[
    bool,
    typer.Option(
        "--ceiling", help="Also measure calls without picture and model: what a process can do."
    ),
]
Callers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="N,...",
        help="Closed loop: concurrent callers, each with one call at a time.",
        show_default="1,8,32 per method",
    ),
]
Rates = Annotated[
    list[str] | None,
    typer.Option(
        "--rate",
        metavar="R,...",
        help="Open loop: calls per second at random times (Poisson), without waiting for answers.",
    ),
]
Seconds = Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Duration of a round.")]
WarmUp = Annotated[
    float,
    typer.Option(min=0, metavar="SECONDS", help="Unmeasured load before the first round."),
]
Rounds = Annotated[int, typer.Option(min=1, metavar="N", help="Rounds at each load.")]
Connections = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Connections to the server.",
        show_default="one per caller, at most 256",
    ),
]
Raw = Annotated[bool, typer.Option("--raw", help="Send decoded pixels instead of the files.")]
Check = Annotated[
    bool,
    typer.Option("--check", help="Compare every answer with the first one for the same picture."),
]
WithLimit = Annotated[
    bool,
    typer.Option(
        "--limit",
        help="Alternately measure the same work in one process without a server, and print the "
        "ratio.",
    ),
]
LimitModels = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME,...", help="Models for --limit; repeatable.", show_default="those called"
    ),
]
LimitGraphs = Annotated[
    list[str] | None,
    typer.Option(
        "--limit-graph",
        metavar="NAME=FILE",
        help="ONNX file for --limit to run instead of detector NAME's; it must return whole rows.",
    ),
]
Pid = Annotated[
    int | None,
    typer.Option(
        metavar="PID",
        help="Process ID of the server, to measure its CPU and memory.",
        show_default="found by the address, if local",
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Random seed for --rate.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write all rounds as JSON.")
]
PlotFile = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Plot throughput and latency as a PNG."),
]


def parse_methods(values: Sequence[str] | None) -> list[str]:
    """Return the methods to call. Raises typer.BadParameter."""
    names = listed(values) or ["classify"]
    names = list(dict.fromkeys(METHODS if _MIXED in names else names))
    for name in names:
        if name not in METHODS:
            choices = ", ".join((*METHODS, _MIXED))
            raise typer.BadParameter(
                f"unknown method {name!r}; choose from: {choices}", param_hint="--method"
            )
    return names


def parse_loads(
    callers: Sequence[str] | None, rates: Sequence[str] | None, methods: int
) -> list[Load]:
    """Return the loads to measure. methods: how many are called. Raises typer.BadParameter."""
    if callers and rates:
        raise typer.BadParameter("give either --callers or --rate", param_hint="--rate")
    if rates:
        return [Load(rate_per_s=rate) for rate in _numbers(rates, float, 0, "--rate")]
    default = ",".join(str(number * methods) for number in _DEFAULT_CALLERS)
    numbers = _numbers(callers or [default], int, methods - 1, "--callers")
    return [Load(callers=number) for number in numbers]


def parse_graphs(values: Sequence[str] | None) -> dict[str, Path]:
    """Return the files of --limit-graph by model name. Raises typer.BadParameter."""
    graphs = {}
    for text in values or ():
        name, _, file = text.partition("=")
        if not file:
            raise typer.BadParameter(f"{text!r} is not NAME=FILE", param_hint="--limit-graph")
        graphs[name] = Path(file)
    return graphs


_N = TypeVar("_N", int, float)


def _numbers(values: Sequence[str], kind: Callable[[str], _N], above: int, option: str) -> list[_N]:
    numbers = []
    for text in listed(values):
        try:
            numbers.append(kind(text))
        except ValueError:
            expected = "whole number" if kind is int else "number"
            raise typer.BadParameter(f"{text!r} is not a {expected}", param_hint=option) from None
    for number in numbers:
        if not above < number < float("inf"):
            raise typer.BadParameter(
                f"{number} callers are too few; each method needs at least one"
                if above and option == "--callers"
                else f"{number} is out of range; it must be above {above}",
                param_hint=option,
            )
    return numbers
