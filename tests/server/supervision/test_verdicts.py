"""A file is tried once for all workers, and one of them loads it before the others do."""

import asyncio
from concurrent.futures import Future
from pathlib import Path

import pytest

from visavis_server.errors import CannotLoadNow, ModelFileError
from visavis_server.models.model_files import ModelFile
from visavis_server.supervision.verdicts import SharedVerdicts, Verdict


class Trials:
    """Trials whose outcome the test sets."""

    def __init__(self) -> None:
        self.asked = 0
        self.outcome: str | Exception = "identity"

    def verdict(self, file: ModelFile) -> Future[str]:
        self.asked += 1
        future: Future[str] = Future()
        if isinstance(self.outcome, Exception):
            future.set_exception(self.outcome)
        else:
            future.set_result(self.outcome)
        return future

    def stop(self) -> None:
        """Nothing runs."""


class Shared:
    """What is under test, with a file in a folder."""

    def __init__(self, folder: Path) -> None:
        self.trials = Trials()
        self.replaced: list[str] = []
        self.verdicts = SharedVerdicts(self.trials, 10, self.replaced.append)
        self.file = ModelFile("colors", 1, folder / "model.onnx")
        self.file.path.write_bytes(b"one")

    def ask(self, worker: int) -> "asyncio.Task[Verdict]":
        return asyncio.create_task(self.verdicts.verdict(worker, self.file))


@pytest.fixture
async def shared(tmp_path: Path) -> Shared:
    return Shared(tmp_path)


async def settled(*tasks: "asyncio.Task[Verdict]") -> list[bool]:
    """Return which of the tasks are done, once nothing moves any more."""
    await asyncio.sleep(0.2)
    return [task.done() for task in tasks]


async def test_the_others_wait_until_one_has_loaded_it(shared: Shared) -> None:
    first = shared.ask(1)
    assert await first == {"identity": "identity"}
    second, third = shared.ask(2), shared.ask(3)
    assert await settled(second, third) == [False, False]
    shared.verdicts.load_ended(1, shared.file)
    assert [await second, await third] == [{"identity": "identity"}] * 2
    assert shared.trials.asked == 1
    # Nor does a worker that is started later wait.
    assert await shared.ask(4) == {"identity": "identity"}


async def test_if_the_first_worker_ends_another_loads_it(shared: Shared) -> None:
    await shared.ask(1)
    second, third = shared.ask(2), shared.ask(3)
    await settled(second, third)
    shared.verdicts.ended(1)
    assert sorted(await settled(second, third)) == [False, True]


async def test_a_file_that_ends_two_workers_is_refused_for_all(shared: Shared) -> None:
    await shared.ask(1)
    shared.verdicts.ended(1)
    await shared.ask(2)
    waiting = shared.ask(3)
    await settled(waiting)
    shared.verdicts.ended(2)
    for verdict in (await waiting, await shared.ask(1)):
        assert verdict["kind"] == "ModelFileError"
        assert verdict["why"].startswith(str(shared.file.path))
        assert "2 workers ended while they loaded it" in verdict["why"]
    # The file is changed: it gets another chance.
    shared.file.path.write_bytes(b"another")
    assert await shared.ask(1) == {"identity": "identity"}


async def test_a_worker_that_ends_otherwise_counts_against_no_file(shared: Shared) -> None:
    await shared.ask(1)
    shared.verdicts.load_ended(1, shared.file)
    for worker in (1, 2, 3):
        shared.verdicts.ended(worker)
    assert await shared.ask(1) == {"identity": "identity"}


async def test_a_refusal_is_for_all_and_a_passing_one_is_tried_again(shared: Shared) -> None:
    shared.trials.outcome = ModelFileError("no ONNX")
    for worker in (1, 2):
        assert await shared.ask(worker) == {"kind": "ModelFileError", "why": "no ONNX"}
    assert shared.trials.asked == 1
    shared.file.path.write_bytes(b"another")
    shared.trials.outcome = CannotLoadNow("no memory")
    assert await shared.ask(1) == {"kind": "CannotLoadNow", "why": "no memory"}
    shared.trials.outcome = "identity"
    assert await shared.ask(1) == {"identity": "identity"}


async def test_the_weights_of_a_replaced_file_are_dropped(shared: Shared) -> None:
    for identity in ("one", "two", "two"):
        shared.trials.outcome = identity
        shared.file.path.write_bytes(b"x" * (len(shared.file.path.read_bytes()) + 1))
        await shared.ask(1)
        shared.verdicts.load_ended(1, shared.file)
    assert shared.replaced == ["one"]
