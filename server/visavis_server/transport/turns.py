"""Fair turns for arriving messages: which call receives next, and which call gives way."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from visavis_server.errors import Overloaded
from visavis_server.runtime.budget import Held

RETRY_S: Final = 1.0
"""When a client may try again after its turn did not begin, or was ended."""

# How often waiting calls check for room: other threads release memory too.
_CHECK_S: Final = 0.1
_UNIX: Final = "unix:"


@dataclass(slots=True, eq=False)
class Connection:
    """A connection: its calls, the bytes that they hold, and its arriving and waiting turns."""

    peer: str
    calls: int = 0
    held_bytes: int = 0
    arriving: list["Turn"] = field(default_factory=list)
    waiting: deque["Turn"] = field(default_factory=deque)

    def hold(self, more_bytes: int) -> None:
        """Count bytes that a call holds from now on; negative: that it has released."""
        self.held_bytes += more_bytes

    @property
    def arriving_bytes(self) -> int:
        """The bytes that its arriving turns reserve at most."""
        return sum(turn.most_bytes for turn in self.arriving)

    @property
    def is_shared(self) -> bool:
        """True for Unix sockets: gRPC has one name for all of their clients."""
        return self.peer == _UNIX


@dataclass(slots=True, eq=False)
class Turn:
    """A call's turn to receive a message: it waits, then the message arrives.

    held: the call's memory. most_bytes: the bytes to reserve when the turn begins; reserved_bytes:
    those reserved now. since: when the turn began to wait or to arrive. begun: done when a waiting
    turn begins. limit: ends the turn when its time is up. evicted: the error of an evicted turn.
    """

    connection: Connection
    held: Held
    most_bytes: int = 0
    reserved_bytes: int = 0
    since: float = 0.0
    begun: asyncio.Future[None] | None = None
    limit: asyncio.Timeout | None = None
    evicted: Overloaded | None = None

    def evict(self, why: str) -> None:
        """End the turn with an error, and release the call's memory at once."""
        self.evicted = Overloaded(why, RETRY_S)
        self.held.release()
        if self.limit is not None and not self.limit.expired():
            self.limit.reschedule(0.0)


class Turns:
    """Begins turns, fairly between connections and within the budget.

    at_once, per_connection: the limits of arriving messages. turn_s: the time that a message may
    take while other calls wait; then the oldest message of the connection with the most arriving
    bytes is evicted. connections: all that have calls, by peer. Belongs to one event loop.
    """

    def __init__(
        self,
        at_once: int,
        per_connection: int,
        turn_s: float,
        connections: Mapping[str, Connection],
    ) -> None:
        self._at_once = at_once
        self._per_connection = per_connection
        self._turn_s = turn_s
        self._connections = connections
        self._arriving = 0
        # Connections with waiting turns, the one served longest ago first.
        self._queue: dict[str, Connection] = {}
        self._evicting: Turn | None = None
        self._check: asyncio.TimerHandle | None = None

    def begin(self, turn: Turn) -> bool:
        """Begin a turn and return True, or let it wait and return False."""
        connection = turn.connection
        if not self._queue and self._may_begin(connection) and _reserve(turn):
            self._start(turn)
            return True
        turn.since = _now()
        connection.waiting.append(turn)
        self._queue.setdefault(connection.peer, connection)
        self.begin_waiting()
        return turn not in connection.waiting

    def end(self, turn: Turn) -> None:
        """End a turn: its message has arrived, or never will."""
        connection = turn.connection
        if turn in connection.arriving:
            connection.arriving.remove(turn)
            self._arriving -= 1
        elif turn in connection.waiting:
            self._unqueue(turn)
        if turn.reserved_bytes:
            turn.held.fits(max(0, turn.held.size_bytes - turn.reserved_bytes))
            turn.reserved_bytes = 0
        if turn is self._evicting:
            self._evicting = None
        self.begin_waiting()

    def begin_waiting(self) -> None:
        """Begin waiting turns, as many as the limits and the budget allow.

        The connection that holds the fewest bytes is first; among equals, the one served longest
        ago.
        """
        while ready := [c for c in self._queue.values() if self._may_begin(c)]:
            connection = min(ready, key=lambda c: c.held_bytes)
            turn = connection.waiting[0]
            if not _reserve(turn):
                break
            self._unqueue(turn)
            self._queue.pop(connection.peer, None)
            if connection.waiting:
                self._queue[connection.peer] = connection
            self._start(turn)
            if turn.begun is not None and not turn.begun.done():
                turn.begun.set_result(None)
        if self._queue:
            self._make_way()

    def evict_for(self, newcomer: Connection) -> None:
        """Evict a waiting turn, so that a call of another connection has room.

        The newest turn of the connection with the most waiting turns gives way, if that has more
        of them than the newcomer will have. On a shared connection, a turn that has waited for
        turn_s does.
        """
        if not self._queue:
            return
        most = max(self._queue.values(), key=lambda c: len(c.waiting))
        if len(most.waiting) > len(newcomer.waiting) + 1 and most is not newcomer:
            turn = most.waiting[-1]
        elif most.is_shared and _now() - most.waiting[0].since >= self._turn_s:
            turn = most.waiting[0]
        else:
            return
        self._unqueue(turn)
        turn.evict("too many requests are waiting to be received; try again later")

    def _may_begin(self, connection: Connection) -> bool:
        return self._arriving < self._at_once and (
            connection.is_shared or len(connection.arriving) < self._per_connection
        )

    def _start(self, turn: Turn) -> None:
        turn.since = _now()
        turn.reserved_bytes = turn.most_bytes
        turn.connection.arriving.append(turn)
        self._arriving += 1

    def _unqueue(self, turn: Turn) -> None:
        connection = turn.connection
        connection.waiting.remove(turn)
        if not connection.waiting:
            self._queue.pop(connection.peer, None)

    def _make_way(self) -> None:
        """Evict a message that stalls while other calls wait, or check again later."""
        arriving = [c for c in self._connections.values() if c.arriving]
        again_s = _CHECK_S
        if arriving and self._evicting is None:
            greediest = max(arriving, key=lambda c: c.arriving_bytes)
            oldest = greediest.arriving[0]
            age_s = _now() - oldest.since
            if not self._is_contended(greediest):
                pass
            elif age_s >= self._turn_s:
                self._evicting = oldest
                oldest.evict(
                    f"the request had not arrived after {age_s:.1f} s; while other requests wait, "
                    f"the limit is {self._turn_s:g} s; try again"
                )
            else:
                again_s = min(again_s, self._turn_s - age_s)
        if self._check is None:
            self._check = asyncio.get_running_loop().call_later(again_s, self._check_again)

    def _is_contended(self, greediest: Connection) -> bool:
        """Return True if a waiting call could use a turn of the greediest connection.

        That is a call of a connection with fewer arriving bytes, or of the same connection, unless
        its own connection's limit is what it waits for.
        """
        most_bytes = greediest.arriving_bytes
        return any(
            (c is greediest or c.arriving_bytes < most_bytes)
            and (c.is_shared or len(c.arriving) < self._per_connection)
            for c in self._queue.values()
        )

    def _check_again(self) -> None:
        self._check = None
        self.begin_waiting()


def _reserve(turn: Turn) -> bool:
    """Hold the bytes of a turn, and return True, if they fit into the budget."""
    return turn.held.fits(turn.held.size_bytes + turn.most_bytes, "arriving")


def _now() -> float:
    return asyncio.get_running_loop().time()
