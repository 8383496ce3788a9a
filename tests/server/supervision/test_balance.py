"""New connections go to the workers that have the fewest."""

import asyncio
import os
import random
import socket
from collections import Counter
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from visavis_server import addresses
from visavis_server.supervision import balance
from visavis_server.transport import shared_listener
from visavis_server.transport.shared_listener import program


@pytest.mark.parametrize(
    ("busy", "order", "expected"),
    [
        # All the same, or nobody there yet: at random.
        ({1: 0, 2: 0, 3: 0}, [3, 1, 2], [1, 1, 1]),
        ({1: 4, 2: 4}, [2, 1], [1, 1]),
        # In the order of the kernel's numbers, and few to the fullest.
        ({1: 4, 2: 2, 3: 1}, [3, 1, 2], [16, 1, 9]),
        ({1: 0, 2: 5}, [1, 2], [36, 1]),
        # None to those that hang, unless all do.
        ({1: 1, 3: 0}, [2, 1, 3], [0, 1, 4]),
        ({}, [2, 1], [1, 1]),
    ],
)
def test_the_emptiest_worker_gets_most(
    busy: dict[int, int], order: list[int], expected: list[int]
) -> None:
    assert balance.weights(busy, order) == expected


def test_weights_stay_within_what_a_program_can_hold() -> None:
    busy = dict.fromkeys(range(1, 256), 0) | {256: 10**6}
    assert sum(balance.weights(busy, list(busy))) < 1 << 32


def run(code: Sequence[tuple[int, int, int, int]], drawn: int) -> int:
    """Run a program as the kernel does (Documentation/networking/filter.rst)."""
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, operand = code[at]
        at += 1
        match operation:
            case 0x20:  # ld [k]: the extension for random numbers
                assert operand == 0xFFFFF038
                accumulator = drawn
            case 0x94:  # mod #k
                accumulator %= operand
            case 0x35:  # jge #k
                at += if_true if accumulator >= operand else if_false
            case 0x06:  # ret #k
                return operand


def test_a_program_chooses_by_weights() -> None:
    weights = [3, 0, 1, 4]
    code = program(weights)
    chosen = Counter(run(code, drawn) for drawn in range(8000))
    assert chosen == {0: 3000, 2: 1000, 3: 4000}
    assert run(program([0, 0, 1]), random.getrandbits(32)) == 2


async def test_listeners_that_share_a_port_are_numbered_as_they_come_and_steered() -> None:
    """Both are this process's here: which of the two has a connection is asked of them."""
    (first,) = addresses.listen("127.0.0.1:0", shared=True)
    port = first.getsockname()[1]
    (second,) = addresses.listen(f"127.0.0.1:{port}", shared=True)
    with first, second:
        for weights, taker, other in (([1, 0], first, second), ([0, 1], second, first)):
            assert shared_listener.steer(port, weights)
            for _ in range(8):
                with socket.create_connection(("127.0.0.1", port)):
                    taker.settimeout(10)
                    taker.accept()[0].close()
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.accept()
        assert shared_listener.steer(port, [])
    assert not shared_listener.steer(port, [1, 0])  # nothing listens any more


async def test_numbers_are_unknown_where_connections_cannot_be_steered() -> None:
    async def steer(weights: Sequence[int]) -> bool:
        return False

    assert await balance.numbered("127.0.0.1:1", {1: 1, 2: 2}, steer) == []


async def test_numbers_are_unknown_if_no_worker_has_the_connection() -> None:
    async def steer(weights: Sequence[int]) -> bool:
        return True

    with socket.create_server(("127.0.0.1", 0)) as listener:
        # This process accepts, and is none of the workers.
        accepting = asyncio.to_thread(listener.accept)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        order, (accepted, _) = await asyncio.gather(
            balance.numbered(address, {1: 1}, steer), accepting
        )
        accepted.close()
    assert order == []


async def test_the_number_of_a_worker_that_hangs_is_the_one_that_is_left() -> None:
    (first,) = addresses.listen("127.0.0.1:0", shared=True)
    port = first.getsockname()[1]
    (second,) = addresses.listen(f"127.0.0.1:{port}", shared=True)

    async def steer(weights: Sequence[int]) -> bool:
        return shared_listener.steer(port, weights)

    with first, second:
        second.settimeout(10)
        # This process is worker 7 and accepts at the second; worker 3 accepts nothing.
        accepting = asyncio.to_thread(second.accept)
        pids = {7: os.getpid(), 3: 1}
        order, (accepted, _) = await asyncio.gather(
            balance.numbered(f"127.0.0.1:{port}", pids, steer), accepting
        )
        accepted.close()
    assert order == [3, 7]


@pytest.mark.parametrize("failures", [2, 1000])
async def test_numbers_are_found_out_again_where_they_were_not(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy worker accepts late. Where connections can't be steered at all, that is said once."""
    monkeypatch.setattr(balance, "BEAT_S", 0.01)
    wanted: list[list[int]] = []

    async def steer(weights: Sequence[int]) -> bool:
        wanted.append(list(weights))
        return wanted.count([1]) > failures

    with socket.create_server(("127.0.0.1", 0)) as listener, capture_logs() as logs:
        accepting = asyncio.create_task(asyncio.to_thread(listener.accept))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        balancing = balance.balance(address, lambda: {1: os.getpid()}, lambda: {1: 0}, steer)
        task = asyncio.create_task(balancing)
        async with asyncio.timeout(30):
            while len(wanted) < (6 if failures == 2 else 10):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        if failures != 2:
            socket.create_connection(listener.getsockname()).close()
        (await accepting)[0].close()
    if failures == 2:
        assert wanted == [[1], [], [1], [], [1], [1]]
        assert logs == []
    else:
        assert wanted == [[1], []] * 5
        assert [each["event"] for each in logs] == ["connections are spread at random"]
