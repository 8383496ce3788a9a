"""`visavis verify`: run the application's verification."""

import typer

from visavis.commands.application import run_application


def verify(ctx: typer.Context) -> None:
    """Compare an ONNX file with its PyTorch original; options: visavis verify --help"""
    module = "visavis_export.verification.__main__"
    raise typer.Exit(run_application(module, "visavis verify", ctx.args, extra="export"))
