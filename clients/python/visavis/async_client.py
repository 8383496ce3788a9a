"""The client for asyncio: the methods of `Client`, awaited.

It is written by hand, not generated from `Client`: connections differ by event loop, and pictures
are read in threads. tests/clients/test_twins.py keeps the two interfaces equal.
"""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Self, Unpack
from weakref import WeakKeyDictionary

import grpc

from visavis import batches, calls, connection, reading, results, statuses
from visavis.cards import Model
from visavis.images import ImageSource


class AsyncClient:
    """A client of one server, with one connection per event loop, opened by the first call.

    It can be created before a loop runs, for example at import. Use it in an `async with`
    statement, or await `close`. Parameters, errors and retries are those of `Client`. Pictures
    are read in a worker thread. Cancelling a task cancels its call, and the server drops the work.
    """

    _most_bytes: ClassVar[int] = connection.MESSAGE_BYTES_MAX  # of a response

    def __init__(
        self,
        address: str = connection.DEFAULT_ADDRESS,
        *,
        timeout: float = connection.DEFAULT_TIMEOUT_S,
        tls: connection.TLS | None = None,
        token: str | None = None,
        headers: connection.Headers | None = None,
    ) -> None:
        self._server = connection.server(address, timeout, tls, token, headers)
        # A grpc.aio channel belongs to the event loop that was running when it was created.
        self._channels: WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[grpc.aio.Channel, connection.Stubs]
        ]
        self._channels = WeakKeyDictionary()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls in progress raise Cancelled.

        Only the running event loop's connection is closed. A later call opens a new one.
        """
        if opened := self._channels.pop(asyncio.get_running_loop(), None):
            channel, _ = opened
            await channel.close(grace=None)

    async def classify(
        self,
        image: ImageSource,
        *,
        model: str,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
        **options: Unpack[calls.ClassifyOptions],
    ) -> results.ClassifyResult:
        """Return one model's labels for the whole image."""
        request = await asyncio.to_thread(calls.classify_request, image, model, **options)
        return reading.classify_result(await self._call("Classify", request, timeout, headers))

    async def detect(
        self,
        image: ImageSource,
        *,
        model: str,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
        **options: Unpack[calls.DetectOptions],
    ) -> results.DetectResult:
        """Return the objects that one model finds in the image."""
        request = await asyncio.to_thread(calls.detect_request, image, model, **options)
        return reading.detect_result(await self._call("Detect", request, timeout, headers))

    async def compare(
        self,
        image: ImageSource,
        *,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
        **options: Unpack[calls.CompareOptions],
    ) -> results.Comparison:
        """Return the answers of all capable models for one image, side by side."""
        request = await asyncio.to_thread(calls.compare_request, image, **options)
        return reading.comparison(await self._call("Compare", request, timeout, headers))

    async def compare_stream(
        self,
        image: ImageSource,
        *,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
        **options: Unpack[calls.CompareOptions],
    ) -> AsyncIterator[results.StreamedAnswer | results.Comparison]:
        """Yield each model's answer as soon as it arrives, then the whole comparison.

        The timeout covers the whole stream. Closing the iterator early cancels the rest.
        """
        seconds = self._server.seconds(timeout)
        request = await asyncio.to_thread(calls.compare_stream_request, image, **options)
        with statuses.translated(self._server.address, seconds):
            call = self._stubs().vision.CompareStream(
                request, timeout=seconds, metadata=self._server.metadata(headers)
            )
            try:
                async for message in call:
                    event = reading.stream_event(message)
                    if event is not None:
                        yield event
            finally:
                call.cancel()

    async def classify_many(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        *,
        model: str,
        concurrency: int = batches.CONCURRENCY,
        progress: bool = False,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
        **options: Unpack[calls.ClassifyOptions],
    ) -> AsyncIterator[batches.BatchItem[results.ClassifyResult]]:
        """Yield an item per image, in their order, with one model's labels or the error.

        images: an iterable of any length, of which no more than 2 * concurrency are held at a time.
        concurrency: the most calls at a time. progress: True for a bar on standard error. timeout:
        of each image, during which an overloaded server is asked again when it says.
        """

        async def ask(image: ImageSource) -> results.ClassifyResult:
            request = await asyncio.to_thread(calls.classify_request, image, model, **options)
            answer = await self._repeat("Classify", request, timeout, headers)
            return reading.classify_result(answer)

        items = batches.async_items(ask, images, concurrency, progress)
        async with aclosing(items):
            async for item in items:
                yield item

    async def detect_many(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        *,
        model: str,
        concurrency: int = batches.CONCURRENCY,
        progress: bool = False,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
        **options: Unpack[calls.DetectOptions],
    ) -> AsyncIterator[batches.BatchItem[results.DetectResult]]:
        """Yield an item per image, in their order, with what one model finds or the error.

        The parameters are those of `classify_many` and `detect`.
        """

        async def ask(image: ImageSource) -> results.DetectResult:
            request = await asyncio.to_thread(calls.detect_request, image, model, **options)
            answer = await self._repeat("Detect", request, timeout, headers)
            return reading.detect_result(answer)

        items = batches.async_items(ask, images, concurrency, progress)
        async with aclosing(items):
            async for item in items:
                yield item

    async def compare_many(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        *,
        concurrency: int = batches.CONCURRENCY,
        progress: bool = False,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
        **options: Unpack[calls.CompareOptions],
    ) -> AsyncIterator[batches.BatchItem[results.Comparison]]:
        """Yield an item per image, in their order, with all models' answers or the error.

        The parameters are those of `classify_many` and `compare`.
        """

        async def ask(image: ImageSource) -> results.Comparison:
            request = await asyncio.to_thread(calls.compare_request, image, **options)
            answer = await self._repeat("Compare", request, timeout, headers)
            return reading.comparison(answer)

        items = batches.async_items(ask, images, concurrency, progress)
        async with aclosing(items):
            async for item in items:
                yield item

    async def list_models(
        self, *, timeout: float | None = None, headers: connection.Headers | None = None
    ) -> tuple[Model, ...]:
        """Return the cards of all models, sorted by name, without labels and receipts."""
        request = calls.list_models_request()
        return reading.models(await self._call("ListModels", request, timeout, headers))

    async def get_model(
        self,
        model: str,
        *,
        version: int | None = None,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
    ) -> Model:
        """Return one model's card, with its labels and its receipt."""
        request = calls.get_model_request(model, version)
        return reading.model(await self._call("GetModel", request, timeout, headers))

    async def wait_until_ready(self, timeout: float | None = None) -> None:
        """Return once the server has loaded its models.

        timeout: in seconds. Raises DeadlineExceeded when it runs out.
        """
        seconds = self._server.seconds(timeout)
        give_up_at = time.monotonic() + seconds
        with statuses.translated(self._server.address, seconds):
            while True:
                response = await self._stubs().health.Check(
                    calls.health_request(),
                    timeout=max(0.0, give_up_at - time.monotonic()),
                    metadata=self._server.headers,
                    wait_for_ready=True,
                )
                if reading.is_serving(response):
                    return
                await asyncio.sleep(connection.READY_POLL_S)

    async def _repeat(
        self,
        method: str,
        request: object,
        timeout: float | None,
        headers: connection.Headers | None,
    ) -> Any:
        seconds = self._server.seconds(timeout)
        call = partial(self._call, method, request, headers=headers)
        return await batches.async_patiently(call, seconds)

    async def _call(
        self,
        method: str,
        request: object,
        timeout: float | None,
        headers: connection.Headers | None,
    ) -> Any:
        seconds = self._server.seconds(timeout)
        call = getattr(self._stubs().vision, method)
        with statuses.translated(self._server.address, seconds):
            return await call(request, timeout=seconds, metadata=self._server.metadata(headers))

    def _stubs(self) -> connection.Stubs:
        """Return the stubs of the running event loop's channel, opened if necessary."""
        loop = asyncio.get_running_loop()
        if (opened := self._channels.get(loop)) is None:
            channel = self._server.open(
                grpc.aio.insecure_channel, grpc.aio.secure_channel, self._most_bytes
            )
            opened = self._channels[loop] = channel, connection.Stubs(channel)
        return opened[1]
