"""The caller of a request, whichever listener the request arrived at."""

import time
from typing import Protocol

from visavis_server.runtime.scheduling.work import Caller


class Context(Protocol):
    """The part of a call's transport that services use."""

    def time_remaining(self) -> float | None:
        """Return the seconds until the call's deadline; None: the call has no deadline."""
        ...


def caller_of(method: str, context: Context, timeout_s: float | None = None) -> Caller:
    """Return the caller, with the earlier of the call's deadline and the request's timeout.

    timeout_s: the timeout in the request itself; None: the request has no timeout.
    """
    remaining_s = context.time_remaining()
    if remaining_s is None or (timeout_s is not None and timeout_s < remaining_s):
        remaining_s = timeout_s
    return Caller(method, None if remaining_s is None else time.monotonic() + remaining_s)
