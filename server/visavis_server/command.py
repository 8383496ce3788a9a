"""Shared by `visavis serve`, `tune` and `export`, which are typer apps of one command each."""

import inspect
from contextlib import suppress

import typer

from visavis_server.plain_text import escaped


def new_app() -> typer.Typer:
    """Return an app that looks like the other commands."""
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def flowing(text: str | None) -> str:
    """Return a docstring as a help text, with one line per paragraph for the terminal to break."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def complain(text: str) -> None:
    """Print an error to standard error, on one line."""
    with suppress(OSError):  # the disk or pipe is full
        typer.echo(f"visavis: {escaped(text)}", err=True)


def run(app: typer.Typer, args: list[str], prog: str) -> int:
    """Run an app and return its exit code; prog: its name in help and errors."""
    try:
        app(args, prog_name=prog)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0
