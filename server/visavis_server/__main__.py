"""`python -m server`, and `visavis serve`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from visavis_server import process

if __name__ == "__main__":
    process.take_signals()  # before what takes time is imported

import typer

from visavis_server.command import complain, new_app, run
from visavis_server.errors import StartupError

if TYPE_CHECKING:
    import asyncio

    from visavis_server.models.model_files import ModelFile
    from visavis_server.models.trial import Trial
    from visavis_server.settings import Settings

_app = new_app()


@_app.command()
def _serve(
    ctx: typer.Context,
    models: Annotated[
        Path | None, typer.Option(help="Model repository, a folder.  [models]")
    ] = None,
    grpc: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="HOST:PORT or unix:PATH to listen on.  [127.0.0.1:8001]",
        ),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where HTTP is served: the playground, Connect, gRPC-Web, JSON, /metrics.  "
            "[nowhere]",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where Prometheus reads /metrics.  [nowhere]"),
    ] = None,
    triton_metrics: Annotated[
        bool | None,
        typer.Option("--triton-metrics", help="Give Triton's metrics too, under its names."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE",
            help="auto, cpu, openvino, cuda or tensorrt. One that can't be used ends the start; "
            "auto takes CUDA where it is usable and says what it chose.  [auto]",
        ),
    ] = None,
    bf16: Annotated[
        bool | None,
        typer.Option("--bf16", help="Compute in bfloat16, with --device openvino."),
    ] = None,
    cores: Annotated[
        int | None,
        typer.Option(help="Cores for decoding and running models.  [all that are usable]"),
    ] = None,
    streams: Annotated[
        int | None,
        typer.Option(help="Runs at once on a device: one copies while another runs.  [2]"),
    ] = None,
    low_memory: Annotated[
        bool | None,
        typer.Option("--low-memory", help="One session for each model, one image in a run."),
    ] = None,
    queue_size: Annotated[
        int | None,
        typer.Option(help="Requests that may wait for one model; more are refused.  [512]"),
    ] = None,
    max_encoded_bytes: Annotated[
        int | None, typer.Option(help="Largest encoded image.  [16777216]")
    ] = None,
    max_decoded_bytes: Annotated[
        int | None, typer.Option(help="Largest decoded image.  [150000000]")
    ] = None,
    max_jpeg_scans: Annotated[
        int | None, typer.Option(help="Most scans of a progressive JPEG.  [100]")
    ] = None,
    max_message_bytes: Annotated[
        int | None, typer.Option(help="Largest message.  [33554432]")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file: the certificate chain; with it, only TLS.")
    ] = None,
    tls_private_key: Annotated[Path | None, typer.Option(help="PEM file: its key.")] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(help="PEM file: authorities; clients must show a certificate of theirs."),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(help="File of hashed tokens, as `visavis token` makes them; calls need one."),
    ] = None,
    open_health: Annotated[
        bool | None, typer.Option("--open-health", help="Health checks need no token.")
    ] = None,
    insecure: Annotated[
        bool | None,
        typer.Option(
            "--insecure", help="Listen on a public address without TLS and authentication."
        ),
    ] = None,
    watch_interval_s: Annotated[
        float | None,
        typer.Option(help="Seconds between looks at the repository for changes.  [0: never]"),
    ] = None,
    watch_s: Annotated[float | None, typer.Option(hidden=True)] = None,
    grace_s: Annotated[
        float | None, typer.Option(help="Seconds for calls in flight at a stop.  [30]")
    ] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="For TensorRT's engines.  [~/.cache/visavis/engines]")
    ] = None,
    trace: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="http://HOST:PORT of an OTLP collector for traces.  [no traces]"
        ),
    ] = None,
    admin: Annotated[
        bool | None, typer.Option("--admin", help="Let clients load and unload models.")
    ] = None,
    reflection: Annotated[
        bool | None, typer.Option("--reflection", help="Serve gRPC reflection.")
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="console or json.  [console]"),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="debug, info, warning or error.  [info]"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Settings file.  [visavis.toml, where there is one]"),
    ] = None,
) -> None:
    """Serve the models of a repository over gRPC, until SIGTERM or Ctrl-C.

    Every setting can also come from the environment (VISAVIS_MODELS, VISAVIS_GRPC, ...) or
    from the settings file; a flag beats the environment, which beats the file.
    """
    flags = {key: value for key, value in ctx.params.items() if value is not None}
    flags.pop("config", None)
    process.leave_process_1()
    process.reserve_standard_streams()
    from visavis_server.models.trial import Trial

    # Its process imports what it needs while this one does.
    trial = Trial()
    try:
        from visavis_server.settings import load_settings
        from visavis_server.telemetry.standard_error import captured

        settings = load_settings(flags, config)
        trial.begin(_model_files(settings.models), settings.load_timeout_s)
        with captured(settings.log_format, settings.log_level):
            _run(settings, trial)
    except StartupError as error:
        complain(str(error))
        raise typer.Exit(1) from None
    finally:
        trial.stop()


def _run(settings: "Settings", trial: "Trial") -> None:
    """Serve; raises errors for a person to read, and typer.Exit once a machine was told."""
    import asyncio

    import structlog

    from visavis_server.app import serve

    log = structlog.get_logger()
    try:
        with asyncio.Runner(loop_factory=_loop_factory(settings)) as runner:
            runner.run(serve(settings, trial))
    except StartupError as error:
        if settings.log_format == "console":
            raise
        log.error("not started", why=str(error))
        raise typer.Exit(1) from None
    except Exception:
        if settings.log_format == "console":
            raise  # The edge of the command tells a person.
        log.exception("ended by an error")
        raise typer.Exit(1) from None


def _model_files(folder: Path) -> "list[ModelFile]":
    """Return what is to be tried; nothing where the server itself will say what is wrong."""
    from visavis_server.models.model_files import scan

    try:
        return scan(folder)
    except StartupError:
        return []


def _loop_factory(settings: "Settings") -> "Callable[[], asyncio.AbstractEventLoop]":
    # uvloop reads on before an HTTP connection can be secured.
    if settings.http and settings.tls_certificate:
        import asyncio

        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop


def main(args: list[str], prog: str = "python -m server") -> int:
    """Run the command; returns its exit code."""
    return run(_app, args, prog)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
