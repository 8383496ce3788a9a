"""Messages are received in turns that are fair between connections; stalled ones give way."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from visavis_server.errors import DeadlineExceeded, Overloaded
from visavis_server.runtime.budget import Budget
from visavis_server.transport.intake import CALL_BYTES, Intake, Place

LARGEST = 1 << 20


def intake(
    *, total_bytes: int = 1 << 30, timeout_s: float = 10.0, at_once: int = 4, turn_s: float = 5.0
) -> Intake:
    return Intake(Budget(total_bytes), timeout_s, at_once, 3, turn_s)


async def never() -> bytes:
    await asyncio.Event().wait()
    raise AssertionError


def giving(message: bytes) -> Callable[[], Awaitable[bytes]]:
    async def read() -> bytes:
        return message

    return read


def sending(place: Place, read: Callable[[], Awaitable[bytes]]) -> "asyncio.Task[bytes]":
    return asyncio.create_task(place.message(read, LARGEST, len))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_turn_holds_the_largest_message_and_then_the_received_bytes() -> None:
    taken = intake()
    arrived = asyncio.Event()

    async def read() -> bytes:
        await arrived.wait()
        return b"message"

    with taken.enter("one") as place:
        message = sending(place, read)
        await settle()
        assert taken.budget.held("arriving") == CALL_BYTES + LARGEST
        arrived.set()
        assert await message == b"message"
        assert taken.budget.held("waiting") == CALL_BYTES + 7
    assert taken.budget.held("waiting") == taken.budget.held("arriving") == 0


async def test_a_message_that_does_not_arrive_in_time_holds_nothing() -> None:
    taken = intake(timeout_s=0.05)
    with taken.enter("one") as place:
        with pytest.raises(DeadlineExceeded, match=r"did not arrive within 0\.05 s"):
            await sending(place, never)
        assert taken.budget.held("arriving") == CALL_BYTES


async def test_stalled_calls_of_one_connection_block_no_other_connection() -> None:
    taken = intake()
    stalled = [sending(taken.enter("one"), never) for _ in range(20)]
    await settle()
    assert await sending(taken.enter("other"), giving(b"x")) == b"x"
    for each in stalled:
        each.cancel()


async def test_a_stalled_message_is_evicted_while_other_calls_wait() -> None:
    taken = intake(turn_s=0.05)
    stalled = [sending(taken.enter("one"), never) for _ in range(3)]
    stalled += [sending(taken.enter("two"), never) for _ in range(3)]
    await settle()
    assert await sending(taken.enter("other"), giving(b"x")) == b"x"
    with pytest.raises(Overloaded, match="while other requests wait, the limit is"):
        await stalled[0]
    assert not stalled[1].done()
    for each in stalled:
        each.cancel()


async def test_a_slow_message_has_all_its_time_if_no_call_waits() -> None:
    taken = intake(turn_s=0.01, timeout_s=0.2)
    with taken.enter("one") as place, pytest.raises(DeadlineExceeded):
        await sending(place, never)


async def test_clients_of_a_unix_socket_share_all_turns_and_stalled_messages_give_way() -> None:
    taken = intake(turn_s=0.05)
    stalled = [sending(taken.enter("unix:"), never) for _ in range(4)]
    await settle()
    assert taken.budget.held("arriving") == 4 * (CALL_BYTES + LARGEST)
    assert await sending(taken.enter("unix:"), giving(b"x")) == b"x"
    for each in stalled:
        each.cancel()


async def test_turns_are_limited_by_memory_and_the_heaviest_connection_is_last() -> None:
    taken = intake(total_bytes=2 * LARGEST + 20 * CALL_BYTES)
    held = [taken.enter("heavy") for _ in range(3)]
    arrived = asyncio.Event()
    order = []

    async def until_arrived() -> bytes:
        await arrived.wait()
        return b""

    async def noted(name: str) -> None:
        await sending(taken.enter(name), giving(b""))
        order.append(name)

    blocking = [sending(place, until_arrived) for place in held[:2]]
    await settle()
    waiting = [asyncio.create_task(noted(name)) for name in ("heavy", "heavy", "light", "new")]
    await settle()
    assert order == []
    arrived.set()
    await asyncio.gather(*blocking, *waiting)
    assert order[:2] == ["light", "new"]


async def test_without_room_the_connection_with_the_most_waiting_calls_loses_one() -> None:
    taken = intake(total_bytes=LARGEST + 10 * CALL_BYTES, at_once=1)
    stalled = [sending(taken.enter("one"), never) for _ in range(10)]
    await settle()
    other = taken.enter("other")
    await settle()
    assert sum(each.done() for each in stalled) == 1
    other.leave()
    for each in stalled:
        each.cancel()


async def test_a_call_without_room_is_rejected_if_no_other_waits() -> None:
    taken = intake(total_bytes=2 * CALL_BYTES)
    held = [taken.enter("one"), taken.enter("two")]
    with pytest.raises(Overloaded, match="memory is short"):
        taken.enter("three")
    for each in held:
        each.leave()


async def test_an_unread_answer_is_given_up_and_released() -> None:
    taken = intake(timeout_s=0.05)
    given_up = asyncio.Event()
    place = taken.enter("one")
    place.answer(LARGEST, given_up.set)
    assert taken.budget.held("answers") >= LARGEST
    await given_up.wait()
    place.leave()
    assert taken.budget.held("answers") == 0


async def test_a_call_cancelled_while_it_waits_holds_nothing() -> None:
    taken = intake(at_once=1)
    with taken.enter("one") as first, taken.enter("two") as second:
        arriving, waiting = sending(first, never), sending(second, never)
        await settle()
        waiting.cancel()
        arriving.cancel()
        await asyncio.gather(arriving, waiting, return_exceptions=True)
        assert await sending(second, giving(b"x")) == b"x"
    assert taken.budget.held("arriving") == taken.budget.held("waiting") == 0
