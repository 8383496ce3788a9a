"""Standard error while the server runs: everything that reaches it is an entry of the log.

Native libraries write to descriptor 2 by themselves: libpng a stranger's bytes, gRPC a line for
each failed handshake. A pipe takes its place, and each line read from it becomes an entry. Entries
wait in a bounded queue for the one thread that writes them to the real standard error: a reader
that does not read, or a full disk, costs entries and nothing else.
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

# Entries that wait for the writer.
_MAX_WAITING_BYTES = 1 << 20
# How often the writer looks whether there is something to tell about entries left out.
_TELL_S = 2.0
# For the last entries, once the server has stopped.
_FLUSH_S = 1.0
# Of what a library writes at once; a longer line becomes several entries.
_MAX_LINE_BYTES = 4096


@contextmanager
def captured(log_format: str, log_level: str) -> Iterator[None]:
    """Log to standard error, and log what others write to it, Python's own reports included.

    A standard stream that is closed is /dev/null from now on, so that no file gets its number.
    What native code writes as it crashes is lost: the process ends before it is read.
    """
    reserve_standard_streams()
    limit = RateLimit()
    real = os.dup(2)
    writer = _Writer(real, limit)
    configure_logging(log_format, log_level, writer, limit, colors=os.isatty(real))
    reading, writing = os.pipe()
    # A library that writes more at once than the pipe holds must not wait: its thread may hold
    # Python's lock, and the pipe's reader needs that.
    os.set_blocking(writing, False)
    os.dup2(writing, 2)
    os.close(writing)
    reader = threading.Thread(target=_read, args=(reading,), name="stderr", daemon=True)
    reader.start()
    try:
        with _reports():
            yield
    finally:
        os.dup2(real, 2)  # The pipe has no writer now, and so an end.
        reader.join(_FLUSH_S)
        writer.close(_FLUSH_S)
        configure_logging(log_format, log_level)


class _Writer:
    """Writes entries on a thread of its own; those that find no room are counted."""

    def __init__(self, descriptor: int, limit: RateLimit) -> None:
        self._descriptor, self._limit = descriptor, limit
        self._queue: SimpleQueue[bytes | threading.Event | None] = SimpleQueue()
        # An entry may be logged by the garbage collector, in the middle of another.
        self._lock = threading.RLock()
        self._waiting_bytes = self._dropped = self._telling = 0
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Take an entry, if there is room."""
        data = text.encode("utf-8", "backslashreplace")
        own = threading.current_thread() is self._thread
        with self._lock:
            if self._waiting_bytes + len(data) > _MAX_WAITING_BYTES and not own:
                self._dropped += 1
                return
            self._waiting_bytes += len(data)
        self._queue.put(data)

    def flush(self, timeout_s: float) -> None:
        """Return when every entry taken so far is written, or after a time."""
        done = threading.Event()
        self._queue.put(done)
        done.wait(timeout_s)

    def close(self, timeout_s: float) -> None:
        """Tell what was left out, write what waits, and end; give up after a time."""
        self._queue.put(None)
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            os.close(self._descriptor)

    def _run(self) -> None:
        going = True
        while going:
            going = self._write_waiting()
            self._tell(at_once=not going)
        self._write_waiting()

    def _write_waiting(self) -> bool:
        """Write what waits, if need be after a moment; returns False if that was the end."""
        entries: list[bytes] = []
        events: list[threading.Event] = []
        going = True
        try:
            item = self._queue.get(timeout=_TELL_S)
            while True:
                if item is None:
                    going = False
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
                    self._dropped += len(entries) + self._telling
            self._telling = 0
        for event in events:
            event.set()
        return going

    def _tell(self, at_once: bool) -> None:
        for event, method, suppressed in self._limit.overdue(at_once):
            getattr(_log, method)("more of the same", of=event, suppressed=suppressed)
        with self._lock:
            if not self._dropped or self._failing:
                return
            self._telling, self._dropped = self._dropped, 0
        _log.error("log entries dropped", number=self._telling)


def _write(descriptor: int, data: bytes) -> bool:
    """Return whether all could be written; waits for a reader, not for room on a disk."""
    try:
        while data:
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:  # Another process made it so for all who share it.
                select.select([], [descriptor], [])
    except OSError:
        return False
    return True


def _read(descriptor: int) -> None:
    """Log each line, until nobody can write any more."""
    rest = b""
    while chunk := os.read(descriptor, 1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        while len(rest) >= _MAX_LINE_BYTES:
            lines.append(rest[:_MAX_LINE_BYTES])
            rest = rest[_MAX_LINE_BYTES:]
        for line in lines:
            _say(line)
    _say(rest)
    os.close(descriptor)


def _say(line: bytes) -> None:
    if text := line.decode("utf-8", "backslashreplace").strip():
        _log.warning("library wrote", text=text)


@contextmanager
def _reports() -> Iterator[None]:
    """Let Python's own reports be entries: exceptions nobody caught, warnings, `logging`."""
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


# gRPC reports a client that hangs up as an error of the server.
_HANG_UPS = ("ExecuteBatchError",)


class _Forward(logging.Handler):
    """Makes an entry of what a library gives to `logging`."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0] if record.exc_info else None
        if kind is not None and kind.__name__ in _HANG_UPS:
            return
        try:
            log = _log.error if record.levelno >= logging.ERROR else _log.warning
            text = record.getMessage()
            log("library wrote", library=record.name, text=text, exc_info=record.exc_info)
        except Exception:  # noqa: BLE001  as every handler: its arguments may not fit its text
            self.handleError(record)
