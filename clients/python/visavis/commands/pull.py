"""`visavis pull`: run the application's pull."""

import typer

from visavis.commands.application import run_application


def pull(ctx: typer.Context) -> None:
    """Fetch models from a bucket, a hub or a registry; options: visavis pull --help"""
    code = run_application("visavis_server.pull.__main__", "visavis pull", ctx.args, extra="pull")
    raise typer.Exit(code)
