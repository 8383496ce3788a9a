"""The client for asyncio; the same calls as `Client`, awaited."""

import asyncio
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self, Unpack
from weakref import WeakKeyDictionary

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from visavis import calls, connection, reading, results, statuses
from visavis.cards import Model, read_model
from visavis.images import ImageSource
from visavis.v1 import vision_pb2 as pb
from visavis.v1 import vision_pb2_grpc


class _Connection:
    """A channel, and the stubs that call over it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        # The generated stubs have no types.
        self.vision: Any = vision_pb2_grpc.VisionServiceStub(channel)  # type: ignore[no-untyped-call]
        self.health: Any = health_pb2_grpc.HealthStub(channel)


class AsyncClient:
    """A client of one server that connects with its first call, once for each event loop.

    It can be made before a loop runs, for example at import. Use it in an `async with` statement,
    or await `close`. The parameters, the errors and the retries are those of `Client`. Pictures
    are read in a worker thread. Cancelling a task cancels its call, and the server drops the work.
    """

    def __init__(
        self,
        address: str = connection.DEFAULT_ADDRESS,
        *,
        timeout: float = connection.DEFAULT_TIMEOUT_S,
        tls: connection.TLS | None = None,
        token: str | None = None,
    ) -> None:
        where = connection.endpoint(address)
        credentials = connection.channel_credentials(tls)
        self._address = address
        self._timeout = connection.checked_timeout(timeout)
        self._metadata = connection.call_metadata(where, tls, token)
        self._target = where.target
        self._credentials = credentials
        self._options = connection.channel_options(where)
        # A channel of grpc.aio belongs to the loop in which it is made.
        self._connections: WeakKeyDictionary[asyncio.AbstractEventLoop, _Connection]
        self._connections = WeakKeyDictionary()

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
        """Close the running loop's connection; calls under way end as Cancelled.

        A later call connects again.
        """
        if found := self._connections.pop(asyncio.get_running_loop(), None):
            await found.channel.close(grace=None)

    async def classify(
        self,
        image: ImageSource,
        *,
        model: str,
        timeout: float | None = None,
        **options: Unpack[calls.ClassifyOptions],
    ) -> results.ClassifyResult:
        """Return the labels that one model gives the whole image."""
        request = await asyncio.to_thread(calls.classify_request, image, model, **options)
        return reading.classify_result(await self._call("Classify", request, timeout))

    async def detect(
        self,
        image: ImageSource,
        *,
        model: str,
        timeout: float | None = None,
        **options: Unpack[calls.DetectOptions],
    ) -> results.DetectResult:
        """Return the objects that one model finds in the image."""
        request = await asyncio.to_thread(calls.detect_request, image, model, **options)
        return reading.detect_result(await self._call("Detect", request, timeout))

    async def compare(
        self,
        image: ImageSource,
        *,
        timeout: float | None = None,
        **options: Unpack[calls.CompareOptions],
    ) -> results.Comparison:
        """Return every capable model's answer about one image, side by side."""
        request = await asyncio.to_thread(calls.compare_request, image, **options)
        return reading.comparison(await self._call("Compare", request, timeout))

    async def compare_stream(
        self,
        image: ImageSource,
        *,
        timeout: float | None = None,
        **options: Unpack[calls.CompareOptions],
    ) -> AsyncIterator[results.StreamedAnswer | results.Comparison]:
        """Yield each model's answer as soon as it is there; the last item is the comparison.

        The timeout holds for the whole stream. Whoever stops early cancels the rest.
        """
        seconds = self._seconds(timeout)
        request = await asyncio.to_thread(calls.compare_stream_request, image, **options)
        with statuses.translated(self._address, seconds):
            metadata = connection.traced(self._metadata)
            call = self._connection().vision.CompareStream(
                request, timeout=seconds, metadata=metadata
            )
            try:
                async for message in call:
                    event = reading.stream_event(message)
                    if event is not None:
                        yield event
            finally:
                call.cancel()

    async def list_models(self, *, timeout: float | None = None) -> tuple[Model, ...]:
        """Return the cards of all models by name, without labels and receipts."""
        response = await self._call("ListModels", pb.ListModelsRequest(), timeout)
        return tuple(read_model(card) for card in response.models)

    async def get_model(
        self, model: str, *, version: int | None = None, timeout: float | None = None
    ) -> Model:
        """Return one model's card, with its labels and its receipt."""
        request = calls.get_model_request(model, version)
        return read_model((await self._call("GetModel", request, timeout)).model)

    async def wait_until_ready(self, timeout: float | None = None) -> None:
        """Return as soon as the server has loaded its models.

        Raises DeadlineExceeded where it takes longer than the timeout, in seconds.
        """
        seconds = self._seconds(timeout)
        give_up_at = time.monotonic() + seconds
        request = health_pb2.HealthCheckRequest()
        with statuses.translated(self._address, seconds):
            while True:
                remaining = max(0.0, give_up_at - time.monotonic())
                response = await self._connection().health.Check(
                    request, timeout=remaining, metadata=self._metadata, wait_for_ready=True
                )
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    return
                await asyncio.sleep(connection.READY_POLL_S)

    async def _call(self, method: str, request: object, timeout: float | None) -> Any:
        seconds = self._seconds(timeout)
        call = getattr(self._connection().vision, method)
        with statuses.translated(self._address, seconds):
            return await call(request, timeout=seconds, metadata=connection.traced(self._metadata))

    def _connection(self) -> _Connection:
        """Return the running loop's connection."""
        loop = asyncio.get_running_loop()
        if (found := self._connections.get(loop)) is None:
            if self._credentials is None:
                channel = grpc.aio.insecure_channel(self._target, self._options)
            else:
                channel = grpc.aio.secure_channel(self._target, self._credentials, self._options)
            found = self._connections[loop] = _Connection(channel)
        return found

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else connection.checked_timeout(timeout)
