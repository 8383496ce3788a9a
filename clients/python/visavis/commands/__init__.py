"""The command `visavis`: one module per sub-command."""

import io
import os
import sys
from importlib import metadata
from typing import Annotated

# gRPC reads both when it is imported. Its own log says in its words what our errors say in ours;
# its own resolver would prepare for look-ups that the system's does.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_DNS_RESOLVER", "native")

import typer

from visavis.commands import (
    bench,
    classify,
    compare,
    demo,
    detect,
    doctor,
    export,
    models,
    serve,
    token_command,
    tune,
    unexpected,
)
from visavis.commands.failures import EXIT_CODES

_EPILOG = (
    "Exit codes: "
    + "; ".join(f"{code} {text}" for code, text in EXIT_CODES.items())
    + ". Those of serve, export, tune and token: 0; 1 it could not be done, and the error says "
    f"why; 2 not understood; {unexpected.FAULT} as above."
)

app = typer.Typer(
    help="Put vision models face to face, on your own pictures.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"visavis {metadata.version('visavis')}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Put vision models face to face, on your own pictures."""


app.command()(models.models)
app.command()(classify.classify)
app.command()(detect.detect)
app.command()(compare.compare)
app.command()(bench.bench)
app.command()(doctor.doctor)
app.command()(demo.demo)
app.command(cls=serve.PassedOn)(serve.serve)
app.command(cls=serve.PassedOn)(export.export)
app.command(cls=serve.PassedOn)(tune.tune)
app.command(cls=serve.PassedOn)(token_command.token)


def main(args: list[str] | None = None) -> int:
    """Run the command and return its exit code.

    args: what follows `visavis` on the command line; None: the process's own.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that can't show a character shows "?", rather than ending the run.
            stream.reconfigure(errors="replace")
    try:
        app(args, prog_name="visavis")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except Exception as error:  # noqa: BLE001  the edge of every command, serve and export included
        return unexpected.tell(error)
    return 0
