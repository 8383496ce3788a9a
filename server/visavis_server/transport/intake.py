"""Receives the messages of calls in fair turns, and holds the memory of each call.

gRPC does not report the size of a message until all of it has arrived. A turn therefore reserves
memory for the largest message, and releases the rest as soon as the message has arrived.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self, TypeVar

from visavis_server.errors import DeadlineExceeded, Overloaded
from visavis_server.runtime import memory
from visavis_server.runtime.budget import Budget, Held
from visavis_server.transport.turns import RETRY_S, Connection, Turn, Turns

Message = TypeVar("Message")

UNREAD_BYTES: Final = 16 << 10
"""The bytes of a message that may arrive before its turn."""

CALL_BYTES: Final = 64 << 10
"""The bytes reserved for every call: unread data, headers, a small answer, our objects."""

# gRPC assembles large messages from small pieces, whose memory (100 MiB and more) the allocator
# would keep. After messages of this size in total, free memory is returned to the system.
_GIVE_BACK_BYTES: Final = 64 << 20
_LARGE_BYTES: Final = 4 << 20

# The most connections that are told apart between two reports, and the peers that gRPC names.
_MOST_SEEN: Final = 4096
_GRPC: Final = ("ipv4:", "ipv6:")

# The message, its bytes, and gRPC's copy of them.
_ANSWER_COPIES: Final = 2


class Place:
    """One call, from its headers until its answer has been sent, with the memory that it holds."""

    __slots__ = (
        "_answer",
        "_intake",
        "_sending",
        "_turn",
        "connection",
        "held",
        "taken_bytes",
    )

    def __init__(self, intake: "Intake", connection: Connection) -> None:
        self._intake = intake
        self.connection = connection
        self.held = Held(intake.budget, "arriving", connection.hold)
        # Of the last message, once it has arrived.
        self.taken_bytes = 0
        self._turn = Turn(connection, self.held)
        self._answer: Held | None = None
        self._sending: asyncio.TimerHandle | None = None

    @property
    def turn_bytes(self) -> int:
        """The bytes reserved for the arriving message."""
        return self._turn.reserved_bytes

    async def message(
        self,
        read: Callable[[], Awaitable[Message]],
        most_bytes: int,
        weigh: Callable[[Message], int],
    ) -> Message:
        """Return the result of `read`, which is called when the call's turn begins.

        most_bytes: reserved while the message arrives. weigh: returns the bytes that the message
        takes once it has arrived. Raises DeadlineExceeded; Overloaded if there is no room, or if
        other calls need the turn.
        """
        turns, turn = self._intake.turns, self._turn
        turn.most_bytes, turn.begun = most_bytes, None
        try:
            async with asyncio.timeout(self._intake.timeout_s) as turn.limit:
                if not turns.begin(turn):
                    turn.begun = asyncio.get_running_loop().create_future()
                    await turn.begun
                message = await read()
            held, self.taken_bytes = self.held, weigh(message)
            held.become(held.size_bytes - turn.reserved_bytes + self.taken_bytes, "waiting")
            turn.reserved_bytes = 0
            return message
        except TimeoutError:
            raise turn.evicted or self._too_late() from None
        finally:
            turns.end(turn)

    def grow(self, most_bytes: int) -> None:
        """Reserve more for the arriving message; raises Overloaded if there is no room."""
        turn = self._turn
        self.held.become(self.held.size_bytes + most_bytes - turn.reserved_bytes)
        turn.most_bytes = turn.reserved_bytes = most_bytes

    def give_back(self, size_bytes: int) -> None:
        """Release the bytes of one message."""
        self.held.fits(max(0, self.held.size_bytes - size_bytes))

    def answer(self, size_bytes: int, give_up: Callable[[], object] | None = None) -> None:
        """Hold the bytes of an answer while it is sent.

        give_up: called if the client does not read the answer in time. Raises Overloaded if there
        is no room.
        """
        if size_bytes > CALL_BYTES:
            if self._answer is None:
                self._answer = Held(self._intake.budget, "answers", self.connection.hold)
            self._answer.become(_ANSWER_COPIES * size_bytes)
        if give_up is not None:
            loop = asyncio.get_running_loop()
            self._sending = loop.call_later(self._intake.timeout_s, give_up)

    def answered(self) -> None:
        """Release the answer, which has been sent."""
        if self._answer is not None:
            self._answer.release()
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def leave(self) -> None:
        """Release all memory of the call, which has ended."""
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
        timeout_s, begun = self._intake.timeout_s, self._turn.begun
        if begun is not None and begun.cancelled():
            return Overloaded(
                f"the request could not be received within {timeout_s:g} s: other requests are "
                "arriving or fill the memory; try again later",
                RETRY_S,
            )
        return DeadlineExceeded(f"the request did not arrive within {timeout_s:g} s")


class Intake:
    """Receives the messages of calls on all listeners.

    timeout_s: the time that each message may take. at_once, per_connection: the limits of arriving
    messages; a call that waits for its turn is not read. turn_s: the time that a message may take
    while other calls wait (see Turns). Belongs to one event loop.
    """

    def __init__(
        self, budget: Budget, timeout_s: float, at_once: int, per_connection: int, turn_s: float
    ) -> None:
        self.budget = budget
        self.timeout_s = timeout_s
        self._connections: dict[str, Connection] = {}
        self.turns = Turns(at_once, per_connection, turn_s, self._connections)
        # Of large messages since memory was last returned to the system.
        self._left_bytes = 0
        self._seen: set[str] = set()

    def enter(self, peer: str) -> Place:
        """Return a place for a call of a connection; raises Overloaded if there is no room."""
        connection = self._connections.get(peer)
        if connection is None:
            connection = Connection(peer)
        place = Place(self, connection)
        if not place.held.fits(CALL_BYTES):
            self.turns.evict_for(connection)
            place.held.become(CALL_BYTES)
        self._connections[peer] = connection
        connection.calls += 1
        if len(self._seen) < _MOST_SEEN:
            self._seen.add(peer)
        return place

    def busy_connections(self) -> int:
        """Return how many gRPC connections have had calls since this was last asked."""
        busy, self._seen = self._seen | self._connections.keys(), set()
        return sum(peer.startswith(_GRPC) for peer in busy)

    def leave(self, place: Place) -> None:
        """Release all memory of a call."""
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
        self.turns.begin_waiting()
