"""As many pictures at once as the server takes."""

import asyncio

from visavis.evaluation.pace import FIRST, Pace


def test_turns_grow_while_answers_need_not_wait_and_stop_at_the_most() -> None:
    pace = Pace(20)
    assert pace.allowed == FIRST
    for _ in range(FIRST + 1):
        pace.answered(waited_ms=1, worked_ms=50)
    assert pace.allowed == FIRST + 1  # by one for each round of answers
    for _ in range(1000):
        pace.answered(1, 50)
    assert pace.allowed == 20


def test_turns_shrink_while_answers_wait_longer_than_they_take() -> None:
    pace = Pace(20)
    for _ in range(1000):
        pace.answered(waited_ms=200, worked_ms=50)
    assert pace.allowed == 1
    for _ in range(1000):
        pace.answered(waited_ms=50, worked_ms=50)
    assert pace.allowed == 1  # between both it stays


def test_turns_halve_when_the_server_refuses() -> None:
    pace = Pace(20)
    pace.refused()
    assert pace.allowed == FIRST // 2
    for _ in range(10):
        pace.refused()
    assert pace.allowed == 1


def test_no_more_turns_are_taken_than_allowed() -> None:
    async def run() -> int:
        pace, busy, most = Pace(3), 0, 0

        async def work() -> None:
            nonlocal busy, most
            async with pace:
                busy += 1
                most = max(most, busy)
                await asyncio.sleep(0)
                busy -= 1

        await asyncio.gather(*(work() for _ in range(20)))
        return most

    assert asyncio.run(run()) == 3
