"""Structured logs: one entry for each event, none of them forged, and no flood of them."""

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
# Entries are nested no deeper, and a traceback is no longer.
_MAX_DEPTH = 4
_MAX_ITEMS = 100
_MAX_TRACEBACK_LINES = 100
_MAX_TRACEBACK_CHARACTERS = 16 << 10


class Output(Protocol):
    """Where entries go. Neither method raises."""

    def write(self, text: str) -> None:
        """Take one entry, its line break included."""

    def flush(self, timeout_s: float) -> None:
        """Return when everything taken is written, or after a time."""


def configure_logging(
    log_format: str,
    log_level: str = "info",
    output: Output | None = None,
    limit: "RateLimit | None" = None,
    colors: bool | None = None,
) -> None:
    """Write logs for a person ("console") or a machine ("json").

    output: None: standard error. limit: on repeated warnings and errors. colors: None: where
    standard error is a terminal.
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
            # Not rich's: it prints local variables, and so images.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *([limit] if limit else []),
            structlog.processors.format_exc_info,
            # Behind the margin, no line of a traceback reads as an entry.
            _Plain(margin="" if is_json else "  | "),
            structlog.processors.TimeStamper(fmt="iso" if is_json else "%H:%M:%S"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[log_level]),
        logger_factory=_Logger,
    )


def flush(timeout_s: float = 1.0) -> None:
    """Return when every entry is written, or after a time; before what ends the process at once."""
    _output.flush(timeout_s)


class _Logger:
    """Passes rendered entries on, without a lock as structlog's own hold one.

    An entry may be logged by the garbage collector, in the middle of another.
    """

    def __init__(self, *_: object) -> None:
        pass

    def msg(self, text: str) -> None:
        _output.write(f"{text}\n")

    debug = info = warning = error = critical = msg


class _StandardError:
    """Standard error, for as long as it can be written to: a full disk must not end a call."""

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError, AttributeError):  # it is full, closed, was never there
            sys.stderr.write(text)
            sys.stderr.flush()

    def flush(self, timeout_s: float) -> None:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()


_output: Output = _StandardError()


class _Plain:
    """Makes every key, value and traceback of an entry printable, and bounds its size."""

    def __init__(self, margin: str) -> None:
        self._margin = margin

    def __call__(self, logger: Any, method: str, entry: Entry) -> Entry:
        traceback = entry.pop("exception", None)
        plain: Entry = {escaped(str(key)): _plain(value) for key, value in entry.items()}
        if traceback is not None:
            plain["exception"] = self._traceback(str(traceback))
        return plain

    def _traceback(self, text: str) -> str:
        # The end says what was wrong.
        lines = text[-_MAX_TRACEBACK_CHARACTERS:].split("\n")[-_MAX_TRACEBACK_LINES:]
        return "\n".join(self._margin + escaped(line) for line in lines)


def _plain(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return escaped(str(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 64 else escaped(hex(value))  # str() may refuse it
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
    except Exception:  # noqa: BLE001  its own: what is logged must not end a call
        return f"<{type(value).__name__}>"


class RateLimit:
    """Passes some of the warnings and errors of each kind in a window of time, and counts the rest.

    An entry passes if its event did so less than `per_event` times in this window, and never for
    the same reason (`why`, `model`). How many were left out is said by the event's first entry
    in a later window, or by what `overdue` returns.
    """

    def __init__(
        self,
        per_event: int = 50,
        window_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_event, self._window_s, self._clock = per_event, window_s, clock
        # An entry may be logged by the garbage collector, in the middle of another.
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
        """Return the events whose windows have ended, their level, how many were left out.

        at_once: those whose windows have not ended too.
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
