"""The command `visavis`: one module per sub-command."""

import importlib
import io
import os
import sys
from importlib import metadata
from typing import Annotated, Any

# gRPC reads both when it is imported. Its own log says in its words what our errors say in ours;
# its own resolver would prepare for look-ups that the system's does.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_DNS_RESOLVER", "native")

import typer
from typer.core import TyperCommand, TyperGroup

from visavis.commands import unexpected
from visavis.commands.application import PassedOn
from visavis.commands.arguments import Compare
from visavis.commands.failures import EXIT_CODES

_EPILOG = (
    "Exit codes: "
    + "; ".join(f"{code} {text}" for code, text in EXIT_CODES.items())
    + ". Those of serve, export, tune and token: 0; 1 it could not be done, and the error says "
    f"why; 2 not understood; {unexpected.FAULT} as above."
)

# In the order of the help. Each is a function of its name in the module of its name.
_COMMANDS: dict[str, type[TyperCommand]] = {
    "models": TyperCommand,
    "classify": TyperCommand,
    "detect": TyperCommand,
    "compare": Compare,
    "bench": TyperCommand,
    "doctor": TyperCommand,
    "demo": TyperCommand,
    "serve": PassedOn,
    "export": PassedOn,
    "tune": PassedOn,
    "token": PassedOn,
}


class _Commands(TyperGroup):
    """Imports a sub-command when it is asked for: `serve` needs nothing of what `bench` does."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # Their names are enough to list them, and to suggest one in the place of a wrong one.
        self.commands: Any = dict.fromkeys(_COMMANDS)

    # Typer's own context class changes with its version, hence Any.
    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a sub-command; None if there is none of this name."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"visavis.commands.{cmd_name}")
        command = typer.Typer(add_completion=False)
        command.command(cmd_name, cls=_COMMANDS[cmd_name])(getattr(module, cmd_name))
        return typer.main.get_command(command)


app = typer.Typer(
    cls=_Commands,
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
