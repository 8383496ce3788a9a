"""Traces: a span for each call and each stage, in the client's trace."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from opentelemetry import context, trace
from opentelemetry import propagate as propagate  # as in traced applications
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from visavis import AsyncClient
from visavis.v1 import vision_pb2 as pb

from visavis_server.app import App
from visavis_server.errors import StartupError
from visavis_server.log import configure_logging
from visavis_server.telemetry import otlp

from ..pictures import RED, plain
from ..serving import Served, image, served_by, settings
from ..transport.http.test_listener import CLASSIFY, call

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
TRACEPARENT = ("traceparent", f"00-{TRACE}-{PARENT}-01")
SOMEWHERE = "http://127.0.0.1:4317"


class Traced:
    """A traced server, and the spans that it sent."""

    def __init__(self, served: Served, exporter: InMemorySpanExporter) -> None:
        self.served = served
        self._exporter = exporter

    def spans(self) -> dict[str, ReadableSpan]:
        """Return the spans so far by name; of equal names the last."""
        tracing = self.served.app._tracing
        assert tracing and tracing._provider.force_flush()
        return {span.name: span for span in self._exporter.get_finished_spans()}


@pytest_asyncio.fixture
async def traced(models: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Traced]:
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(otlp, "OTLPSpanExporter", lambda *args, **options: exporter)
    async with served_by(App(settings(models, trace=SOMEWHERE, http="127.0.0.1:0"))) as served:
        yield Traced(served, exporter)


async def test_a_call_and_its_stages_join_the_caller_s_trace(traced: Traced) -> None:
    request = pb.ClassifyRequest(model="colors", image=image())
    await traced.served.stub.Classify(request, metadata=(TRACEPARENT,))
    spans = traced.spans()
    root = spans["visavis.v1.VisionService/Classify"]
    assert root.parent and trace.format_span_id(root.parent.span_id) == PARENT
    assert root.attributes and root.attributes["rpc.system"] == "grpc"
    assert root.attributes["rpc.response.status_code"] == "OK"
    for name in ("queue", "decode", "preprocess", "inference", "postprocess"):
        span = spans[name]
        assert trace.format_trace_id(span.context.trace_id) == TRACE
        assert span.parent and span.parent.span_id == root.context.span_id
        assert span.attributes and span.attributes["visavis.model"] == "colors"
        assert span.start_time and span.end_time and root.start_time and root.end_time
        assert root.start_time - 5_000_000 <= span.start_time <= span.end_time
        assert span.end_time <= root.end_time + 5_000_000


async def test_every_model_of_a_comparison_has_its_stages(traced: Traced) -> None:
    await traced.served.stub.Compare(pb.CompareRequest(image=image()))
    traced.spans()
    models = {
        span.attributes["visavis.model"]
        for span in traced._exporter.get_finished_spans()
        if span.name == "inference" and span.attributes
    }
    assert models == {"boxes", "colors", "guess", "pets"}  # fragile breaks on red


async def test_http_is_traced_too(traced: Traced) -> None:
    answered = await call(traced.served.app, "Classify", CLASSIFY, traceparent=TRACEPARENT[1])
    assert answered.status == 200
    root = traced.spans()["visavis.v1.VisionService/Classify"]
    assert trace.format_trace_id(root.context.trace_id) == TRACE
    assert root.attributes and root.attributes["rpc.system"] == "connect_rpc"


async def test_a_client_error_is_not_a_server_fault(traced: Traced) -> None:
    bad = pb.ClassifyRequest(model="colors", image=image(), top_k=0)
    await traced.served.refused("Classify", bad)
    root = traced.spans()["visavis.v1.VisionService/Classify"]
    assert root.attributes and root.attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert root.status.is_unset
    dark = pb.ClassifyRequest(model="fragile", image=image((0, 0, 0)))
    await traced.served.refused("Classify", dark)
    assert not traced.spans()["visavis.v1.VisionService/Classify"].status.is_ok


async def test_logs_carry_the_trace(traced: Traced, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    dark = pb.ClassifyRequest(model="fragile", image=image((0, 0, 0)))
    await traced.served.refused("Classify", dark, metadata=(TRACEPARENT, ("x-request-id", "mine")))
    (failed,) = [
        entry
        for entry in map(json.loads, capsys.readouterr().err.splitlines())
        if entry["event"] == "model failed"
    ]
    assert (failed["trace_id"], failed["request_id"]) == (TRACE, "mine")


async def test_the_sdk_passes_its_caller_s_trace_on(traced: Traced) -> None:
    tracer = TracerProvider().get_tracer("the tests")
    with tracer.start_as_current_span("caller") as caller:
        async with AsyncClient(traced.served.app.address) as client:
            await client.classify(plain(RED), model="colors")
    root = traced.spans()["visavis.v1.VisionService/Classify"]
    assert root.context.trace_id == caller.get_span_context().trace_id
    assert not context.get_current()


class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]  # no types
    """A collector: receives traces by OTLP over gRPC."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    async def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.names |= {span.name for span in scope.spans}
        return trace_service_pb2.ExportTraceServiceResponse()


async def test_a_collector_gets_the_spans_when_the_server_stops_at_the_latest(
    models: Path,
) -> None:
    collector, listening = Collector(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, listening)
    port = listening.add_insecure_port("127.0.0.1:0")
    await listening.start()
    async with served_by(App(settings(models, trace=f"http://127.0.0.1:{port}"))) as served:
        await served.stub.Classify(pb.ClassifyRequest(model="colors", image=image()))
    await listening.stop(0)
    assert {"visavis.v1.VisionService/Classify", "inference", "decode"} <= collector.names


async def test_calls_are_answered_without_a_collector(models: Path) -> None:
    async with served_by(App(settings(models, trace="http://127.0.0.1:9"))) as served:
        request = pb.ClassifyRequest(model="colors", image=image())
        answers = await asyncio.gather(*(as_answer(served, request) for _ in range(8)))
    assert {answer.classifications[0].label for answer in answers} == {"red"}


async def as_answer(served: Served, request: pb.ClassifyRequest) -> Any:
    return await served.stub.Classify(request)


def test_a_collector_s_address_is_a_url(models: Path) -> None:
    with pytest.raises(ValueError, match="it must be http://HOST:PORT"):
        settings(models, trace="127.0.0.1:4317")


def test_without_its_packages_the_error_names_the_extra(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "visavis_server.telemetry.otlp", raising=False)
    with pytest.raises(StartupError, match=r"pip install 'visavis-server\[trace\]'"):
        App(settings(models, trace=SOMEWHERE))
