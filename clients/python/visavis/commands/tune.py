"""`visavis tune`: the application's own measurement, where it is installed."""

import typer

from visavis.commands.application import run_application


def tune(ctx: typer.Context) -> None:
    """Measure how models run best on this machine. Its options: visavis tune --help"""
    raise typer.Exit(run_application("visavis_server.tools.tune", "visavis tune", ctx.args))
