"""The memory budget: one limit in bytes for everything that requests hold."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from visavis_server.errors import Overloaded
from visavis_server.runtime.cgroups import CGROUPS, MEMBERSHIP, files

Kind = Literal["arriving", "waiting", "decoded", "answers"]
"""The uses of memory: messages being received, messages that wait or run, pixels, answers."""

KINDS: Final[tuple[Kind, ...]] = ("arriving", "waiting", "decoded", "answers")

# The usable share of memory: the rest is for fragmentation and for memory that is not counted.
_USABLE: Final = 0.9
# The retry time of a request that did not fit.
_RETRY_S: Final = 1.0
# The longest that a core waits for memory to decode a picture. Others free theirs sooner.
_DECODING_S: Final = 1.0
_MEMINFO, _STATUS = Path("/proc/meminfo"), Path("/proc/self/status")


class Budget:
    """Counts the bytes that all requests hold, and refuses more than fit. Thread-safe.

    total_bytes: the limit for all kinds together. working_bytes: the part that messages leave free
    for pixels and answers, so that a request that was received can also be answered.
    """

    def __init__(self, total_bytes: int, working_bytes: int = 0) -> None:
        self.total_bytes = total_bytes
        self._working_bytes = working_bytes
        self.refusals = 0
        # Reentrant: Held releases its bytes when it is collected, which may happen under the lock.
        self._lock = threading.RLock()
        self._freed = threading.Condition(self._lock)
        self._waiting = 0
        self._held: Counter[Kind] = Counter()

    def resize(self, total_bytes: int, working_bytes: int) -> None:
        """Change the limits; bytes already held are kept."""
        self.total_bytes, self._working_bytes = total_bytes, working_bytes

    def held(self, kind: Kind) -> int:
        """Return the bytes of a kind that are held now."""
        return self._held[kind]

    def move(self, from_kind: Kind, from_bytes: int, kind: Kind, size_bytes: int) -> bool:
        """Move bytes from one kind to another; return False, and change nothing, if they don't fit.

        A move that does not grow always fits.
        """
        held = self._held
        with self._lock:
            held[from_kind] -= from_bytes
            if size_bytes > from_bytes and size_bytes > self._room(kind):
                held[from_kind] += from_bytes
                return False
            held[kind] += size_bytes
            if self._waiting and size_bytes < from_bytes:
                self._freed.notify_all()
            return True

    def wait(self, kind: Kind, more_bytes: int, until: float) -> None:
        """Wait until more bytes of a kind may fit, at most until a time of time.monotonic().

        Returns at once if no decoded pixels are held: only those are released soon.
        """
        with self._lock:
            self._waiting += 1
            try:
                while more_bytes > self._room(kind) and self._held["decoded"]:
                    if (left_s := until - time.monotonic()) <= 0:
                        return
                    self._freed.wait(left_s)
            finally:
                self._waiting -= 1

    def _room(self, kind: Kind) -> int:
        """Return the bytes of a kind that still fit."""
        held = self._held
        messages = held["arriving"] + held["waiting"]
        work = held["decoded"] + held["answers"]
        if kind in ("arriving", "waiting"):
            work = max(work, self._working_bytes)
        return self.total_bytes - messages - work


class Held:
    """Bytes that one request holds. They are released on exit, on `release`, or on collection."""

    __slots__ = ("_budget", "_on_change", "kind", "size_bytes")

    def __init__(
        self, budget: Budget, kind: Kind, on_change: Callable[[int], None] | None = None
    ) -> None:
        self._budget = budget
        self._on_change = on_change
        self.kind = kind
        self.size_bytes = 0

    def fits(self, size_bytes: int, kind: Kind | None = None) -> bool:
        """Hold `size_bytes` from now on; return False, and change nothing, if they don't fit."""
        kind = kind or self.kind
        if not self._budget.move(self.kind, self.size_bytes, kind, size_bytes):
            return False
        grown, self.kind, self.size_bytes = size_bytes - self.size_bytes, kind, size_bytes
        if self._on_change is not None:
            self._on_change(grown)
        return True

    def become(self, size_bytes: int, kind: Kind | None = None) -> None:
        """Hold `size_bytes` from now on; raise Overloaded, unchanged, if they don't fit."""
        if not self.fits(size_bytes, kind):
            self._budget.refusals += 1
            total = self._budget.total_bytes
            advice = (
                f"the limit for all requests is {total:,} bytes (setting memory_budget_bytes)"
                if size_bytes > total
                else "other requests hold too much; try again later"
            )
            raise Overloaded(
                f"memory is short: the request needs {size_bytes:,} bytes; {advice}",
                _RETRY_S,
            )

    def wait_for(self, size_bytes: int) -> None:
        """Hold `size_bytes`, once other requests release pixels if need be; blocks the thread.

        Raises Overloaded if they don't fit after a second.
        """
        if not self.fits(size_bytes):
            until = time.monotonic() + _DECODING_S
            self._budget.wait(self.kind, size_bytes - self.size_bytes, until)
            self.become(size_bytes)

    def release(self) -> None:
        """Release the bytes."""
        if self.size_bytes:
            self.fits(0)

    def __del__(self) -> None:
        self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def usable_bytes(
    cgroups: Path = CGROUPS,
    membership: Path = MEMBERSHIP,
    meminfo: Path = _MEMINFO,
    status: Path = _STATUS,
) -> int | None:
    """Return the memory that this process may use, including what it already uses.

    The smaller of its cgroups' limits and the machine's available memory, less a safety margin.
    None: the system does not report it.
    """
    limits = list(_limits(cgroups, membership))
    if free := _kib(meminfo, "MemAvailable"):
        limits.append(free + _kib(status, "VmRSS"))
    return int(min(limits) * _USABLE) if limits else None


def peak_bytes(status: Path = _STATUS) -> int:
    """Return this process's peak memory so far; 0: the system does not report it."""
    return _kib(status, "VmHWM")


def _limits(cgroups: Path, membership: Path) -> list[int]:
    limits = []
    for file in files("memory", "memory.limit_in_bytes", "memory.max", cgroups, membership):
        with suppress(OSError, ValueError):  # "max" is not a number
            limits.append(int(file.read_text("ascii")))
    return limits


def _kib(file: Path, name: str) -> int:
    """Return the bytes of a line that a /proc file gives in KiB; 0 if there is no such line."""
    with suppress(OSError, ValueError):
        for line in file.read_text("ascii", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) << 10
    return 0
