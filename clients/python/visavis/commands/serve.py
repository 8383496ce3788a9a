"""`visavis serve`: run the application's server."""

import typer

from visavis.commands.application import run_application


def serve(ctx: typer.Context) -> None:
    """Serve a folder of models; options: visavis serve --help"""
    raise typer.Exit(run_application("visavis_server.__main__", "visavis serve", ctx.args))
