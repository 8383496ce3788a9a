"""What `visavis serve`, `tune` and `export` share: each is a typer app of a single command."""

from contextlib import suppress

import typer

from visavis_server.plain_text import escaped


def new_app() -> typer.Typer:
    """Return an app that says what it has to say plainly, wherever it is run."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def complain(text: str) -> None:
    """Print what went wrong to standard error, on one line."""
    with suppress(OSError):  # It is full.
        typer.echo(f"error: {escaped(text)}", err=True)


def run(app: typer.Typer, args: list[str], prog: str) -> int:
    """Run an app and return its exit code; prog: what its help and errors call it."""
    try:
        app(args, prog_name=prog)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0
