"""Batches of both clients: order, errors, bounds."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2
from visavis import AsyncClient, BatchItem, Client, InvalidRequest, InvalidSettings, Overloaded
from visavis.results import DetectResult
from visavis.v1 import vision_pb2 as pb

from .fakes import FakeServer, refusal

Items = Iterator[BatchItem[DetectResult]]
Batch = Callable[..., Items]
PATIENCE_S = 20


@pytest.fixture(params=["sync", "async"])
def batch(request: pytest.FixtureRequest, fake: FakeServer) -> Iterator[Batch]:
    """A function that detects in many pictures, of either client."""
    if request.param == "sync":
        with Client(fake.address, timeout=PATIENCE_S) as client:
            yield lambda images, **options: client.detect_many(images, model="m", **options)
        return
    with asyncio.Runner() as loop:
        client = AsyncClient(fake.address, timeout=PATIENCE_S)

        def items(images: Any, **options: Any) -> Items:
            found = client.detect_many(images, model="m", **options)
            try:
                while True:
                    yield loop.run(found.__anext__())
            except StopAsyncIteration:
                return
            finally:
                loop.run(found.aclose())

        yield items
        loop.run(client.close())


def pictures(count: int) -> list[bytes]:
    return [str(number).encode() for number in range(count)]


def width(request: Any, context: Any) -> pb.DetectResponse:
    """Return an answer that shows which picture it is for."""
    return pb.DetectResponse(image_size=pb.ImageSize(width=int(request.image.encoded)))


def widths(items: Iterable[BatchItem[DetectResult]]) -> list[int]:
    return [item.unwrap().image_size.width for item in items]


def test_answers_come_in_the_order_of_the_pictures(batch: Batch, fake: FakeServer):
    def later_is_faster(request: Any, context: Any) -> Any:
        time.sleep(0.05 / (1 + int(request.image.encoded)))
        return width(request, context)

    fake.answers["Detect"] = later_is_faster
    assert widths(batch(pictures(20), concurrency=4)) == list(range(20))


def test_no_more_calls_than_allowed_run_at_a_time(batch: Batch, fake: FakeServer):
    lock, running, most = threading.Lock(), 0, 0

    def count(request: Any, context: Any) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return width(request, context)

    fake.answers["Detect"] = count
    assert len(list(batch(pictures(30), concurrency=3))) == 30
    assert most == 3


def test_a_generator_of_a_thousand_pictures_is_read_a_few_at_a_time(batch: Batch, fake: FakeServer):
    fake.answers["Detect"] = width
    taken = most_ahead = 0

    def source() -> Iterator[bytes]:
        nonlocal taken
        for picture in pictures(1000):
            taken += 1
            yield picture

    for number, item in enumerate(batch(source(), concurrency=4)):
        most_ahead = max(most_ahead, taken - number)
        assert item.unwrap().image_size.width == number
    assert (taken, most_ahead <= 9) == (1000, True)


def test_a_failed_picture_has_its_error_and_the_others_their_results(
    batch: Batch, fake: FakeServer
):
    def refuse_one(request: Any, context: Any) -> Any:
        if request.image.encoded == b"2":
            refusal(code_pb2.INVALID_ARGUMENT, "no picture")(request, context)
        return width(request, context)

    fake.answers["Detect"] = refuse_one
    images = [b"0", "no/such/file.jpg", b"2", b"3"]
    items = list(batch(images))
    assert [item.image for item in items] == images
    assert [item.index for item in items] == [0, 1, 2, 3]
    assert [type(item.error) for item in items] == [
        type(None),
        FileNotFoundError,
        InvalidRequest,
        type(None),
    ]
    assert widths([items[0], items[3]]) == [0, 3]
    with pytest.raises(InvalidRequest, match="no picture"):
        items[2].unwrap()


def test_an_error_of_the_source_follows_the_answers_before_it(batch: Batch, fake: FakeServer):
    def source() -> Iterator[bytes]:
        yield from pictures(3)
        raise ValueError("the camera is gone")

    fake.answers["Detect"] = width
    items = batch(source())
    assert widths(next(items) for _ in range(3)) == [0, 1, 2]
    with pytest.raises(ValueError, match="camera is gone"):
        next(items)


def test_closing_a_batch_early_abandons_the_rest(batch: Batch, fake: FakeServer):
    taken = 0

    def source() -> Iterator[bytes]:
        nonlocal taken
        for picture in pictures(1000):
            taken += 1
            yield picture

    fake.answers["Detect"] = width
    items = batch(source(), concurrency=2)
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert taken <= 5
    assert fake.calls["Detect"] <= 5


def test_an_overloaded_server_is_asked_again_when_it_says(batch: Batch, fake: FakeServer):
    delay = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=50_000_000))

    def overloaded_twice(request: Any, context: Any) -> Any:
        if fake.calls["Detect"] <= 2:
            refusal(code_pb2.RESOURCE_EXHAUSTED, "queue is full", delay)(request, context)
        return width(request, context)

    fake.answers["Detect"] = overloaded_twice
    begun = time.monotonic()
    assert widths(batch([b"7"])) == [7]
    assert fake.calls["Detect"] == 3
    assert time.monotonic() - begun >= 0.1


def test_an_overloaded_server_is_not_waited_for_beyond_the_timeout(batch: Batch, fake: FakeServer):
    delay = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=3600))
    fake.answers["Detect"] = refusal(code_pb2.RESOURCE_EXHAUSTED, "queue is full", delay)
    (item,) = batch([b"7"])
    assert isinstance(item.error, Overloaded)
    assert item.error.retry_after_s == 3600


def test_progress_counts_pictures_and_failures(
    batch: Batch, fake: FakeServer, capsys: pytest.CaptureFixture[str]
):
    fake.answers["Detect"] = width
    assert len(list(batch([b"0", "no/such/file.jpg", b"2"], progress=True))) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "pictures, 1 failed" in printed.err
    assert "3/3" in printed.err


def test_concurrency_below_one_is_rejected(batch: Batch):
    with pytest.raises(InvalidSettings, match="concurrency is 0"):
        list(batch([b"0"], concurrency=0))


async def test_pictures_may_come_from_an_asynchronous_source(fake: FakeServer):
    async def source() -> AsyncIterator[bytes]:
        for picture in pictures(3):
            await asyncio.sleep(0)
            yield picture

    fake.answers["Detect"] = width
    async with AsyncClient(fake.address) as client:
        items = [item async for item in client.detect_many(source(), model="m")]
    assert widths(items) == [0, 1, 2]


def test_every_method_has_a_batch(client: Client):
    images = [b"jpeg", b"jpeg"]
    labels = [item.unwrap() for item in client.classify_many(images, model="resnet50", top_k=2)]
    assert labels == [client.classify(b"jpeg", model="resnet50")] * 2
    compared = [item.unwrap() for item in client.compare_many(images, tasks=["detection"])]
    assert compared == [client.compare(b"jpeg")] * 2
