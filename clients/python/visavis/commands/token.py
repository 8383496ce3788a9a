"""`visavis token`: run the application's token generator."""

import typer

from visavis.commands.application import run_application


def token(ctx: typer.Context) -> None:
    """Create an access token for a client; options: visavis token --help"""
    raise typer.Exit(run_application("visavis_server.transport.tokens", "visavis token", ctx.args))
