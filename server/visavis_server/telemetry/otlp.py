"""OpenTelemetry traces: a span for each call and each of its stages.

A client's trace continues here, by the W3C header `traceparent`. The extra `trace` installs the
packages; the server sends traces only if the setting `trace` is set.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Final, Protocol

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from visavis_server.telemetry import call_trace
from visavis_server.telemetry.timings import Timings

_CONTEXT: Final = TraceContextTextMapPropagator()
_SYSTEMS: Final = {"grpc": "grpc", "http": "connect_rpc"}
# The gRPC statuses of errors that are the server's fault.
_FAULTS: Final = {"INTERNAL", "UNAVAILABLE", "UNKNOWN", "DATA_LOSS"}


class Call(Protocol):
    """A traced call."""

    @property
    def method(self) -> str:
        """The full name of the RPC."""
        ...

    @property
    def request_id(self) -> str:
        """The id of the request."""
        ...

    @property
    def code(self) -> str:
        """The name of the gRPC status that it ended with."""
        ...


class Tracing:
    """Sends spans to an OTLP collector, in batches, in the background."""

    def __init__(self, exporter: SpanExporter) -> None:
        about = {"service.name": "visavis", "service.version": version("visavis-server")}
        self._provider = TracerProvider(resource=Resource.create(about))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("visavis.server")

    @classmethod
    def to(cls, endpoint: str) -> "Tracing":
        """Return a tracer for the collector at http://HOST:PORT or https://…, by OTLP over gRPC."""
        return cls(OTLPSpanExporter(endpoint, insecure=endpoint.startswith("http:")))

    @contextmanager
    def around(self, transport: str, call: Call, headers: Mapping[str, Any]) -> Iterator[None]:
        """Trace a call.

        transport: "grpc" or "http". headers: the request's, with names in lower case.
        """
        service, _, method = call.method.lstrip("/").rpartition("/")
        about = {"rpc.system": _SYSTEMS[transport], "rpc.service": service, "rpc.method": method}
        span = self._tracer.start_span(
            f"{service}/{method}",
            _CONTEXT.extract(headers),
            SpanKind.SERVER,
            {**about, "visavis.request_id": call.request_id},
        )
        structlog.contextvars.bind_contextvars(
            trace_id=trace.format_trace_id(span.get_span_context().trace_id)
        )
        call_trace.begin(_CallTrace(self._tracer, span))
        try:
            yield
        finally:
            span.set_attribute("rpc.response.status_code", call.code)
            if call.code in _FAULTS:
                span.set_status(Status(StatusCode.ERROR, call.code))
            span.end()

    def close(self) -> None:
        """Send the remaining spans."""
        self._provider.shutdown()


class _CallTrace:
    """One call's span; its stages are its children."""

    def __init__(self, tracer: trace.Tracer, span: Span) -> None:
        self._tracer = tracer
        self._context = trace.set_span_in_context(span)

    def stages(self, timings: Timings, **about: str | int) -> None:
        """Record the stages of an operation that has just ended.

        The first three stages are placed from the start, the last two from the end: in between,
        a picture may have waited for others in its batch.
        """
        attributes = {f"visavis.{name}": value for name, value in about.items()}
        end = time.time_ns()
        at = end - _ns(timings.total_ms)
        first = (
            ("queue", timings.queue_ms),
            ("decode", timings.decode_ms),
            ("preprocess", timings.preprocess_ms),
        )
        for name, ms in first:
            if ms:
                self._stage(name, at, at + _ns(ms), attributes)
            at += _ns(ms)
        for name, ms in (
            ("postprocess", timings.postprocess_ms),
            ("inference", timings.inference_ms),
        ):
            if ms:
                self._stage(name, end - _ns(ms), end, attributes)
            end -= _ns(ms)

    def _stage(self, name: str, start: int, end: int, attributes: dict[str, str | int]) -> None:
        span = self._tracer.start_span(name, self._context, attributes=attributes, start_time=start)
        span.end(end)


def _ns(ms: float) -> int:
    return round(ms * 1e6)
