"""Every call under way, through whichever door it came, from its beginning to its end."""

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
"""The header in which clients give an id, if they like, and in which they get it."""

Record = Callable[[str, str, str, float], None]
"""Notes the end of a call: door, method, code, seconds."""

Around = Callable[[str, "Call", Mapping[str, Any]], AbstractContextManager[None]]
"""Is around each call that is watched: its door, itself, the headers that it came with."""

_GOOD_ID = re.compile(r"[0-9A-Za-z._-]{1,64}")


@dataclass(slots=True)
class Call:
    """One call; code: how it ended."""

    method: str
    request_id: str
    # Until it is known: a call that is cancelled tells nobody.
    code: str = "CANCELLED"
    began: float = field(default_factory=time.monotonic)


class Calls:
    """Counts the calls under way, and says when the last has ended.

    record: is told of each that ends. log_calls: whether each is logged. around: what is to be
    around each, a trace perhaps.
    """

    def __init__(
        self, record: Record, log_calls: bool = False, around: Around | None = None
    ) -> None:
        self._stopping = asyncio.Event()
        self._around: Around = around or (lambda door, call, headers: nullcontext())
        self._record = record
        self._log_calls = log_calls
        self._under_way = 0
        self._none_under_way = asyncio.Event()

    @property
    def stopping(self) -> bool:
        """Whether the doors refuse new calls."""
        return self._stopping.is_set()

    async def until_stopping(self) -> None:
        """Return when the doors begin to refuse new calls."""
        await self._stopping.wait()

    async def finish(self) -> None:
        """Return when those under way have ended; the doors refuse new ones from now on."""
        self._stopping.set()
        if self._under_way:
            await self._none_under_way.wait()

    @contextmanager
    def under_way(
        self,
        door: str,
        method: str,
        request_id: str,
        headers: Mapping[str, Any],
        watched: bool = True,
    ) -> Iterator[Call]:
        """Be around a call; watched: whether the server waits for it before it ends."""
        call = Call(method, request_id)
        self._under_way += watched
        # Of the task that serves the call, which ends with it.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        around = self._around(door, call, headers) if watched else nullcontext()
        try:
            with around:
                yield call
        finally:
            self._under_way -= watched
            if self.stopping and not self._under_way:
                self._none_under_way.set()
            seconds = time.monotonic() - call.began
            self._record(door, method, call.code, seconds)
            if self._log_calls:
                ms = round(seconds * 1e3, 1)
                _log.debug(
                    "call", door=door, method=method, code=call.code, request_id=request_id, ms=ms
                )


def request_id_of(given: object) -> str:
    """Return the id that the client gave, if it is one that can be logged, or a new one."""
    if isinstance(given, str) and _GOOD_ID.fullmatch(given):
        return given
    return secrets.token_hex(16)


async def cancel(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks, and return when they have ended; how they end is dropped."""
    left = list(tasks)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
