"""The client for ordinary code; safe to share between threads."""

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, Unpack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from visavis import calls, connection, reading, results, statuses
from visavis.cards import Model, read_model
from visavis.images import ImageSource
from visavis.v1 import vision_pb2 as pb
from visavis.v1 import vision_pb2_grpc


class Client:
    """A connection to one server. Use it in a `with` statement, or call `close`.

    address: HOST:PORT or unix:PATH. timeout: seconds that a call may take, retries included,
    unless the call names its own. tls: encrypts the connection; None: plaintext. token: sent
    with every call; without TLS only to this machine. Nothing is sent before the first call.

    Every call raises a VisavisError where it fails, and an OSError for a picture that can't be
    read. Calls that end as UNAVAILABLE, or are cut off, are made up to four times within their
    timeout. Pictures are as `visavis.images.ImageSource` says: OpenCV's arrays need
    `channels="BGR"`, or their scores are those of another picture.
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
        options = connection.channel_options(where)
        if credentials is None:
            self._channel = grpc.insecure_channel(where.target, options)
        else:
            self._channel = grpc.secure_channel(where.target, credentials, options)
        # The generated stubs have no types.
        self._stub: Any = vision_pb2_grpc.VisionServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)

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
        """Close the connection; calls under way end as Cancelled."""
        self._channel.close()

    def classify(
        self,
        image: ImageSource,
        *,
        model: str,
        timeout: float | None = None,
        **options: Unpack[calls.ClassifyOptions],
    ) -> results.ClassifyResult:
        """Return the labels that one model gives the whole image."""
        request = calls.classify_request(image, model, **options)
        return reading.classify_result(self._call(self._stub.Classify, request, timeout))

    def detect(
        self,
        image: ImageSource,
        *,
        model: str,
        timeout: float | None = None,
        **options: Unpack[calls.DetectOptions],
    ) -> results.DetectResult:
        """Return the objects that one model finds in the image."""
        request = calls.detect_request(image, model, **options)
        return reading.detect_result(self._call(self._stub.Detect, request, timeout))

    def compare(
        self,
        image: ImageSource,
        *,
        timeout: float | None = None,
        **options: Unpack[calls.CompareOptions],
    ) -> results.Comparison:
        """Return every capable model's answer about one image, side by side."""
        request = calls.compare_request(image, **options)
        return reading.comparison(self._call(self._stub.Compare, request, timeout))

    def compare_stream(
        self,
        image: ImageSource,
        *,
        timeout: float | None = None,
        **options: Unpack[calls.CompareOptions],
    ) -> Iterator[results.StreamedAnswer | results.Comparison]:
        """Yield each model's answer as soon as it is there; the last item is the comparison.

        The timeout holds for the whole stream. Whoever stops early cancels the rest.
        """
        seconds = self._seconds(timeout)
        request = calls.compare_stream_request(image, **options)
        with statuses.translated(self._address, seconds):
            metadata = connection.traced(self._metadata)
            call = self._stub.CompareStream(request, timeout=seconds, metadata=metadata)
            try:
                for message in call:
                    event = reading.stream_event(message)
                    if event is not None:
                        yield event
            finally:
                call.cancel()

    def list_models(self, *, timeout: float | None = None) -> tuple[Model, ...]:
        """Return the cards of all models by name, without labels and receipts."""
        response = self._call(self._stub.ListModels, pb.ListModelsRequest(), timeout)
        return tuple(read_model(card) for card in response.models)

    def get_model(
        self, model: str, *, version: int | None = None, timeout: float | None = None
    ) -> Model:
        """Return one model's card, with its labels and its receipt."""
        request = calls.get_model_request(model, version)
        return read_model(self._call(self._stub.GetModel, request, timeout).model)

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Return as soon as the server has loaded its models.

        Raises DeadlineExceeded where it takes longer than the timeout, in seconds.
        """
        seconds = self._seconds(timeout)
        give_up_at = time.monotonic() + seconds
        request = health_pb2.HealthCheckRequest()
        with statuses.translated(self._address, seconds):
            while True:
                remaining = max(0.0, give_up_at - time.monotonic())
                response = self._health.Check(
                    request, timeout=remaining, metadata=self._metadata, wait_for_ready=True
                )
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    return
                time.sleep(connection.READY_POLL_S)

    def _call(self, method: Callable[..., Any], request: object, timeout: float | None) -> Any:
        seconds = self._seconds(timeout)
        with statuses.translated(self._address, seconds):
            return method(request, timeout=seconds, metadata=connection.traced(self._metadata))

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else connection.checked_timeout(timeout)
