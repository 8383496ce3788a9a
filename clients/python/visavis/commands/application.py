"""The application, `visavis-server`: its commands, where it is installed."""

import importlib
from importlib import metadata
from typing import Any

from typer.core import TyperCommand

from visavis.commands.console import complain


class PassedOn(TyperCommand):
    """A sub-command whose arguments, --help included, are for somebody else."""

    # Typer's own context class changes with its version, hence Any.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep every argument as it came."""
        ctx.args = list(args)
        return []


def run_application(module: str, prog: str, args: list[str], extra: str = "") -> int:
    """Return the exit code of a part of the application; 2 where it isn't installed.

    module: the one whose `main(args, prog=...)` is called. extra: of visavis-server, that
    brings what the part needs.
    """
    requirement = f"'visavis-server[{extra}]'" if extra else "visavis-server"
    if not application_installed():
        complain(f"`{prog}` needs the application; install it: pip install {requirement}")
        return 2
    try:
        main = importlib.import_module(module).main
    except ModuleNotFoundError as error:
        complain(
            f"`{prog}` needs the module {error.name}, which isn't installed; "
            f"install it: pip install {requirement}"
        )
        return 2
    except ImportError as error:
        # A module is there, and a library of the system that it needs is not: libGL, for OpenCV.
        complain(f"`{prog}` can't load what it needs: {error}; install the library that is named")
        return 2
    code: int = main(args, prog=prog)
    return code


def application_installed() -> bool:
    """Return whether the distribution that holds `server` and `export` is installed.

    The names alone prove nothing: anybody may have a module called `server`.
    """
    try:
        metadata.distribution("visavis-server")
    except metadata.PackageNotFoundError:
        return False
    return True
