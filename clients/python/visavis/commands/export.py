"""`visavis export`: run the application's export stage."""

import typer

from visavis.commands.application import run_application


def export(ctx: typer.Context) -> None:
    """Export PyTorch weights to model files; options: visavis export --help"""
    code = run_application("visavis_export.__main__", "visavis export", ctx.args, extra="export")
    raise typer.Exit(code)
