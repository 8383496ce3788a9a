"""`visavis tune`: run the application's tuner."""

import typer

from visavis.commands.application import run_application


def tune(ctx: typer.Context) -> None:
    """Find the fastest settings for models on this machine; options: visavis tune --help"""
    raise typer.Exit(run_application("visavis_server.tools.tune", "visavis tune", ctx.args))
