"""Runs the commands of the application, the package `visavis-server`, if it is installed."""

import importlib
from importlib import metadata
from typing import Any

from typer.core import TyperCommand

from visavis.commands.console import complain


class PassedOn(TyperCommand):
    """A sub-command that passes all its arguments, --help included, to the application."""

    # Typer's own context class changes with its version, hence Any.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep every argument unparsed."""
        ctx.args = list(args)
        return []


def run_application(module: str, prog: str, args: list[str], extra: str = "") -> int:
    """Run a command of the application and return its exit code; 2 if it isn't installed.

    module: provides `main(args, prog=...)`. extra: the extra of visavis-server that the command
    needs.
    """
    requirement = f"'visavis-server[{extra}]'" if extra else "visavis-server"
    if not application_installed():
        complain(f"`{prog}` needs visavis-server; install it: pip install {requirement}")
        return 2
    try:
        main = importlib.import_module(module).main
    except ModuleNotFoundError as error:
        complain(
            f"`{prog}` needs the module {error.name}, which is not installed; "
            f"install it: pip install {requirement}"
        )
        return 2
    except ImportError as error:
        # The module is installed, but not a system library that it needs, such as libGL.
        complain(f"`{prog}` can't load a library: {error}; install that library")
        return 2
    code: int = main(args, prog=prog)
    return code


def application_installed() -> bool:
    """Return True if the distribution `visavis-server` is installed."""
    try:
        metadata.distribution("visavis-server")
    except metadata.PackageNotFoundError:
        return False
    return True
