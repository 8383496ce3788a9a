"""`python -m visavis_server`, and `visavis serve`."""

import os
import sys
from collections.abc import Callable
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from visavis_server import process

if __name__ == "__main__":
    process.take_signals()  # before the slow imports

import typer

from visavis_server.command import complain, flowing, new_app, run
from visavis_server.errors import InvalidSettings, StartupError

if TYPE_CHECKING:
    from visavis_server.models.model_files import ModelFile
    from visavis_server.models.trial import Trial
    from visavis_server.settings import Settings

# The settings that are options too; the others come from the environment or the file.
FLAGS: Final = (
    "models",
    "grpc",
    "http",
    "open",
    "metrics",
    "triton_metrics",
    "device",
    "bf16",
    "cores",
    "workers",
    "streams",
    "gpu",
    "gpu_memory_bytes",
    "cuda_graphs",
    "low_memory",
    "queue_size",
    "max_encoded_bytes",
    "max_decoded_bytes",
    "max_jpeg_scans",
    "max_message_bytes",
    "tls_certificate",
    "tls_private_key",
    "tls_client_ca",
    "tokens",
    "open_health",
    "insecure",
    "watch_interval_s",
    "grace_s",
    "cache_dir",
    "trace",
    "admin",
    "reflection",
    "log_format",
    "log_level",
)
_METAVARS: Final = {
    "grpc": "ADDRESS",
    "http": "HOST:PORT",
    "metrics": "HOST:PORT",
    "device": "DEVICE",
    "gpu": "GPU",
    "workers": "N|auto",
    "trace": "URL",
    "log_format": "FORMAT",
    "log_level": "LEVEL",
}
_HELP: Final = """Serve the models of a repository over gRPC, until SIGTERM or Ctrl-C.

Every setting can also come from the environment (VISAVIS_MODELS, VISAVIS_GRPC, ...) or from the
settings file. An option overrides the environment, which overrides the file.
"""
_ConfigOption = Annotated[
    Path | None, typer.Option(help="Settings file.", show_default="visavis.toml, if it exists")
]


def main(args: list[str], prog: str = "python -m visavis_server") -> int:
    """Run the command; returns its exit code."""
    if {"-h", "--help"} & set(args):
        return run(_app(lambda flags, config: None), args, prog)
    process.leave_process_1()
    process.reserve_standard_streams()
    from visavis_server.models.trial import Trial

    # First: the trial's process imports its modules while this one does.
    try:
        trial = Trial()
    except StartupError as error:
        complain(str(error))
        return 1
    try:
        return run(_app(lambda flags, config: _serve(trial, flags, config)), args, prog)
    finally:
        trial.stop()


def _app(serve: Callable[[dict[str, Any], Path | None], None]) -> typer.Typer:
    """Return the command, which calls `serve` with the given flags and the settings file."""
    from visavis_server.settings import (
        RENAMED_SETTINGS,
        Settings,
        default_text,
        option_type,
    )

    def command(config: Path | None = None, **flags: Any) -> None:
        serve({name: value for name, value in flags.items() if value is not None}, config)

    def parameter(name: str, annotation: Any) -> Parameter:
        return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)

    parameters = []
    for name in FLAGS:
        # A switch has no --no- form.
        switch = (f"--{name.replace('_', '-')}",) if option_type(name) is bool else ()
        option = typer.Option(
            *switch,
            # Square brackets would be markup.
            help=(Settings.model_fields[name].description or "").replace("[", r"\["),
            show_default=default_text(name) or False,
            metavar=_METAVARS.get(name),
        )
        parameters.append(parameter(name, Annotated[option_type(name) | None, option]))
    for old, new in RENAMED_SETTINGS.items():
        if new in FLAGS:
            hidden = typer.Option(hidden=True)
            parameters.append(parameter(old, Annotated[option_type(new) | None, hidden]))
    parameters.append(parameter("config", _ConfigOption))
    assert set(FLAGS) <= Settings.model_fields.keys()
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    app = new_app()
    app.command(help=flowing(_HELP))(command)
    return app


def _serve(trial: "Trial", flags: dict[str, Any], config: Path | None) -> None:
    """Load the settings and serve; prints errors and raises typer.Exit."""
    import structlog

    from visavis_server.settings import load_settings
    from visavis_server.supervision.division import worker_count
    from visavis_server.telemetry.standard_error import captured

    try:
        settings = load_settings(flags, config)
        trial.begin(_model_files(settings.models), settings.load_timeout_s)
        count, why = worker_count(settings)
        is_auto = settings.workers == "auto"
        if is_auto:
            settings = settings.model_copy(update={"workers": count})
        colors = os.isatty(2)
        with captured(settings.log_format, settings.log_level, colors=colors):
            if is_auto:
                structlog.get_logger().info("workers chosen", workers=count, why=why)
            _run(settings, trial, colors=colors)
    except StartupError as error:
        complain(str(error))
        raise typer.Exit(2 if isinstance(error, InvalidSettings) else 1) from None


def _run(settings: "Settings", trial: "Trial", *, colors: bool) -> None:
    """Serve; raises errors for a person to read, or logs them for a machine and exits.

    colors: of the log.
    """
    import structlog

    log = structlog.get_logger()
    try:
        if settings.has_workers:
            _supervise(settings, trial, colors=colors)
        else:
            _serve_alone(settings, trial)
    except StartupError as error:
        if settings.log_format == "console":
            raise
        log.error("not started", why=str(error))
        raise typer.Exit(1) from None
    except Exception:
        if settings.log_format == "console":
            raise  # the command's caller prints it
        log.exception("ended by an error")
        raise typer.Exit(1) from None


def _serve_alone(settings: "Settings", trial: "Trial") -> None:
    """Serve in this process."""
    import asyncio

    try:
        from visavis_server.app import serve
    except ModuleNotFoundError:
        raise
    except ImportError as error:
        raise _unloadable(error) from None
    from visavis_server.event_loop import loop_factory

    with asyncio.Runner(loop_factory=loop_factory(settings)) as runner:
        runner.run(serve(settings, trial))


def _unloadable(error: ImportError) -> StartupError:
    """Return an error for a library that the system lacks."""
    # What opencv-python needs to open windows, and slim images lack.
    for_windows = str(error).startswith(("libGL", "libxcb", "libglib", "libgthread"))
    remedy = (
        "use the OpenCV that needs none: pip uninstall --yes opencv-python, then "
        "pip install opencv-python-headless"
        if for_windows
        else "install it"
    )
    return StartupError(f"can't load a library of the system: {error}; {remedy}")


def _supervise(settings: "Settings", trial: "Trial", *, colors: bool) -> None:
    """Serve in workers, which this process starts and replaces. It does not import the server."""
    import asyncio

    from visavis_server.supervision.supervisor import supervise

    asyncio.run(supervise(settings, trial, colors=colors))


def _model_files(folder: Path) -> "list[ModelFile]":
    """Return the files to try; none if the folder is unusable, which the server reports itself."""
    from visavis_server.models.model_files import scan

    try:
        return scan(folder)
    except StartupError:
        return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
