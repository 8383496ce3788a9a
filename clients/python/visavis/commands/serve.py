"""`visavis serve`: the application's server, where it is installed."""

import typer

from visavis.commands.application import run_application


def serve(ctx: typer.Context) -> None:
    """Host a folder of models. Its options: visavis serve --help"""
    raise typer.Exit(run_application("visavis_server.__main__", "visavis serve", ctx.args))
