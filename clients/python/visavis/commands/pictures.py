"""Sends several pictures concurrently and prints the answers in order."""

import contextlib
import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import typer
from google.protobuf import json_format
from rich.console import RenderableType

from visavis.client import Client
from visavis.commands.annotations import Annotations
from visavis.commands.console import complain, plain, stdout
from visavis.commands.failures import exit_code, exit_codes, json_line, sentence
from visavis.commands.progress import Progress
from visavis.commands.serving import served
from visavis.dataset import chosen_pictures
from visavis.errors import (
    FieldViolation,
    InvalidRequest,
    InvalidSettings,
    ServerFailed,
    VisavisError,
)
from visavis.images import file_bytes
from visavis.peers import Peer, client_of
from visavis.results import ClassifyResult, Comparison, DetectResult

Answer: TypeAlias = ClassifyResult | DetectResult | Comparison
_A = TypeVar("_A", ClassifyResult, DetectResult, Comparison)

# Concurrent calls: enough to hide the network's latency, few enough to leave room for others.
_WINDOW = 4


@dataclass(frozen=True)
class Job:
    """The arguments that classify, detect and compare share."""

    pictures: list[str]
    server: str
    timeout: float
    json: bool
    annotate: str | None
    peers: tuple[Peer, ...] = ()
    repository: Path | None = None

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """Yield a client of the server, and of its peers if there are any."""
        with (
            served(self.server, self.repository) as server,
            client_of(server, self.peers, self.timeout) as client,
        ):
            yield client


def answer(
    job: Job,
    prepare: Callable[[Client], Callable[[bytes], _A]],
    table: Callable[[_A], RenderableType],
) -> None:
    """Print the answer for every picture; exit with the code of the first failure.

    prepare: takes the client and returns the function that sends one picture. A failed picture
    does not stop the others. If `prepare` fails, all pictures fail.
    """
    with exit_codes():
        if job.pictures.count("-") > 1:
            raise InvalidSettings("stdin (-) can be read only once")
        job = dataclasses.replace(job, pictures=_chosen(job.pictures))
        annotations = Annotations(job.annotate, job.pictures)
        first_failure: VisavisError | None = None
        # The client is closed before the executor: on Ctrl-C it cancels its calls, and the
        # executor's threads end at once.
        with (
            ThreadPoolExecutor(_WINDOW) as executor,
            job.client() as client,
            Progress(len(job.pictures)) as progress,
        ):
            send = _prepared(job, prepare, client)
            outcomes = _in_order(executor, lambda name: send(_encoded(name)), job.pictures)
            for name, future in zip(job.pictures, outcomes, strict=True):
                wait([future])
                with progress.paused():
                    try:
                        result = future.result()
                        written = annotations.write(name, result.annotated_image)
                        _print_answer(job, name, result, table, written)
                        failure = _without_answer(result)
                    except VisavisError as error:
                        _print_failure(job, name, error)
                        failure = error
                    first_failure = first_failure or failure
        if first_failure:
            raise typer.Exit(exit_code(first_failure))


def _chosen(names: list[str]) -> list[str]:
    """Return the names with each folder replaced by the pictures in it."""
    chosen: list[str] = []
    for name in names:
        # Other names stay exactly as typed.
        if name != "-" and Path(name).is_dir():
            chosen += map(str, chosen_pictures([Path(name)]))
        else:
            chosen.append(name)
    return chosen


def _prepared(
    job: Job, prepare: Callable[[Client], Callable[[bytes], _A]], client: Client
) -> Callable[[bytes], _A]:
    try:
        return prepare(client)
    except VisavisError as error:
        if job.json:
            for _ in job.pictures:
                _print_line(json_line(error))
        raise


def _in_order(
    executor: ThreadPoolExecutor, function: Callable[[str], _A], names: Iterable[str]
) -> Iterator[Future[_A]]:
    pending: deque[Future[_A]] = deque()
    for name in names:
        if len(pending) == _WINDOW:
            yield pending.popleft()
        pending.append(executor.submit(function, name))
    yield from pending


def _encoded(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else file_bytes(name)
    except OSError as error:
        message = f"can't read the picture: {error.strerror or error}"
        raise InvalidRequest(message, violations=(FieldViolation("image", message),)) from error


def _without_answer(result: Answer) -> VisavisError | None:
    """Return an error for a comparison in which no model answered; otherwise None."""
    if not isinstance(result, Comparison):
        return None
    answers = [answer for task in result.comparisons for answer in task.answers]
    if not answers or any(answer.status.ok for answer in answers):
        return None
    return ServerFailed("no model answered")


def _print_answer(
    job: Job,
    name: str,
    result: _A,
    table: Callable[[_A], RenderableType],
    written: Path | None,
) -> None:
    if job.json:
        message = result.message
        message.ClearField("annotated_image")  # It would be megabytes of base64.
        _print_line(
            json_format.MessageToJson(
                message, always_print_fields_with_no_presence=True, indent=None
            )
        )
        return
    console = stdout()
    console.print(plain(_title(name)), style="bold", soft_wrap=True)
    console.print(table(result))
    if written:
        drawn = f"Annotated picture: {plain(str(written))}{_shrunk(result)}\n"
        console.print(drawn, soft_wrap=True)


def _shrunk(result: Answer) -> str:
    """Return a note if the server shrank the annotated picture; otherwise an empty string."""
    drawing, whole = result.annotated_image, result.image_size
    if isinstance(result, Comparison) or drawing is None or drawing.size in (None, whole):
        return ""
    return (
        f" (shrunk from {whole.width} × {whole.height} to {drawing.size.width} × "
        f"{drawing.size.height} px by the server's max_annotated_bytes)"
    )


def _print_failure(job: Job, name: str, error: VisavisError) -> None:
    if job.json:
        _print_line(json_line(error))
    complain(sentence(error), about=_title(name))


def _print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _title(name: str) -> str:
    return "stdin" if name == "-" else name
