"""The calls under way, on all listeners."""

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import structlog

_log = structlog.get_logger()

REQUEST_ID = "x-request-id"
"""The header with a request's id, in responses and optionally in requests."""

Record = Callable[[str, str, str, float], None]
"""Records a finished call: listener, method, code, seconds."""

Around = Callable[[str, "Call", Mapping[str, Any]], AbstractContextManager[None]]
"""Returns a context around a watched call: listener, call, its headers."""

_SAFE_ID = re.compile(r"[0-9A-Za-z._-]{1,64}")


@dataclass(slots=True)
class Call:
    """One call; code: its status."""

    method: str
    request_id: str
    # The default, as a cancelled call raises nothing that could be caught.
    code: str = "CANCELLED"
    began: float = field(default_factory=time.monotonic)


class Calls:
    """Counts the calls under way, and waits for the last one to end.

    record: called when a call ends. log_calls: log each call. around: a context for each call, for
    example a trace.
    """

    def __init__(
        self, record: Record, log_calls: bool = False, around: Around | None = None
    ) -> None:
        self._stopping = asyncio.Event()
        self._around: Around = around or (lambda listener, call, headers: nullcontext())
        self._record = record
        self._log_calls = log_calls
        self._under_way = 0
        self._none_under_way = asyncio.Event()

    @property
    def stopping(self) -> bool:
        """True if new calls are rejected."""
        return self._stopping.is_set()

    async def until_stopping(self) -> None:
        """Wait until new calls are rejected."""
        await self._stopping.wait()

    async def finish(self) -> None:
        """Reject new calls from now on, and wait until those under way have ended."""
        self._stopping.set()
        if self._under_way:
            await self._none_under_way.wait()

    @contextmanager
    def under_way(
        self,
        listener: str,
        method: str,
        request_id: str,
        headers: Mapping[str, Any],
        watched: bool = True,
    ) -> Iterator[Call]:
        """Count a call while the context is open; watched: the server waits for it to end."""
        call = Call(method, request_id)
        self._under_way += watched
        # Bound to the task of the call, which ends with it.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        around = self._around(listener, call, headers) if watched else nullcontext()
        try:
            with around:
                yield call
        finally:
            self._under_way -= watched
            if self.stopping and not self._under_way:
                self._none_under_way.set()
            seconds = time.monotonic() - call.began
            self._record(listener, method, call.code, seconds)
            if self._log_calls:
                ms = round(seconds * 1e3, 1)
                _log.debug(
                    "call",
                    door=listener,
                    method=method,
                    code=call.code,
                    request_id=request_id,
                    ms=ms,
                )


def request_id_of(header: object) -> str:
    """Return the client's request id if it is safe to log, otherwise a new one."""
    if isinstance(header, str) and _SAFE_ID.fullmatch(header):
        return header
    return secrets.token_hex(16)


async def cancel(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait for them to end; their results and errors are dropped."""
    cancelled = list(tasks)
    for task in cancelled:
        task.cancel()
    await asyncio.gather(*cancelled, return_exceptions=True)
