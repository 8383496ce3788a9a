"""`visavis token`: the application's own, where it is installed."""

import typer

from visavis.commands.application import run_application


def token(ctx: typer.Context) -> None:
    """Make a token for a client of a server. Its options: visavis token --help"""
    raise typer.Exit(run_application("visavis_server.transport.tokens", "visavis token", ctx.args))
