"""Messages between two processes."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from visavis_server.supervision.channel import Channel, Closed, Handlers


@asynccontextmanager
async def connected(handlers: Handlers) -> AsyncIterator[tuple[Channel, socket.socket]]:
    """Yield one end, and the bare socket of an end whose channel has these handlers."""
    ours, theirs = socket.socketpair()
    channel, other = await Channel.over(ours, {}), await Channel.over(theirs, handlers)
    running = [asyncio.create_task(each.run()) for each in (channel, other)]
    try:
        yield channel, theirs
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_questions_are_answered_in_any_order() -> None:
    release = asyncio.Event()

    async def slow(name: str) -> str:
        await release.wait()
        return f"slow {name}"

    async def quick(name: str) -> str:
        release.set()
        return f"quick {name}"

    async with connected({"slow": slow, "quick": quick}) as (channel, _):
        first = asyncio.create_task(channel.ask("slow", name="ü"))
        assert await channel.ask("quick", name="b") == "quick b"
        assert await first == "slow ü"


async def test_what_is_told_has_no_answer() -> None:
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def note(number: int) -> None:
        told.set_result(number)

    async with connected({"note": note}) as (channel, _):
        channel.tell("note", number=3)
        assert await told == 3


async def test_a_question_ends_when_the_other_process_does() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    async with connected({"hang": hang}) as (channel, theirs):
        asked = asyncio.create_task(channel.ask("hang"))
        await asyncio.sleep(0.05)
        theirs.shutdown(socket.SHUT_RDWR)
        with pytest.raises(Closed):
            await asked
        with pytest.raises(Closed):
            await channel.ask("hang")
        channel.tell("hang")  # lost


async def test_a_question_ends_after_its_time() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    async with connected({"hang": hang}) as (channel, _):
        with pytest.raises(Closed, match=r"0\.01 s"):
            await channel.ask("hang", 0.01)


async def test_an_error_in_a_handler_ends_no_other_message() -> None:
    async def fail() -> None:
        raise RuntimeError("broken")

    async def answer() -> int:
        return 1

    async with connected({"fail": fail, "answer": answer}) as (channel, _):
        assert await channel.ask("fail") is None
        assert await channel.ask("unknown") is None
        assert await channel.ask("answer") == 1


@pytest.mark.parametrize("garbage", [b"\xff\n", b"[]\n", b"{}\n", b"1\n"])
async def test_a_process_that_writes_garbage_is_cut_off(garbage: bytes) -> None:
    ours, theirs = socket.socketpair()
    channel = await Channel.over(ours, {})
    running: asyncio.Task[Any] = asyncio.create_task(channel.run())
    with theirs:
        await asyncio.get_running_loop().sock_sendall(_unblocked(theirs), garbage)
        async with asyncio.timeout(10):
            await running
    with pytest.raises(Closed):
        await channel.ask("anything")


def _unblocked(end: socket.socket) -> socket.socket:
    end.setblocking(False)
    return end
