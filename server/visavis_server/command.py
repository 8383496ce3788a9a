"""Shared by `visavis serve`, `tune` and `export`, which are typer apps of one command each."""

from contextlib import suppress

import typer

from visavis_server.plain_text import escaped


def new_app() -> typer.Typer:
    """Return an app with plain output, independent of the terminal."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def complain(text: str) -> None:
    """Print an error to standard error, on one line."""
    with suppress(OSError):  # the disk or pipe is full
        typer.echo(f"error: {escaped(text)}", err=True)


def run(app: typer.Typer, args: list[str], prog: str) -> int:
    """Run an app and return its exit code; prog: its name in help and errors."""
    try:
        app(args, prog_name=prog)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0
