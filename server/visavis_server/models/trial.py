"""Tries model files in a separate process before the server loads them.

A file may hang the process that loads it, use up its memory, or crash ONNX Runtime. In a trial only
the trial's process fails, and the server learns which file it was. This module imports little: the
first trial starts while the server is still importing its modules.
"""

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Protocol

from visavis_server.errors import CannotLoadNow, ModelFileError
from visavis_server.models.model_files import ModelFile

# For Python and its imports on a busy machine.
_START_S = 60.0
# Between the end of a process's output and its exit.
_END_S = 1.0
# A verdict is one line; longer lines are invalid.
_MOST_LINE_BYTES = 1 << 16
_KILLED = -9


class Verdicts(Protocol):
    """The findings of trials."""

    def verdict(self, file: ModelFile) -> Future[str]:
        """Return a future of the identity of the file that was tried, or of the error."""
        ...

    def stop(self) -> None:
        """Try no more files."""
        ...


class Trial:
    """Tries files one after another.

    A file that ends the process is refused, and a new process tries the rest. The process starts
    at once, and imports take most of its time: create the trial early, and call
    `begin` later. polite: run at a low priority. Raises CannotLoadNow if no process can be started.
    """

    def __init__(self, *, polite: bool = False) -> None:
        self._polite = polite
        self._begun = threading.Event()
        self._left: list[ModelFile] = []
        self._timeout_s = 0.0
        self._verdicts: dict[ModelFile, Future[str]] = {}
        self._stopped = False
        self._lock = threading.Lock()
        # In the calling thread: while it imports, a new thread would get to run late.
        self._process = _started(polite)
        threading.Thread(target=self._run, name="trial", daemon=True).start()

    def begin(self, files: Iterable[ModelFile], timeout_s: float) -> None:
        """Try these files; called once. timeout_s: for each file."""
        self._left = list(files)
        self._timeout_s = timeout_s
        self._verdicts = {file: Future() for file in self._left}
        self._begun.set()

    def verdict(self, file: ModelFile) -> Future[str]:
        """Return a future of the identity of the file that was tried.

        It raises ModelFileError if the file can't be served, CannotLoadNow if the cause may be
        transient.
        """
        if file not in self._verdicts:
            raise CannotLoadNow(f"{file.path}: the file was added while the server was starting")
        return self._verdicts[file]

    def stop(self) -> None:
        """Kill the process and cancel the outstanding verdicts."""
        with self._lock:
            self._stopped = True
            self._process.kill()
        for verdict in self._verdicts.values():
            verdict.cancel()
        self._begun.set()

    def _run(self) -> None:
        self._listen(self._process)
        while self._left and not self._stopped:
            try:
                with self._lock:
                    if self._stopped:
                        return
                    self._process = _started(self._polite)
            except CannotLoadNow as error:
                self._refuse(error)
            else:
                self._listen(self._process)

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Record verdicts until the process ends or must be killed."""
        assert process.stdout is not None
        lines = _Lines(process.stdout.fileno())
        try:
            self._begun.wait()
            _order(process, self._left)
            if not self._left:
                return
            if lines.next(max(_START_S, self._timeout_s)) is None:
                self._refuse(
                    CannotLoadNow(f"the trial process ended {_ending(process)} before it started")
                )
                return
            while self._left:
                line = lines.next(self._timeout_s)
                if line is None:
                    self._refuse(self._why(process, lines))
                    return
                if not self._note(line):
                    return
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def _note(self, line: str) -> bool:
        """Record one verdict; returns False if the line is not a verdict."""
        try:
            verdict_fields = json.loads(line)
            identity, error = verdict_fields.get("identity"), None
            if identity is None:
                error = KINDS[verdict_fields["kind"]](verdict_fields["why"])
        except (ValueError, KeyError, AttributeError):
            self._refuse(ModelFileError("the trial process wrote an invalid verdict"))
            return False
        if error is not None:
            self._refuse(error)
        else:
            verdict = self._verdicts[self._left.pop(0)]
            if verdict.set_running_or_notify_cancel():
                verdict.set_result(identity)
        return True

    def _refuse(self, error: ModelFileError) -> None:
        """Fail the verdict of the current file with an error that names the file."""
        file = self._left.pop(0)
        if str(file.path) not in str(error):
            error = type(error)(f"{file.path}: {error}")
        verdict = self._verdicts[file]
        if verdict.set_running_or_notify_cancel():
            verdict.set_exception(error)

    def _why(self, process: subprocess.Popen[bytes], lines: "_Lines") -> ModelFileError:
        if lines.too_long:
            return ModelFileError("the trial process wrote too much")
        if lines.ended:
            ending = _ending(process)
            # Killed, most likely by the kernel for lack of memory.
            kind = CannotLoadNow if process.returncode == _KILLED else ModelFileError
            return kind(f"the process that loaded it ended {ending}")
        return CannotLoadNow(f"it did not load and warm up within {self._timeout_s:g} s")


def try_one(file: ModelFile, timeout_s: float) -> Trial:
    """Return a trial of one file, at a low priority. Raises CannotLoadNow."""
    trial = Trial(polite=True)
    trial.begin([file], timeout_s)
    return trial


KINDS = {kind.__name__: kind for kind in (ModelFileError, CannotLoadNow)}
"""The errors of a verdict, by the names that are sent for them."""


class _Lines:
    """Reads the lines of a process with a timeout each; ended: True at the end of the output."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._read = b""
        self.ended = self.too_long = False

    def next(self, timeout_s: float) -> str | None:
        """Return the next line; None after the timeout, at the end, or if it is too long."""
        end = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            while b"\n" not in self._read:
                if len(self._read) > _MOST_LINE_BYTES:
                    self.too_long = True
                    return None
                if not selector.select(max(0.0, end - time.monotonic())):
                    return None
                chunk = os.read(self._descriptor, _MOST_LINE_BYTES)
                if not chunk:
                    self.ended = True
                    return None
                self._read += chunk
        line, _, self._read = self._read.partition(b"\n")
        return line.decode(errors="replace")


def _started(polite: bool) -> subprocess.Popen[bytes]:
    """Return a process that will try files; -P: it imports nothing from the working directory.

    Raises CannotLoadNow if the process can't be started.
    """
    command = [
        sys.executable,
        "-P",
        "-m",
        "visavis_server.models.trial_process",
        *(["polite"] if polite else []),
    ]
    # Not the loop's: uvloop forks, which runs gRPC's fork handlers, and they may crash.
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError as error:
        raise CannotLoadNow(f"can't start a process to try models ({error})") from None


def _order(process: subprocess.Popen[bytes], files: list[ModelFile]) -> None:
    """Send a process the files to try."""
    assert process.stdin is not None
    names = [(file.name, file.version, str(file.path)) for file in files]
    # If the process has already ended, reading its output finds out.
    with suppress(BrokenPipeError), process.stdin:
        process.stdin.write(json.dumps(names).encode())


def _ending(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(_END_S)
    except subprocess.TimeoutExpired:
        return "its output but not itself"
    return f"by signal {-code}" if code < 0 else f"with exit code {code}"
