"""Tries model files in a process of their own, before this one loads them.

A file may hang the process that loads it, take all memory, or crash ONNX Runtime. Then that
process ends, and this one knows which file it was. It imports little: the first trial begins while
the server is still importing.
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

from visavis_server.errors import CannotLoadNow, ModelFileError
from visavis_server.models.model_files import ModelFile

# For Python and its imports, on a machine that is busy.
_START_S = 60.0
# Between the end of what a process says and its own.
_END_S = 1.0
# A verdict is one line; a longer one is no verdict.
_MOST_LINE_BYTES = 1 << 16
_KILLED = -9


class Trial:
    """Tries files one after another; one that ends the process is refused, the rest tried anew.

    The process starts at once, and its imports take longest: make it early, `begin` it later.
    polite: whether other processes come first. Raises CannotLoadNow if no process can be started.
    """

    def __init__(self, *, polite: bool = False) -> None:
        self._polite = polite
        self._begun = threading.Event()
        self._left: list[ModelFile] = []
        self._timeout_s = 0.0
        self._verdicts: dict[ModelFile, Future[str]] = {}
        self._stopped = False
        self._lock = threading.Lock()
        # By the calling thread: beside imports another one gets to run late.
        self._process = _started(polite)
        threading.Thread(target=self._run, name="trial", daemon=True).start()

    def begin(self, files: Iterable[ModelFile], timeout_s: float) -> None:
        """Try these files, once; timeout_s: for each."""
        self._left = list(files)
        self._timeout_s = timeout_s
        self._verdicts = {file: Future() for file in self._left}
        self._begun.set()

    def verdict(self, file: ModelFile) -> Future[str]:
        """Return what will hold the identity of what was tried and can be served.

        It raises ModelFileError if the file can't be served; CannotLoadNow if that may change.
        """
        if file not in self._verdicts:
            raise CannotLoadNow(f"{file.path}: it came while the server was starting")
        return self._verdicts[file]

    def stop(self) -> None:
        """End the process; what has no verdict by then gets none."""
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
        """Note verdicts until the process has ended, or has to be."""
        assert process.stdout is not None
        lines = _Lines(process.stdout.fileno())
        try:
            self._begun.wait()
            _order(process, self._left)
            if not self._left:
                return
            if lines.next(max(_START_S, self._timeout_s)) is None:
                self._refuse(CannotLoadNow(f"its trial ended {_ending(process)} before it began"))
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
        """Note one verdict; say whether it was one."""
        try:
            said = json.loads(line)
            identity, error = said.get("identity"), None
            if identity is None:
                error = _KINDS[said["kind"]](said["why"])
        except (ValueError, KeyError, AttributeError):
            self._refuse(ModelFileError("its loading says what is no verdict"))
            return False
        if error is not None:
            self._refuse(error)
        else:
            verdict = self._verdicts[self._left.pop(0)]
            if verdict.set_running_or_notify_cancel():
                verdict.set_result(identity)
        return True

    def _refuse(self, error: ModelFileError) -> None:
        """Let the file whose turn it is have an error that names it."""
        file = self._left.pop(0)
        if str(file.path) not in str(error):
            error = type(error)(f"{file.path}: {error}")
        verdict = self._verdicts[file]
        if verdict.set_running_or_notify_cancel():
            verdict.set_exception(error)

    def _why(self, process: subprocess.Popen[bytes], lines: "_Lines") -> ModelFileError:
        if lines.too_long:
            return ModelFileError("its loading says too much")
        if lines.ended:
            ending = _ending(process)
            # The kernel kills what takes the last of the memory.
            kind = CannotLoadNow if process.returncode == _KILLED else ModelFileError
            return kind(f"its loading ended {ending}")
        return CannotLoadNow(f"it was not loaded and warmed up within {self._timeout_s:g} s")


_KINDS = {kind.__name__: kind for kind in (ModelFileError, CannotLoadNow)}


class _Lines:
    """Lines that a process writes, each within a time; ended: whether there come no more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._read = b""
        self.ended = self.too_long = False

    def next(self, timeout_s: float) -> str | None:
        """Return the next line; None if there is none in time, none any more, or it has no end."""
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
    """Return a process that will try files; it finds no modules in the working folder.

    Raises CannotLoadNow if the system starts none.
    """
    command = [
        sys.executable,
        "-P",
        "-m",
        "visavis_server.models.trial_process",
        *(["polite"] if polite else []),
    ]
    # Python's own, whatever the loop: another way to begin a process runs what gRPC has to do
    # before and after a fork, and that may crash.
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError as error:
        raise CannotLoadNow(f"no process can be started to try models ({error})") from None


def _order(process: subprocess.Popen[bytes], files: list[ModelFile]) -> None:
    """Tell a process which files it is to try."""
    assert process.stdin is not None
    names = [(file.name, file.version, str(file.path)) for file in files]
    # If it has ended already, what it doesn't say tells.
    with suppress(BrokenPipeError), process.stdin:
        process.stdin.write(json.dumps(names).encode())


def _ending(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(_END_S)
    except subprocess.TimeoutExpired:
        return "without an end"
    return f"by signal {-code}" if code < 0 else f"with exit code {code}"
