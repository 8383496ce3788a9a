"""`visavis export`: the application's export stage, where it is installed."""

import typer

from visavis.commands.application import run_application


def export(ctx: typer.Context) -> None:
    """Turn PyTorch weights into model files. Its options: visavis export --help"""
    code = run_application("visavis_export.__main__", "visavis export", ctx.args, extra="export")
    raise typer.Exit(code)
