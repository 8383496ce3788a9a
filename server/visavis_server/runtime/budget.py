"""One budget in bytes for all that calls hold, from its announcement to its release."""

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
"""What bytes are held for: messages on their way in, those that wait or run, pixels, answers."""

KINDS: Final[tuple[Kind, ...]] = ("arriving", "waiting", "decoded", "answers")

# Of the memory that there is: what the allocator keeps or scatters, and what nobody counts.
_USABLE: Final = 0.9
# When a caller whose bytes did not fit may try again.
_RETRY_S: Final = 1.0
# How long a core may wait for the room to decode a picture: others free theirs in less.
_DECODING_S: Final = 1.0
_MEMINFO, _STATUS = Path("/proc/meminfo"), Path("/proc/self/status")


class Budget:
    """Counts the bytes that calls hold together, and refuses those that do not fit.

    total_bytes: for all kinds. working_bytes: of these, what messages leave free for pixels and
    answers, so that a call whose message was taken in can also be answered. Any thread may use
    it.
    """

    def __init__(self, total_bytes: int, working_bytes: int = 0) -> None:
        self.total_bytes = total_bytes
        self._working_bytes = working_bytes
        self.refusals = 0
        # Held gives back what it holds when it is collected, which may happen in here.
        self._lock = threading.RLock()
        self._freed = threading.Condition(self._lock)
        self._waiting = 0
        self._held: Counter[Kind] = Counter()

    def resize(self, total_bytes: int, working_bytes: int) -> None:
        """Have another total from now on; what is held stays."""
        self.total_bytes, self._working_bytes = total_bytes, working_bytes

    def held(self, kind: Kind) -> int:
        """Return how many bytes of a kind are held now."""
        return self._held[kind]

    def move(self, from_kind: Kind, from_bytes: int, kind: Kind, size_bytes: int) -> bool:
        """Count bytes of one kind as bytes of another; False: they would not fit, nothing moved.

        What becomes no more always fits.
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
        """Return when so many more bytes of a kind may fit, or by then on time.monotonic()'s clock.

        At once where pixels of others, which leave soon, are not what is in the way.
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
        """Return how many more bytes of a kind fit."""
        held = self._held
        messages = held["arriving"] + held["waiting"]
        work = held["decoded"] + held["answers"]
        if kind in ("arriving", "waiting"):
            work = max(work, self._working_bytes)
        return self.total_bytes - messages - work


class Held:
    """Bytes that one call holds; they are given back when it is left, or released."""

    __slots__ = ("_budget", "_on_change", "kind", "size_bytes")

    def __init__(
        self, budget: Budget, kind: Kind, on_change: Callable[[int], None] | None = None
    ) -> None:
        self._budget = budget
        self._on_change = on_change
        self.kind = kind
        self.size_bytes = 0

    def fits(self, size_bytes: int, kind: Kind | None = None) -> bool:
        """Hold so many bytes from now on; False: they do not fit, and nothing has changed."""
        kind = kind or self.kind
        if not self._budget.move(self.kind, self.size_bytes, kind, size_bytes):
            return False
        grown, self.kind, self.size_bytes = size_bytes - self.size_bytes, kind, size_bytes
        if self._on_change is not None:
            self._on_change(grown)
        return True

    def become(self, size_bytes: int, kind: Kind | None = None) -> None:
        """Hold so many bytes from now on; raises Overloaded, and changes nothing, if not."""
        if not self.fits(size_bytes, kind):
            self._budget.refusals += 1
            total = self._budget.total_bytes
            beside = (
                f"all calls together have {total:,} bytes (setting memory_budget_bytes)"
                if size_bytes > total
                else "they do not fit beside what other calls hold; try again later"
            )
            raise Overloaded(
                f"memory is short: the request needs {size_bytes:,} bytes, {beside}",
                _RETRY_S,
            )

    def wait_for(self, size_bytes: int) -> None:
        """Hold so many bytes as soon as pixels that others hold make room; blocks the thread.

        Raises Overloaded if they do not within a moment.
        """
        if not self.fits(size_bytes):
            until = time.monotonic() + _DECODING_S
            self._budget.wait(self.kind, size_bytes - self.size_bytes, until)
            self.become(size_bytes)

    def release(self) -> None:
        """Give back what is held."""
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
    """Return how much memory this process may take, the part that it has already included.

    The smallest limit of its cgroups, or what the machine has free beside what the process has;
    less a share for safety. None: the system does not say.
    """
    limits = list(_limits(cgroups, membership))
    if free := _kib(meminfo, "MemAvailable"):
        limits.append(free + _kib(status, "VmRSS"))
    return int(min(limits) * _USABLE) if limits else None


def peak_bytes(status: Path = _STATUS) -> int:
    """Return the most memory that this process has had so far; 0: the system does not say."""
    return _kib(status, "VmHWM")


def _limits(cgroups: Path, membership: Path) -> list[int]:
    found = []
    for file in files("memory", "memory.limit_in_bytes", "memory.max", cgroups, membership):
        with suppress(OSError, ValueError):  # "max" is no number
            found.append(int(file.read_text("ascii")))
    return found


def _kib(file: Path, name: str) -> int:
    """Return a line's value, in bytes, of a file of /proc that counts in KiB; 0: there is none."""
    with suppress(OSError, ValueError):
        for line in file.read_text("ascii", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) << 10
    return 0
