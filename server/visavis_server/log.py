"""Structured logging, safe against forged entries and limited in rate."""

import logging
import math
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from visavis_server.plain_text import escaped

Entry = MutableMapping[str, Any]

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
# The limits of an entry's nesting and size.
_MAX_DEPTH = 4
_MAX_ITEMS = 100
_MAX_TRACEBACK_LINES = 100
_MAX_TRACEBACK_CHARACTERS = 16 << 10


class Output(Protocol):
    """A destination of log entries. Neither method raises."""

    def write(self, text: str) -> None:
        """Write one entry, which ends in a line break."""

    def flush(self, timeout_s: float) -> None:
        """Return when every entry is written, or after the timeout."""


def configure_logging(
    log_format: str,
    log_level: str = "info",
    output: Output | None = None,
    limit: "RateLimit | None" = None,
    colors: bool | None = None,
    worker: int | None = None,
) -> None:
    """Write logs for people ("console") or machines ("json").

    output: None: standard error. limit: on repeated warnings and errors. colors: None: if standard
    error is a terminal. worker: the number of this process, for every entry; None: it is the only
    one.
    """
    global _output
    _output = output or _StandardError()
    is_json = log_format == "json"
    if colors is None:
        colors = sys.stderr is not None and sys.stderr.isatty()
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if is_json
        else structlog.dev.ConsoleRenderer(
            colors=colors,
            pad_event_to=12,
            # Not rich's, which prints local variables, such as images.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *([_Worker(worker)] if worker is not None else []),
            structlog.processors.add_log_level,
            *([limit] if limit else []),
            structlog.processors.format_exc_info,
            # The margin keeps lines of a traceback from looking like entries.
            _Plain(margin="" if is_json else "  | "),
            structlog.processors.TimeStamper(fmt="iso" if is_json else "%H:%M:%S"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[log_level]),
        logger_factory=_Logger,
    )


def flush(timeout_s: float = 1.0) -> None:
    """Return when every entry is written, or after the timeout; call it before os._exit."""
    _output.flush(timeout_s)


def relay(text: str) -> None:
    """Write entries that another process of the server has rendered."""
    _output.write(text)


class _Worker:
    """Adds the worker's number to entries."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __call__(self, logger: Any, method: str, entry: Entry) -> Entry:
        """Return the entry; structlog calls this."""
        entry["worker"] = self._number
        return entry


class _Logger:
    """Passes rendered entries on. Unlike structlog's loggers it holds no lock.

    The garbage collector may log an entry in the middle of another.
    """

    def __init__(self, *_: object) -> None:
        pass

    def msg(self, text: str) -> None:
        _output.write(f"{text}\n")

    debug = info = warning = error = critical = msg


class _StandardError:
    """Writes to standard error and ignores failures: a full disk must not fail a call."""

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError, AttributeError):  # full, closed, or missing
            sys.stderr.write(text)
            sys.stderr.flush()

    def flush(self, timeout_s: float) -> None:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()


_output: Output = _StandardError()


class _Plain:
    """Makes every key, value and traceback of an entry printable and limits its size."""

    def __init__(self, margin: str) -> None:
        self._margin = margin

    def __call__(self, logger: Any, method: str, entry: Entry) -> Entry:
        traceback = entry.pop("exception", None)
        plain: Entry = {escaped(str(key)): _plain(value) for key, value in entry.items()}
        if traceback is not None:
            plain["exception"] = self._traceback(str(traceback))
        return plain

    def _traceback(self, text: str) -> str:
        # The end of a traceback holds the error.
        lines = text[-_MAX_TRACEBACK_CHARACTERS:].split("\n")[-_MAX_TRACEBACK_LINES:]
        return "\n".join(self._margin + escaped(line) for line in lines)


def _plain(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return escaped(str(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 64 else escaped(hex(value))  # str() rejects huge integers
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no NaN
    if isinstance(value, bytes | bytearray):
        return escaped(value.decode("utf-8", "backslashreplace"))
    if depth < _MAX_DEPTH and isinstance(value, dict):
        items = list(value.items())[:_MAX_ITEMS]
        return {escaped(str(key)): _plain(each, depth + 1) for key, each in items}
    if depth < _MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [_plain(each, depth + 1) for each in list(value)[:_MAX_ITEMS]]
    try:
        return escaped(str(value))
    except Exception:  # noqa: BLE001  of its __str__: logging must not fail a call
        return f"<{type(value).__name__}>"


class RateLimit:
    """Limits the warnings and errors of each event per window of time, and counts the dropped ones.

    An entry passes if fewer than `per_event` entries of its event have passed in this window, none
    of them with the same reason (`why`, `model`). The number of dropped entries is reported with
    the event's first entry in a later window, or by `overdue`.
    """

    def __init__(
        self,
        per_event: int = 50,
        window_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_event, self._window_s, self._clock = per_event, window_s, clock
        # Reentrant: the garbage collector may log an entry in the middle of another.
        self._lock = threading.RLock()
        self._windows: dict[str, _Window] = {}

    def __call__(self, logger: Any, method: str, entry: Entry) -> Entry:
        """Return the entry, or raise structlog.DropEvent."""
        if method in ("debug", "info"):
            return entry
        event, reason = str(entry["event"]), (str(entry.get("why")), str(entry.get("model")))
        with self._lock:
            window = self._windows.get(event)
            if window is None or self._clock() >= window.ends:
                if window and window.suppressed:
                    entry["suppressed"] = window.suppressed
                window = self._windows[event] = _Window(self._clock() + self._window_s)
            if window.passed >= self._per_event or ("why" in entry and reason in window.reasons):
                window.suppressed += 1
                window.method = method
                raise structlog.DropEvent
            window.passed += 1
            window.reasons.add(reason)
        return entry

    def overdue(self, at_once: bool = False) -> list[tuple[str, str, int]]:
        """Return each event whose window has ended, with its level and its dropped entries.

        at_once: include events whose windows have not ended.
        """
        with self._lock:
            ended = [e for e, w in self._windows.items() if at_once or self._clock() >= w.ends]
            windows = [(event, self._windows.pop(event)) for event in ended]
        return [(event, w.method, w.suppressed) for event, w in windows if w.suppressed]


@dataclass(slots=True)
class _Window:
    ends: float
    method: str = "warning"
    passed: int = 0
    suppressed: int = 0
    reasons: set[tuple[str, str]] = field(default_factory=set)
