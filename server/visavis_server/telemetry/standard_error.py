"""Captures standard error while the server runs: every line written to it becomes a log entry.

Native libraries write to descriptor 2 directly: libpng writes untrusted bytes, gRPC a line for
each failed handshake. A pipe replaces the descriptor, and each line read from it becomes an entry.
Entries wait in a bounded queue for the one thread that writes them to the real standard error, so
that a blocked reader or a full disk loses entries and nothing else.
"""

import logging
import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

import structlog

from visavis_server.log import RateLimit, configure_logging
from visavis_server.process import reserve_standard_streams

_log = structlog.get_logger()

# The most bytes of entries that wait for the writer.
_MAX_WAITING_BYTES = 1 << 20
# How often the writer reports entries that were dropped or suppressed.
_REPORT_S = 2.0
# The time to write the last entries, once the server has stopped.
_FLUSH_S = 1.0
# A longer line becomes several entries.
_MAX_LINE_BYTES = 4096


@contextmanager
def captured(
    log_format: str, log_level: str, worker: int | None = None, colors: bool | None = None
) -> Iterator[None]:
    """Log to standard error, and log everything else written to it, Python's reports included.

    worker, colors: as in configure_logging.
    A closed standard stream is opened as /dev/null, so that no other file gets its number. Output
    of native code that crashes is lost: the process ends before it is read.
    """
    reserve_standard_streams()
    limit = RateLimit()
    real = os.dup(2)
    writer = _Writer(real, limit)
    if colors is None:
        colors = os.isatty(real)
    configure_logging(log_format, log_level, writer, limit, colors, worker)
    reading, writing = os.pipe()
    # A library must not block on a full pipe: its thread may hold Python's global lock, which the
    # pipe's reader needs.
    os.set_blocking(writing, False)
    os.dup2(writing, 2)
    os.close(writing)
    reader = threading.Thread(target=_read, args=(reading,), name="stderr", daemon=True)
    reader.start()
    try:
        with _reports():
            yield
    finally:
        os.dup2(
            real, 2
        )  # Closes the last writing end, so that the reader sees the end of the pipe.
        reader.join(_FLUSH_S)
        writer.close(_FLUSH_S)
        configure_logging(log_format, log_level)


class _Writer:
    """Writes entries in a thread, and counts those dropped because the queue is full."""

    def __init__(self, descriptor: int, limit: RateLimit) -> None:
        self._descriptor, self._limit = descriptor, limit
        self._queue: SimpleQueue[bytes | threading.Event | None] = SimpleQueue()
        # Reentrant: the garbage collector may log an entry in the middle of another.
        self._lock = threading.RLock()
        self._waiting_bytes = self._dropped = self._reporting = 0
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Queue an entry, if there is room."""
        data = text.encode("utf-8", "backslashreplace")
        own = threading.current_thread() is self._thread
        with self._lock:
            if self._waiting_bytes + len(data) > _MAX_WAITING_BYTES and not own:
                self._dropped += 1
                return
            self._waiting_bytes += len(data)
        self._queue.put(data)

    def flush(self, timeout_s: float) -> None:
        """Wait until every entry queued so far is written, at most timeout_s."""
        done = threading.Event()
        self._queue.put(done)
        done.wait(timeout_s)

    def close(self, timeout_s: float) -> None:
        """Write the remaining entries, report those dropped, and end; wait at most timeout_s."""
        self._queue.put(None)
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            os.close(self._descriptor)

    def _run(self) -> None:
        running = True
        while running:
            running = self._write_waiting()
            self._report(at_once=not running)
        self._write_waiting(0.0)  # what was reported just now

    def _write_waiting(self, wait_s: float = _REPORT_S) -> bool:
        """Wait for entries and write them; return False once the writer is closed."""
        entries: list[bytes] = []
        events: list[threading.Event] = []
        running = True
        try:
            item = self._queue.get(timeout=wait_s)
            while True:
                if item is None:
                    running = False
                elif isinstance(item, bytes):
                    entries.append(item)
                else:
                    events.append(item)
                item = self._queue.get_nowait()
        except Empty:
            pass
        if data := b"".join(entries):
            self._failing = not _write(self._descriptor, data)
            with self._lock:
                self._waiting_bytes -= len(data)
                if self._failing:
                    self._dropped += len(entries) + self._reporting
            self._reporting = 0
        for event in events:
            event.set()
        return running

    def _report(self, at_once: bool) -> None:
        for event, method, suppressed in self._limit.overdue(at_once):
            getattr(_log, method)("more of the same", of=event, suppressed=suppressed)
        with self._lock:
            if not self._dropped or self._failing:
                return
            self._reporting, self._dropped = self._dropped, 0
        _log.error("log entries dropped", number=self._reporting)


def _write(descriptor: int, data: bytes) -> bool:
    """Return True if all was written. Waits for a slow reader, but not for disk space."""
    try:
        while data:
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:  # Another process set it non-blocking, for all that share it.
                select.select([], [descriptor], [])
    except OSError:
        return False
    return True


def _read(descriptor: int) -> None:
    """Log each line, until the pipe's writing end is closed."""
    rest = b""
    while chunk := os.read(descriptor, 1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        while len(rest) >= _MAX_LINE_BYTES:
            lines.append(rest[:_MAX_LINE_BYTES])
            rest = rest[_MAX_LINE_BYTES:]
        for line in lines:
            _log_line(line)
    _log_line(rest)
    os.close(descriptor)


def _log_line(line: bytes) -> None:
    if text := line.decode("utf-8", "backslashreplace").strip():
        _log.warning("library wrote", text=text)


@contextmanager
def _reports() -> Iterator[None]:
    """Log Python's own reports: uncaught exceptions, warnings, and the records of `logging`."""
    root, forward = logging.getLogger(), _Forward(logging.WARNING)
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook

    def ended(*exception: Any) -> None:
        _log.critical("ended by an error", exc_info=exception)

    def thread_ended(report: threading.ExceptHookArgs) -> None:
        exception = (report.exc_type, report.exc_value, report.exc_traceback)
        name = report.thread.name if report.thread else None
        _log.error("thread ended by an error", thread=name, exc_info=exception)

    def unraisable(report: "sys.UnraisableHookArgs") -> None:
        exception = (report.exc_type, report.exc_value, report.exc_traceback)
        _log.error("error ignored", where=report.err_msg, exc_info=exception)

    sys.excepthook, threading.excepthook, sys.unraisablehook = ended, thread_ended, unraisable
    root.addHandler(forward)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(forward)
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


# gRPC reports a client that disconnects as an error of the server.
_HANG_UPS = ("ExecuteBatchError",)
# gRPC reports metadata that is not UTF-8 with its value, which may contain a token.
_METADATA = "Invalid encoding on %s"


class _Forward(logging.Handler):
    """Forwards the records of `logging` to the log."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0] if record.exc_info else None
        if kind is not None and kind.__name__ in _HANG_UPS:
            return
        if record.msg == _METADATA:
            _log.warning("library wrote", library=record.name, text="metadata is not UTF-8")
            return
        try:
            log = _log.error if record.levelno >= logging.ERROR else _log.warning
            text = record.getMessage()
            log("library wrote", library=record.name, text=text, exc_info=record.exc_info)
        except Exception:  # noqa: BLE001  as in every handler: the arguments may not match the text
            self.handleError(record)
