"""How messages are taken in: by turns that are fair between connections, within the budget.

gRPC tells nobody how long a message is before all of it is there. So a turn holds room for the
largest message, and gives back what was not needed as soon as the message has come.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self, TypeVar

from visavis_server.errors import DeadlineExceeded, Overloaded
from visavis_server.runtime import memory
from visavis_server.runtime.budget import Budget, Held

Message = TypeVar("Message")

UNREAD_BYTES: Final = 16 << 10
"""How much of a message may come before it is its turn."""

CALL_BYTES: Final = 64 << 10
"""What every call is counted with: what comes unread, its headers, a small answer, our objects."""

# After messages of so many bytes what they left goes back to the system. gRPC puts large ones
# together from small pieces, which the allocator would keep: 100 MiB and more.
_GIVE_BACK_BYTES: Final = 64 << 20
_LARGE_BYTES: Final = 4 << 20

# How often calls that wait for room look whether there is any: threads give it back too.
_LOOK_S: Final = 0.1
_RETRY_S: Final = 1.0
_UNIX: Final = "unix:"
# The message, its bytes, and gRPC's copy of them.
_ANSWER_COPIES: Final = 2


@dataclass(slots=True, eq=False)
class _Connection:
    """What one connection has: calls, the bytes that they hold, and who of them sends or waits."""

    peer: str
    calls: int = 0
    held_bytes: int = 0
    arriving: list["Place"] = field(default_factory=list)
    waiting: deque["Place"] = field(default_factory=deque)

    def hold(self, more_bytes: int) -> None:
        self.held_bytes += more_bytes

    @property
    def arriving_bytes(self) -> int:
        return sum(place.most_bytes for place in self.arriving)


class Place:
    """One call's place, from its headers until its answer has left; it holds the call's bytes."""

    __slots__ = (
        "_answer",
        "_evicted",
        "_intake",
        "_limit",
        "_sending",
        "connection",
        "held",
        "most_bytes",
        "since",
        "taken_bytes",
        "turn",
        "turn_bytes",
    )

    def __init__(self, intake: "Intake", connection: _Connection) -> None:
        self._intake = intake
        self.connection = connection
        self.held = Held(intake.budget, "arriving", connection.hold)
        # What a turn of the message that is awaited takes, and what it has taken.
        self.most_bytes = self.turn_bytes = 0
        # What the last message takes since it has come.
        self.taken_bytes = 0
        self.since = 0.0
        self.turn: asyncio.Future[None] | None = None
        self._limit: asyncio.Timeout | None = None
        self._evicted: Overloaded | None = None
        self._answer: Held | None = None
        self._sending: asyncio.TimerHandle | None = None

    async def message(
        self,
        read: Callable[[], Awaitable[Message]],
        most_bytes: int,
        weigh: Callable[[Message], int],
    ) -> Message:
        """Return what `read` gives, when it is its turn.

        most_bytes: to be held while it arrives. weigh: returns what the message takes from then
        on. Raises DeadlineExceeded, and Overloaded if others need its turn or there is no room.
        """
        intake = self._intake
        self.most_bytes, self.turn = most_bytes, None
        try:
            async with asyncio.timeout(intake.timeout_s) as self._limit:
                if not intake.begin(self):
                    self.turn = asyncio.get_running_loop().create_future()
                    await self.turn
                message = await read()
            held, self.taken_bytes = self.held, weigh(message)
            held.become(held.size_bytes - self.turn_bytes + self.taken_bytes, "waiting")
            self.turn_bytes = 0
            return message
        except TimeoutError:
            raise self._evicted or self._too_late() from None
        finally:
            intake.end(self)

    def grow(self, most_bytes: int) -> None:
        """Hold more for the message that arrives; raises Overloaded if there is no room."""
        self.held.become(self.held.size_bytes + most_bytes - self.turn_bytes)
        self.most_bytes = self.turn_bytes = most_bytes

    def give_back(self, size_bytes: int) -> None:
        """Give back what one message of several has taken."""
        self.held.fits(max(0, self.held.size_bytes - size_bytes))

    def answer(self, size_bytes: int, give_up: Callable[[], object] | None = None) -> None:
        """Hold an answer while it is sent; give_up: called if its caller does not take it.

        Raises Overloaded if there is no room.
        """
        if size_bytes > CALL_BYTES:
            if self._answer is None:
                self._answer = Held(self._intake.budget, "answers", self.connection.hold)
            self._answer.become(_ANSWER_COPIES * size_bytes)
        if give_up is not None:
            loop = asyncio.get_running_loop()
            self._sending = loop.call_later(self._intake.timeout_s, give_up)

    def answered(self) -> None:
        """Give back the answer: it has left."""
        if self._answer is not None:
            self._answer.release()
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def evict(self, why: str) -> None:
        """End the call's wait or its turn with an error; what it holds is free at once."""
        self._evicted = Overloaded(why, _RETRY_S)
        self.held.release()
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(0.0)

    def leave(self) -> None:
        """Give back all that the call holds: it has ended."""
        self.answered()
        self._intake.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()

    def _too_late(self) -> DeadlineExceeded | Overloaded:
        timeout_s = self._intake.timeout_s
        if self.turn is not None and self.turn.cancelled():
            return Overloaded(
                f"the request's turn to arrive did not come within {timeout_s:g} s: other "
                "messages are arriving, or fill the memory; try again later",
                _RETRY_S,
            )
        return DeadlineExceeded(f"the request did not arrive within {timeout_s:g} s")


class Intake:
    """Takes in the messages of calls, through all doors together.

    timeout_s: that each has to arrive. at_once, per_connection: how many may be arriving; a call
    that waits for its turn is not read meanwhile. turn_s: how long a message may take while
    others wait for a turn or for room; then the oldest of the connection that has most arriving
    is ended. Belongs to one event loop.
    """

    def __init__(
        self, budget: Budget, timeout_s: float, at_once: int, per_connection: int, turn_s: float
    ) -> None:
        self.budget = budget
        self.timeout_s = timeout_s
        self._at_once = at_once
        self._per_connection = per_connection
        self._turn_s = turn_s
        self._arriving = 0
        self._connections: dict[str, _Connection] = {}
        # Those with calls that wait; who was served goes to the end.
        self._queue: dict[str, _Connection] = {}
        self._evicting: Place | None = None
        self._look: asyncio.TimerHandle | None = None
        # Of large messages, since memory was given back.
        self._left_bytes = 0

    def enter(self, peer: str) -> Place:
        """Return a place for a call of a connection; raises Overloaded if there is no room."""
        connection = self._connections.get(peer)
        if connection is None:
            connection = _Connection(peer)
        place = Place(self, connection)
        if not place.held.fits(CALL_BYTES):
            self._clear_a_place(connection)
            place.held.become(CALL_BYTES)
        self._connections[peer] = connection
        connection.calls += 1
        return place

    def leave(self, place: Place) -> None:
        """Give back all that a call holds."""
        place.held.release()
        if place.taken_bytes > _LARGE_BYTES:
            self._left_bytes += place.taken_bytes
            if self._left_bytes > _GIVE_BACK_BYTES:
                self._left_bytes = 0
                asyncio.get_running_loop().run_in_executor(None, memory.give_back)
        connection = place.connection
        connection.calls -= 1
        if not connection.calls:
            del self._connections[connection.peer]
        if self._queue:
            self._give_turns()

    def begin(self, place: Place) -> bool:
        """Let a message arrive, or let it wait; returns whether it may come now."""
        connection = place.connection
        if not self._queue and self._may_begin(connection) and self._has_room(place):
            self._start(place)
            return True
        place.since = _now()
        connection.waiting.append(place)
        self._queue.setdefault(connection.peer, connection)
        self._give_turns()
        return place not in connection.waiting

    def end(self, place: Place) -> None:
        """End a message's wait or turn: it has come, or will not."""
        connection = place.connection
        if place in connection.arriving:
            connection.arriving.remove(place)
            self._arriving -= 1
        elif place in connection.waiting:
            self._unqueue(place)
        if place.turn_bytes:
            place.give_back(place.turn_bytes)
            place.turn_bytes = 0
        if place is self._evicting:
            self._evicting = None
        if self._queue:
            self._give_turns()

    def _give_turns(self) -> None:
        """Let those who wait begin, as far as there are turns and room.

        The connection that holds least comes first; of those alike, the one served longest ago.
        """
        while open_ := [c for c in self._queue.values() if self._may_begin(c)]:
            connection = min(open_, key=lambda c: c.held_bytes)
            place = connection.waiting[0]
            if not self._has_room(place):
                break
            self._unqueue(place)
            self._queue.pop(connection.peer, None)
            if connection.waiting:
                self._queue[connection.peer] = connection
            self._start(place)
            if place.turn is not None and not place.turn.done():
                place.turn.set_result(None)
        if self._queue:
            self._press()

    def _may_begin(self, connection: _Connection) -> bool:
        # gRPC has one name for all clients of a Unix socket.
        shared = connection.peer == _UNIX
        return self._arriving < self._at_once and (
            shared or len(connection.arriving) < self._per_connection
        )

    def _has_room(self, place: Place) -> bool:
        return place.held.fits(place.held.size_bytes + place.most_bytes, "arriving")

    def _start(self, place: Place) -> None:
        place.since = _now()
        place.turn_bytes = place.most_bytes
        place.connection.arriving.append(place)
        self._arriving += 1

    def _unqueue(self, place: Place) -> None:
        connection = place.connection
        connection.waiting.remove(place)
        if not connection.waiting:
            self._queue.pop(connection.peer, None)

    def _press(self) -> None:
        """Where calls wait, end a message that stalls, or look again when one may do so."""
        sending = [c for c in self._connections.values() if c.arriving]
        again_s = _LOOK_S
        if sending and self._evicting is None:
            greediest = max(sending, key=lambda c: c.arriving_bytes)
            slowest = greediest.arriving[0]
            has_s = _now() - slowest.since
            if not self._somebody_is_behind(greediest):
                pass
            elif has_s >= self._turn_s:
                self._evicting = slowest
                slowest.evict(
                    f"the request had not arrived after {has_s:.1f} s while others waited for "
                    f"their turn: they need it after {self._turn_s:g} s; try again"
                )
            else:
                again_s = min(again_s, self._turn_s - has_s)
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(again_s, self._look_again)

    def _somebody_is_behind(self, greediest: _Connection) -> bool:
        """Say whether a call could use a turn of the greediest: one whose connection has less.

        Or one of the same connection, where not its own limit is what it waits for.
        """
        most_bytes = greediest.arriving_bytes
        return any(
            (c is greediest or c.arriving_bytes < most_bytes)
            and (c.peer == _UNIX or len(c.arriving) < self._per_connection)
            for c in self._queue.values()
        )

    def _look_again(self) -> None:
        self._look = None
        if self._queue:
            self._give_turns()

    def _clear_a_place(self, newcomer: _Connection) -> None:
        """Where no place is left, end the newest wait of the connection with most that wait."""
        if not self._queue:
            return
        most = max(self._queue.values(), key=lambda c: len(c.waiting))
        if len(most.waiting) > len(newcomer.waiting) + 1 and most is not newcomer:
            place = most.waiting[-1]
        elif most.peer == _UNIX and _now() - most.waiting[0].since >= self._turn_s:
            place = most.waiting[0]
        else:
            return
        self._unqueue(place)
        place.evict("too many calls wait for their turn to arrive; try again later")


def _now() -> float:
    return asyncio.get_running_loop().time()
