"""A server whose models run on a device: the CPU, treated as one. See `tests.gpu` for real ones."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import onnxruntime
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from visavis.v1 import vision_pb2 as pb

from visavis_server.app import App
from visavis_server.models import planning
from visavis_server.runtime.providers import CPU

from . import pictures
from .serving import Served, served_by, settings

DEVICE = replace(CPU, on_device=True)


@pytest_asyncio.fixture
async def served(models: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(planning, "choose", lambda device, bf16: (DEVICE, "said the test"))
    async with served_by(App(settings(models, streams=1))) as served:
        yield served


async def until(happens: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not happens():
            await asyncio.sleep(0.01)


def request(seed: int) -> pb.ClassifyRequest:
    picture = pictures.encoded(pictures.noise(32, 48, 3, seed=seed))
    return pb.ClassifyRequest(model="colors", image=pb.Image(encoded=picture))


async def test_answers_of_a_device_are_those_of_the_cores(
    served: Served, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actual = [await served.stub.Classify(request(seed)) for seed in range(3)]
    monkeypatch.undo()
    async with served_by(App(settings(models))) as cores:
        for seed in range(3):
            expected = await cores.stub.Classify(request(seed))
            assert actual[seed].classifications == expected.classifications


@pytest.mark.parametrize(("most", "refusals"), [(8, 0), (4, 26)])
async def test_a_batch_that_exceeds_the_memory_of_a_device_is_served_in_halves_or_refused(
    served: Served, monkeypatch: pytest.MonkeyPatch, most: int, refusals: int
) -> None:
    run, sizes = onnxruntime.InferenceSession.run_with_iobinding, []
    may_run = threading.Event()

    def short(session: Any, binding: Any, options: Any = None) -> None:
        (bound,) = binding._bound_inputs.values()
        sizes.append(size := bound.shape()[0])
        assert may_run.wait(10)
        if size > most:
            raise RuntimeError(
                "Available memory of 34699008 is smaller than requested bytes of 945041920"
            )
        run(session, binding, options)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", short)
    calls = [asyncio.ensure_future(served.stub.Classify(request(0)))]
    await until(lambda: sizes == [1])  # it holds the stream
    calls += [asyncio.ensure_future(served.stub.Classify(request(seed))) for seed in range(26)]
    await until(lambda: len(served.app.scheduler._state.prepared) == 26)
    may_run.set()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    # A batch of 16 in halves of 8; one of 10 in halves of 5, padded to 8.
    assert sizes == [1, 16, 8, 8, 16, 8, 8]
    refused = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    assert len(refused) == refusals
    for error in refused:
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "out of memory; try again later" in (error.details() or "")
        status = rpc_status.from_call(error)
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in status.details)
        assert retry.retry_delay.ToTimedelta().total_seconds() >= 0.1
