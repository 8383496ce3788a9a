"""The client for synchronous code; its methods may be called from several threads."""

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, ClassVar, Self, Unpack

import grpc

from visavis import batches, calls, connection, reading, results, statuses
from visavis.cards import Model
from visavis.images import ImageSource


class Client:
    """A connection to one server. Use it in a `with` statement, or call `close`.

    address: HOST:PORT or unix:PATH. timeout: the default timeout of a call in seconds, retries
    included. tls: encrypts the connection; None for plaintext. token: sent with every call;
    without TLS, only to this machine. headers: sent with every call; those of a call replace them.
    The first call opens the connection.

    Every call raises a VisavisError if it fails, and an OSError if it can't read the picture.
    Calls that fail as UNAVAILABLE or are cut off are retried up to three times within their
    timeout. `visavis.images.ImageSource` lists the accepted pictures. Arrays from OpenCV need
    `channels="BGR"`; without it the model sees red and blue swapped.
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
        self._channel = self._server.open(
            grpc.insecure_channel, grpc.secure_channel, self._most_bytes
        )
        self._stubs = connection.Stubs(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls in progress raise Cancelled."""
        self._channel.close()

    def classify(
        self,
        image: ImageSource,
        *,
        model: str,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
        **options: Unpack[calls.ClassifyOptions],
    ) -> results.ClassifyResult:
        """Return one model's labels for the whole image."""
        request = calls.classify_request(image, model, **options)
        return reading.classify_result(self._call("Classify", request, timeout, headers))

    def detect(
        self,
        image: ImageSource,
        *,
        model: str,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
        **options: Unpack[calls.DetectOptions],
    ) -> results.DetectResult:
        """Return the objects that one model finds in the image."""
        request = calls.detect_request(image, model, **options)
        return reading.detect_result(self._call("Detect", request, timeout, headers))

    def compare(
        self,
        image: ImageSource,
        *,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
        **options: Unpack[calls.CompareOptions],
    ) -> results.Comparison:
        """Return the answers of all capable models for one image, side by side."""
        request = calls.compare_request(image, **options)
        return reading.comparison(self._call("Compare", request, timeout, headers))

    def compare_stream(
        self,
        image: ImageSource,
        *,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
        **options: Unpack[calls.CompareOptions],
    ) -> Iterator[results.StreamedAnswer | results.Comparison]:
        """Yield each model's answer as soon as it arrives, then the whole comparison.

        The timeout covers the whole stream. Closing the iterator early cancels the rest.
        """
        seconds = self._server.seconds(timeout)
        request = calls.compare_stream_request(image, **options)
        with statuses.translated(self._server.address, seconds):
            call = self._stubs.vision.CompareStream(
                request, timeout=seconds, metadata=self._server.metadata(headers)
            )
            try:
                for message in call:
                    event = reading.stream_event(message)
                    if event is not None:
                        yield event
            finally:
                call.cancel()

    def classify_many(
        self,
        images: Iterable[ImageSource],
        *,
        model: str,
        concurrency: int = batches.CONCURRENCY,
        progress: bool = False,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
        **options: Unpack[calls.ClassifyOptions],
    ) -> Iterator[batches.BatchItem[results.ClassifyResult]]:
        """Yield an item per image, in their order, with one model's labels or the error.

        images: an iterable of any length, of which no more than 2 * concurrency are held at a time.
        concurrency: the most calls at a time. progress: True for a bar on standard error. timeout:
        of each image, during which an overloaded server is asked again when it says.
        """

        def ask(image: ImageSource) -> results.ClassifyResult:
            request = calls.classify_request(image, model, **options)
            return reading.classify_result(self._repeat("Classify", request, timeout, headers))

        return batches.items(ask, images, concurrency, progress)

    def detect_many(
        self,
        images: Iterable[ImageSource],
        *,
        model: str,
        concurrency: int = batches.CONCURRENCY,
        progress: bool = False,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
        **options: Unpack[calls.DetectOptions],
    ) -> Iterator[batches.BatchItem[results.DetectResult]]:
        """Yield an item per image, in their order, with what one model finds or the error.

        The parameters are those of `classify_many` and `detect`.
        """

        def ask(image: ImageSource) -> results.DetectResult:
            request = calls.detect_request(image, model, **options)
            return reading.detect_result(self._repeat("Detect", request, timeout, headers))

        return batches.items(ask, images, concurrency, progress)

    def compare_many(
        self,
        images: Iterable[ImageSource],
        *,
        concurrency: int = batches.CONCURRENCY,
        progress: bool = False,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
        **options: Unpack[calls.CompareOptions],
    ) -> Iterator[batches.BatchItem[results.Comparison]]:
        """Yield an item per image, in their order, with all models' answers or the error.

        The parameters are those of `classify_many` and `compare`.
        """

        def ask(image: ImageSource) -> results.Comparison:
            request = calls.compare_request(image, **options)
            return reading.comparison(self._repeat("Compare", request, timeout, headers))

        return batches.items(ask, images, concurrency, progress)

    def list_models(
        self, *, timeout: float | None = None, headers: connection.Headers | None = None
    ) -> tuple[Model, ...]:
        """Return the cards of all models, sorted by name, without labels and receipts."""
        request = calls.list_models_request()
        return reading.models(self._call("ListModels", request, timeout, headers))

    def get_model(
        self,
        model: str,
        *,
        version: int | None = None,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
    ) -> Model:
        """Return one model's card, with its labels and its receipt."""
        request = calls.get_model_request(model, version)
        return reading.model(self._call("GetModel", request, timeout, headers))

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Return once the server has loaded its models.

        timeout: in seconds. Raises DeadlineExceeded when it runs out.
        """
        seconds = self._server.seconds(timeout)
        give_up_at = time.monotonic() + seconds
        with statuses.translated(self._server.address, seconds):
            while True:
                response = self._stubs.health.Check(
                    calls.health_request(),
                    timeout=max(0.0, give_up_at - time.monotonic()),
                    metadata=self._server.headers,
                    wait_for_ready=True,
                )
                if reading.is_serving(response):
                    return
                time.sleep(connection.READY_POLL_S)

    def _repeat(
        self,
        method: str,
        request: object,
        timeout: float | None,
        headers: connection.Headers | None,
    ) -> Any:
        seconds = self._server.seconds(timeout)
        return batches.patiently(lambda left: self._call(method, request, left, headers), seconds)

    def _call(
        self,
        method: str,
        request: object,
        timeout: float | None,
        headers: connection.Headers | None,
    ) -> Any:
        seconds = self._server.seconds(timeout)
        call = getattr(self._stubs.vision, method)
        with statuses.translated(self._server.address, seconds):
            return call(request, timeout=seconds, metadata=self._server.metadata(headers))
