"""The interface between models, which report timings, and the tracer of the current call."""

from contextvars import ContextVar
from typing import Protocol

from visavis_server.telemetry.timings import Timings


class Trace(Protocol):
    """One traced call."""

    def stages(self, timings: Timings, **about: str | int) -> None:
        """Record the stages of an operation that has just ended; about: its attributes."""
        ...


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def begin(trace: Trace) -> None:
    """Assign everything that this task does from now on to a trace."""
    _current.set(trace)


def note(timings: Timings, **about: str | int) -> None:
    """Record the stages of an operation that has just ended, if its call is traced."""
    if (trace := _current.get()) is not None:
        trace.stages(timings, **about)
