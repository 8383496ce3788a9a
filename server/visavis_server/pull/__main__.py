"""`python -m visavis_server.pull`, and `visavis pull`."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Annotated, Final, Literal

import structlog
import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from visavis_server import log
from visavis_server.command import complain, flowing, new_app, run
from visavis_server.log import configure_logging
from visavis_server.plain_text import escaped
from visavis_server.pull.checking import Signatures
from visavis_server.pull.errors import PullError
from visavis_server.pull.fetching import Advance
from visavis_server.pull.outcomes import Round
from visavis_server.pull.placing import Place
from visavis_server.pull.puller import Begin, Puller
from visavis_server.pull.sources import open_source
from visavis_server.pull.watching import Deadline, Watch
from visavis_server.pull.wishes import Limits, Wishes

_app = new_app()
_defaults: Final = Limits()
_TIMED_OUT: Final = 4
# A thread of a library must not hold up a stop.
_END_WITHIN_S: Final = 2.0

_Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Where the models are kept: s3://BUCKET/FOLDER, gs://, az://, hf://OWNER/REPOSITORY, "
        "oci://REGISTRY/REPOSITORY:TAG, https:// or a folder. It holds NAME/VERSION/model.onnx.",
        show_default=False,
    ),
]
_Out = Annotated[Path, typer.Option(help="Folder of the model repository.")]
_Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME", help="Model to pull; repeatable.", show_default="all"),
]
_WatchS = Annotated[
    float | None,
    typer.Option(
        "--watch",
        min=1,
        metavar="SECONDS",
        help="Repeat the pull this long after each round, until SIGTERM.",
        show_default="pull once",
    ),
]
_Delete = Annotated[
    bool,
    typer.Option(
        "--delete", help="Remove the versions that came from SOURCE and are no longer there."
    ),
]
_VerifyKey = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Public key in PEM: refuse versions without a valid signature in model.sig.",
    ),
]
_RequireDigest = Annotated[
    bool,
    typer.Option("--require-digest", help="Refuse files that state no digest of themselves."),
]
_MaxVersions = Annotated[int, typer.Option(min=1, help="Most versions at the source.")]
_MaxFile = Annotated[int, typer.Option(min=1, help="Largest model file.")]
_MaxTotal = Annotated[int, typer.Option(min=1, help="Most bytes of all models together.")]
_Timeout = Annotated[
    float, typer.Option(min=1, metavar="SECONDS", help="Longest time for one round.")
]
_MaxFailures = Annotated[
    int,
    typer.Option(
        min=0, help="End --watch after this many failed rounds in a row; 0: try for ever."
    ),
]
_LogFormat = Annotated[
    Literal["console", "json"],
    typer.Option(metavar="FORMAT", help="Log of --watch: console, json."),
]


def _pull(
    source: _Source,
    out: _Out = Path("models"),
    model: _Models = None,
    watch_s: _WatchS = None,
    delete: _Delete = False,
    verify_key: _VerifyKey = None,
    require_digest: _RequireDigest = False,
    max_versions: _MaxVersions = _defaults.versions,
    max_file_bytes: _MaxFile = _defaults.file_bytes,
    max_total_bytes: _MaxTotal = _defaults.total_bytes,
    timeout: _Timeout = 3600,
    max_failures: _MaxFailures = 0,
    log_format: _LogFormat = "console",
) -> None:
    """Fetch models from a bucket, a hub, a registry, a web server or a folder.

    Fetches only what is new or has changed. A version becomes visible as a whole, once the digest
    in its card matches its file; an unusable one is refused with the reason, and the existing one
    stays. Interrupted downloads resume. The library of each kind of source finds its credentials,
    in the environment or in its own files.
    """
    wishes = Wishes(
        models=frozenset(model or ()),
        delete=delete,
        require_digest=require_digest,
        limits=Limits(max_versions, max_file_bytes, max_total_bytes),
    )
    try:
        signatures = Signatures.of(verify_key) if verify_key else None
        opened = open_source(source, out)
        if watch_s is None:
            code = _once(lambda b: Puller(opened, Place(out), wishes, signatures, b), timeout)
        else:
            configure_logging(log_format)
            structlog.get_logger().info("watching", source=opened.name, out=str(out))
            puller = Puller(opened, Place(out), wishes, signatures)
            watch = Watch(puller, watch_s, max_failures)
            code = watch.run(Deadline(timeout, lambda: _time_out(timeout)))
    except PullError as error:
        complain(str(error))
        code = error.exit_code
    raise typer.Exit(code)


def _once(new_puller: Callable[[Begin], Puller], timeout_s: float) -> int:
    """Do one round, with a progress bar, and print its outcomes; returns the exit code."""
    console = Console(stderr=True)
    columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    progress = Progress(
        *(TextColumn("{task.description}"), BarColumn(), *columns),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    shown: AbstractContextManager[object] = progress if console.is_terminal else nullcontext()

    def begin(version: str, size: int) -> Advance:
        task = progress.add_task(escape(version), total=size)

        def advance(count: int) -> None:
            progress.advance(task, count)
            progress.update(task, visible=not progress.tasks[task].finished)

        return advance

    with shown, Deadline(timeout_s, lambda: _time_out(timeout_s)):
        done = new_puller(begin).round()
    _print(done)
    return done.exit_code


def _print(done: Round) -> None:
    for path, why in done.passed_over.items():
        complain(f"passed over: {path}: {why}")
    for each in done.outcomes:
        if each.state in ("refused", "failed"):
            complain(f"{each.state}: {each.note}")
            continue
        size = f", {decimal(each.bytes)}" if each.bytes else ""
        note = f", {each.note}" if each.note else ""
        typer.echo(escaped(f"{each.version}: {each.state}{size}{note}"))


def _time_out(seconds: float) -> None:
    """End the process, whatever hangs: what has arrived is kept for the next one."""
    Console(stderr=True).show_cursor()  # the progress bar hides it
    complain(f"the pull took longer than --timeout {seconds:g}; what has arrived is kept")
    log.flush()
    os._exit(_TIMED_OUT)


def _end_on_signals(*, is_watch: bool) -> None:
    """End soon after SIGTERM or SIGINT; a watch ends with success then."""

    def stop(number: int, frame: FrameType | None) -> None:
        code = 0 if is_watch else 128 + number
        if is_watch:
            structlog.get_logger().info("stopped")
        threading.Thread(target=_end, args=(code,), daemon=True).start()
        raise SystemExit(code)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _end(code: int) -> None:
    time.sleep(_END_WITHIN_S)
    os._exit(code)


_app.command(help=flowing(_pull.__doc__))(_pull)


def main(args: list[str], prog: str = "python -m visavis_server.pull") -> int:
    """Run the command; returns its exit code."""
    # Messages of libraries may hold what is secret; errors are reported without.
    logging.getLogger().addHandler(logging.NullHandler())
    _end_on_signals(is_watch=any(each.partition("=")[0] == "--watch" for each in args))
    return run(_app, args, prog)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
