"""The command `visavis`: one module per sub-command."""

import importlib
import io
import os
import sys
from importlib import metadata
from typing import Annotated, Any

# gRPC reads both variables at import. Its log would only repeat our errors. Its own DNS resolver
# costs start-up time and is not needed: the system's does the job.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_DNS_RESOLVER", "native")

import typer
from typer.core import TyperCommand, TyperGroup

from visavis.commands import unexpected
from visavis.commands.application import PassedOn
from visavis.commands.arguments import Compare, Explained
from visavis.commands.failures import EXIT_CODES

_EPILOG = (
    "Exit codes: "
    + "; ".join(f"{code} {text}" for code, text in EXIT_CODES.items())
    + ". verify exits with 0 for the same, 1 for a difference, 2 if it could not compare; serve, "
    "export, pull, tune and token with 0 on success, 1 on failure, 2 for invalid "
    f"arguments or settings, and {unexpected.FAULT} as above."
)

_BEGINNING = """\
visavis serves vision models, and compares them on your own pictures. To begin:

  visavis export resnet50 yolov5n        download the weights, write models/
  visavis serve --http 127.0.0.1:8000    serve them, and a page at http://127.0.0.1:8000
  visavis compare PICTURE                in another terminal: all answers side by side

`visavis demo` does all of this at once; `visavis --help` lists all commands.
"""

# In the order of the help: each name is both the module and the function in it; its group; its
# class.
_COMMANDS: dict[str, tuple[str, type[TyperCommand]]] = {
    "demo": ("Begin", TyperCommand),
    "export": ("Export", PassedOn),
    "verify": ("Export", PassedOn),
    "serve": ("Serve", PassedOn),
    "pull": ("Serve", PassedOn),
    "token": ("Serve", PassedOn),
    "tune": ("Serve", PassedOn),
    "classify": ("Ask", Explained),
    "detect": ("Ask", Explained),
    "compare": ("Compare", Compare),
    "models": ("Inspect", TyperCommand),
    "doctor": ("Inspect", TyperCommand),
    "bench": ("Inspect", TyperCommand),
}


class _Commands(TyperGroup):
    """Imports a sub-command on first use, so that `serve` does not wait for `bench`'s imports."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # The names suffice to list the commands and to suggest a correction.
        self.commands: Any = dict.fromkeys(_COMMANDS)

    # Typer's own context class changes with its version, hence Any.
    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the sub-command of a name; None if the name is unknown."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"visavis.commands.{cmd_name}")
        command = typer.Typer(add_completion=False)
        group, kind = _COMMANDS[cmd_name]
        function = getattr(module, cmd_name)
        command.command(cmd_name, cls=kind, rich_help_panel=group)(function)
        return typer.main.get_command(command)


app = typer.Typer(
    cls=_Commands,
    help="Serve vision models, and compare them on your own pictures.",
    epilog=_EPILOG,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"visavis {metadata.version('visavis')}\n")
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Serve vision models, and compare them on your own pictures."""
    if ctx.invoked_subcommand is None:
        sys.stdout.write(_BEGINNING)


def main(args: list[str] | None = None) -> int:
    """Run the command and return its exit code.

    args: the arguments after `visavis`; None for those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Print "?" for characters that the terminal can't show, instead of failing.
            stream.reconfigure(errors="replace")
    try:
        app(args, prog_name="visavis")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except Exception as error:  # noqa: BLE001  the edge of every command, serve and export included
        return unexpected.report(error)
    return 0
