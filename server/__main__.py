"""`python -m server`, and `visavis serve`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

_app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@_app.command()
def _serve(
    models: Annotated[
        Path | None, typer.Option(help="Model repository, a folder.  [default: models]")
    ] = None,
    grpc: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="HOST:PORT or unix:PATH to listen on.  [default: 127.0.0.1:8001]",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE",
            help="auto, cpu, cuda or tensorrt. One that can't be used ends the start; auto "
            "takes CUDA where it is usable and says what it chose.  [default: auto]",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Threads that run models.  [default: one per usable core]"),
    ] = None,
    reflection: Annotated[
        bool | None, typer.Option("--reflection", help="Serve gRPC reflection.")
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="console or json.  [default: console]"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Settings file.  [default: visavis.toml, where there is one]"),
    ] = None,
) -> None:
    """Serve the models of a repository over gRPC, until SIGTERM or Ctrl-C.

    Every setting can also come from the environment (VISAVIS_MODELS, VISAVIS_GRPC, ...) or
    from the settings file; a flag beats the environment, which beats the file.
    """
    import asyncio

    from server.errors import StartupError
    from server.settings import load_settings

    given: dict[str, Any] = {
        "models": models,
        "grpc": grpc,
        "device": device,
        "workers": workers,
        "reflection": reflection,
        "log_format": log_format,
    }
    try:
        settings = load_settings({k: v for k, v in given.items() if v is not None}, config)
        from server.app import serve

        asyncio.run(serve(settings))
    except StartupError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def main(args: list[str], prog: str = "python -m server") -> int:
    """Run the command; returns its exit code."""
    try:
        _app(args, prog_name=prog)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
