"""Where the time of a call went, for whoever traces it: the seam between models and tracers."""

from contextvars import ContextVar
from typing import Protocol

from visavis_server.telemetry.timings import Timings


class Trace(Protocol):
    """One call that is traced."""

    def stages(self, timings: Timings, **about: str | int) -> None:
        """Note the stages of something that has just ended; about: what it was."""
        ...


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def begin(trace: Trace) -> None:
    """Let all that this task does from now on belong to a trace."""
    _current.set(trace)


def note(timings: Timings, **about: str | int) -> None:
    """Note the stages of something that has just ended, if its call is traced."""
    if (trace := _current.get()) is not None:
        trace.stages(timings, **about)
