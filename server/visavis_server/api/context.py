"""What services ask of a call, whichever door it came through."""

import time
from typing import Protocol

from visavis_server.runtime.scheduling.work import Caller


class Context(Protocol):
    """A call, as its door sees it."""

    def time_remaining(self) -> float | None:
        """Return how many seconds the caller still waits; None: as long as it takes."""
        ...


def caller_of(method: str, context: Context, timeout_s: float | None = None) -> Caller:
    """Return on whose behalf work is done.

    timeout_s: what the request itself allows; None: it says nothing.
    """
    remaining_s = context.time_remaining()
    if remaining_s is None or (timeout_s is not None and timeout_s < remaining_s):
        remaining_s = timeout_s
    return Caller(method, None if remaining_s is None else time.monotonic() + remaining_s)
