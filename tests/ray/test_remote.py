"""The ingress's models: their work runs on replicas, which may end, or be full or outdated."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from tests.server import graphs
from visavis_server.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    Unavailable,
    VisavisError,
)
from visavis_server.models.served_model import Origin, ServedModel
from visavis_server.ray import remote
from visavis_server.ray.remote import Pictures, remote_model
from visavis_server.ray.wire import (
    Description,
    Failure,
    PictureAnswer,
    TensorAnswer,
    UnknownVersion,
    Work,
)
from visavis_server.runtime.plan import Plan
from visavis_server.runtime.scheduling.scheduler import Scheduler
from visavis_server.runtime.scheduling.work import Caller
from visavis_server.telemetry.timings import Timings
from visavis_server.vision.results import Answer, Classified, ClassifyOptions, Options, Picture

FILE = b"a picture's file"
PIXELS = np.zeros((4, 6, 3), np.uint8)
CALLER = Caller("Classify")
DESCRIPTION = Description(
    3, graphs.classifier_document(), Plan(), "CPUExecutionProvider", [[None, 3]],
    Origin("identity", ()), False,
)  # fmt: skip


class Response:
    """What Ray's handle returns: awaitable, and can be cancelled."""

    def __init__(self, outcome: Awaitable[Any]) -> None:
        self._outcome = outcome
        self.cancelled = False

    def __await__(self) -> Any:
        return self._outcome.__await__()

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """The handle of a deployment whose replicas do what is next in `outcomes`."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.received: list[tuple[Work, Any]] = []
        self.responses: list[Response] = []
        self.answer = self.infer = self

    def remote(self, work: Work, sent: Any) -> Response:
        self.received.append((work, sent))
        response = Response(self._outcome(self.outcomes.pop(0)))
        self.responses.append(response)
        return response

    async def _outcome(self, outcome: Any) -> Any:
        if isinstance(outcome, asyncio.Event):
            await outcome.wait()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def _answer() -> PictureAnswer:
    model, _ = _model(Handle())
    result = Classified((), np.ones(3, np.float32))
    return PictureAnswer(Answer(result, model.served_by, Timings(1, 2, 3, 4, 5, 20)), 6, 4)


def _model(handle: Handle) -> tuple[ServedModel, list[None]]:
    """Return a model behind a handle, and a list that grows each time it is found outdated."""
    outdated: list[None] = []
    pictures = Pictures(Scheduler(1, 8))
    return remote_model(DESCRIPTION, handle, pictures, lambda: outdated.append(None)), outdated


def _picture(encoded: Callable[[], bytes] | None = lambda: FILE) -> Picture:
    return Picture(lambda: PIXELS, encoded=encoded)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSES_S", (0.0,) * 4)


async def test_a_picture_for_one_model_is_decoded_where_the_model_is() -> None:
    handle = Handle(_answer())
    model, _ = _model(handle)
    picture = _picture()
    answer = await model.answer(picture, Options(ClassifyOptions(top_k=2)), CALLER)
    ((work, sent),) = handle.received
    assert (work.version, sent) == (3, FILE)
    assert work.options == ClassifyOptions(top_k=2)
    assert (picture.width, picture.height) == (6, 4)
    timings = answer.timings
    assert (timings.queue_ms, timings.decode_ms, timings.preprocess_ms) == (1, 2, 3)
    assert (timings.inference_ms, timings.postprocess_ms) == (4, 5)


async def test_a_compared_picture_is_put_into_the_store_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put: list[Any] = []
    monkeypatch.setattr(remote.ray, "put", lambda pixels: put.append(pixels) or "reference")
    handles = Handle(_answer()), Handle(_answer())
    pictures = Pictures(Scheduler(1, 8))
    models = [remote_model(DESCRIPTION, each, pictures, lambda: None) for each in handles]
    picture = _picture()
    picture.keep = True
    await asyncio.gather(*(model.answer(picture, Options(), CALLER) for model in models))
    assert len(put) == 1
    assert [handle.received[0][1] for handle in handles] == ["reference"] * 2


@pytest.mark.parametrize(
    "died",
    [
        ActorDiedError(),
        ActorUnavailableError("unreachable", None),
        DeploymentUnavailableError(DeploymentID("colors")),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_call_whose_replica_ends_is_repeated_on_another(died: Exception) -> None:
    handle = Handle(died, died, _answer())
    model, outdated = _model(handle)
    await model.answer(_picture(), Options(), CALLER)
    assert len(handle.received) == 3
    assert not outdated


async def test_a_client_is_told_to_retry_if_replicas_keep_ending() -> None:
    model, _ = _model(Handle(*[ActorUnavailableError("at 10.0.0.7", None)] * 4))
    with pytest.raises(Unavailable, match="replica of model colors ended; retry") as caught:
        await model.answer(_picture(), Options(), CALLER)
    assert "10.0.0.7" not in str(caught.value)


async def test_a_replica_of_another_release_makes_the_ingress_look_again() -> None:
    model, outdated = _model(Handle(UnknownVersion(), _answer()))
    await model.answer(_picture(), Options(), CALLER)
    assert len(outdated) == 1
    model, _ = _model(Handle(*[UnknownVersion()] * 4))
    with pytest.raises(Unavailable, match="version 3 of model colors is being replaced"):
        await model.answer(_picture(), Options(), CALLER)


async def test_a_full_queue_is_an_overload() -> None:
    model, _ = _model(Handle(BackPressureError(num_queued_requests=9, max_queued_requests=9)))
    with pytest.raises(Overloaded, match="waiting for model colors") as caught:
        await model.answer(_picture(), Options(), CALLER)
    assert caught.value.retry_after_s > 0


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("image.encoded", "the image is damaged"),
        ModelNotFound("no such version", "version"),
        Overloaded("the queue is full", 2.5),
        DeadlineExceeded("too late"),
        Unavailable("loading"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_replicas_error_arrives_as_it_was(error: VisavisError) -> None:
    model, _ = _model(Handle(Failure.of(error)))
    with pytest.raises(type(error)) as caught:
        await model.answer(_picture(), Options(), CALLER)
    arrived = caught.value
    assert (str(arrived), arrived.field, arrived.code) == (str(error), error.field, error.code)
    assert getattr(arrived, "retry_after_s", None) == getattr(error, "retry_after_s", None)


async def test_a_replica_learns_the_time_that_is_left() -> None:
    handle = Handle(_answer())
    model, _ = _model(handle)
    await model.answer(_picture(), Options(), Caller("Classify", time.monotonic() + 7))
    ((work, _),) = handle.received
    assert work.timeout_s is not None
    assert 6 < work.timeout_s <= 7


async def test_work_whose_deadline_passes_is_cancelled_on_the_replica() -> None:
    handle = Handle(asyncio.Event())
    model, _ = _model(handle)
    with pytest.raises(DeadlineExceeded):
        await model.answer(_picture(), Options(), Caller("Classify", time.monotonic() + 0.02))
    assert handle.responses[0].cancelled
    with pytest.raises(DeadlineExceeded):
        await model.answer(_picture(), Options(), Caller("Classify", time.monotonic() - 1))
    assert len(handle.received) == 1


async def test_work_that_its_caller_leaves_is_cancelled_on_the_replica() -> None:
    handle = Handle(asyncio.Event())
    model, _ = _model(handle)
    leaving = asyncio.create_task(model.answer(_picture(), Options(), CALLER))
    while not handle.responses:
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert leaving.cancelled()
    assert handle.responses[0].cancelled


async def test_tensors_are_sent_as_they_are() -> None:
    tensor = np.arange(3, dtype=np.float32)
    handle = Handle(TensorAnswer(tensor, 4.0))
    model, _ = _model(handle)
    batch = np.ones((1, 3, 8, 8), np.float32)
    (result,) = await model.infer(batch, CALLER)
    assert result is tensor
    assert np.array_equal(handle.received[0][1], batch[0])
