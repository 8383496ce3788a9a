"""The metrics that Prometheus scrapes from a server."""

import asyncio
import re
import socket
import threading
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import grpc
import numpy as np
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families
from visavis.v1 import vision_pb2 as pb

from visavis_server.app import App
from visavis_server.errors import StartupError

from ...pictures import BLACK, RED
from ...serving import Served, image, served_by, settings
from ..inference.test_service import Stub as InferenceStub
from ..inference.test_service import request_of, tensor_of

COLORS = (("model", "colors"), ("version", "2"))
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest_asyncio.fixture
async def measured(models: Path) -> AsyncIterator[Served]:
    async with served_by(App(settings(models, metrics="127.0.0.1:0"))) as served:
        yield served


async def scraped(served: Served) -> Samples:
    def get() -> str:
        with urllib.request.urlopen(f"http://{served.app.metrics_address}/metrics") as response:
            return response.read().decode()  # type: ignore[no-any-return]

    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(await asyncio.to_thread(get))
        for sample in family.samples
    }


@pytest.mark.parametrize("version", ["\xff", "1.x", "1.0.0 1", "9" * 5000, "-1"])
async def test_a_version_that_is_none_gets_plain_text(measured: Served, version: str) -> None:
    accept = {"accept": f"application/openmetrics-text; version={version}"}
    url = f"http://{measured.app.metrics_address}/metrics"

    def get() -> str:
        with urllib.request.urlopen(urllib.request.Request(url, headers=accept)) as response:
            return str(response.headers["content-type"])

    assert (await asyncio.to_thread(get)).startswith("text/plain; version=0.0.4")


async def test_each_model_reports_its_plan(measured: Served) -> None:
    samples = await scraped(measured)
    assert samples["visavis_cores", ()] == 2
    assert samples["visavis_model_instances", COLORS] == 2
    assert samples["visavis_model_threads", COLORS] == 1
    assert samples["visavis_model_alone_threads", COLORS] == 2
    (colors,) = (m for m in measured.app._metrics.models if (m.name, m.version) == ("colors", 2))
    assert samples["visavis_model_batch_size_limit", COLORS] == colors.plan.batch
    (labels,) = (
        dict(labels)
        for name, labels in samples
        if name == "visavis_model_info" and ("model", "boxes") in labels
    )
    assert labels["provider"] == "CPUExecutionProvider"
    assert labels["why"].startswith("a run for each of the 2 usable cores")


async def test_the_outcomes_of_requests_are_counted(measured: Served) -> None:
    for _ in range(3):
        await measured.stub.Classify(pb.ClassifyRequest(image=image(), model="colors"))
    broken = pb.ClassifyRequest(image=image(BLACK), model="fragile")
    await measured.refused("Classify", broken)
    samples = await scraped(measured)
    assert samples["visavis_model_runs_total", (("batch_size", "1"), *COLORS)] == 3
    assert samples["visavis_model_alone_runs_total", COLORS] == 3
    assert samples["visavis_model_session_seconds_total", COLORS] > 0
    assert samples["visavis_model_queue_seconds_total", COLORS] > 0
    assert samples["visavis_model_waiting", COLORS] == 0
    failed = (("model", "fragile"), ("reason", "failed"), ("version", "1"))
    assert samples["visavis_model_dropped_total", failed] == 1


async def test_calls_are_counted_by_the_status_that_clients_see(measured: Served) -> None:
    check = health_pb2_grpc.HealthStub(measured.channel).Check
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await check(health_pb2.HealthCheckRequest(service="nothing"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    labels = (
        ("code", "NOT_FOUND"),
        ("door", "grpc"),
        ("method", "/grpc.health.v1.Health/Check"),
    )
    assert (await scraped(measured))["visavis_calls_total", labels] == 1


async def test_no_string_from_a_client_becomes_a_label(measured: Served) -> None:
    await measured.refused("Classify", pb.ClassifyRequest(image=image(), model="x-evil-x"))
    assert not any("x-evil-x" in str(key) for key in await scraped(measured))


async def test_metrics_are_off_by_default(served: Served) -> None:
    assert served.app.metrics_address is None


async def test_an_address_in_use_prevents_the_start(measured: Served, models: Path) -> None:
    address = measured.app.metrics_address
    with pytest.raises(
        StartupError, match=f"can't serve metrics on {address}: the address is already in use"
    ):
        App(settings(models, metrics=address))


def connected(served: Served) -> socket.socket:
    host, _, port = str(served.app.metrics_address).rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


async def test_silent_connections_are_limited_and_closed(models: Path) -> None:
    changes: dict[str, Any] = {"metrics": "127.0.0.1:0", "handshake_timeout_s": 1.0}
    threads = threading.active_count()
    async with served_by(App(settings(models, **changes))) as served:
        silent = [await asyncio.to_thread(connected, served) for _ in range(200)]
        try:
            # Connections beyond the limit are closed at once, the others after a timeout.
            ended = [asyncio.to_thread(each.recv, 1) for each in silent]
            await asyncio.wait_for(asyncio.gather(*ended, return_exceptions=True), 20)
            assert len(await scraped(served)) > 10
            assert threading.active_count() < threads + 50
        finally:
            for each in silent:
                each.close()


async def test_the_limit_of_connections_affects_metrics_only(models: Path) -> None:
    async with served_by(App(settings(models, metrics="127.0.0.1:0"))) as served:
        silent = [await asyncio.to_thread(connected, served) for _ in range(80)]
        try:
            with pytest.raises(OSError):  # noqa: PT011  whichever way it is closed
                await scraped(served)
            answer = await served.stub.Classify(pb.ClassifyRequest(image=image(), model="colors"))
            assert answer.classifications
        finally:
            for each in silent:
                each.close()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:9090", "[::2]:1"])
async def test_a_foreign_host_name_reads_no_metrics(measured: Served, host: str) -> None:
    url = f"http://{measured.app.metrics_address}/metrics"
    request = urllib.request.Request(url, headers={"host": host})
    with pytest.raises(HTTPError) as refused:
        await asyncio.to_thread(urllib.request.urlopen, request)
    assert refused.value.code == 403
    refused.value.close()


@pytest.mark.parametrize("path", ["/", "/livez", "/visavis.v1.VisionService/ListModels"])
async def test_the_metrics_listener_serves_metrics_only(measured: Served, path: str) -> None:
    url = f"http://{measured.app.metrics_address}{path}"
    with pytest.raises(HTTPError) as refused:
        await asyncio.to_thread(urllib.request.urlopen, url)
    assert refused.value.code == 404
    refused.value.close()


TRITON_COUNTERS = {
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_duration_us",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us",
}


async def test_triton_s_metrics_follow_triton_s_format(models: Path) -> None:
    changes = {"metrics": "127.0.0.1:0", "triton_metrics": True}
    async with served_by(App(settings(models, **changes))) as served:
        stub = InferenceStub(served.channel)
        began = time.perf_counter()
        batch = np.repeat(tensor_of(RED), 3, axis=0)
        await stub.ModelInfer(request_of("colors", "images", batch))
        await served.stub.Classify(pb.ClassifyRequest(image=image(), model="colors"))
        taken_us = 1e6 * (time.perf_counter() - began)
        await served.refused("Classify", pb.ClassifyRequest(image=image(BLACK), model="fragile"))
        broken = pb.Image(encoded=b"\xff\xd8\xff half of a picture")
        await served.refused("Classify", pb.ClassifyRequest(image=broken, model="colors"))
        url = f"http://{served.app.metrics_address}/metrics"
        asked = urllib.request.Request(url, headers={"accept": "application/openmetrics-text"})

        def get() -> tuple[str, str]:
            with urllib.request.urlopen(asked) as response:
                return response.headers["content-type"], response.read().decode()

        kind, text = await asyncio.to_thread(get)
    assert kind.startswith("text/plain; version=0.0.4")
    assert set(re.findall(r"^# TYPE (nv_\S+) counter$", text, re.M)) == TRITON_COUNTERS
    assert "# TYPE nv_inference_pending_request_count gauge" in text
    assert "\nvisavis_cores 2.0\n" in text
    # Not by prometheus_client: its parser appends _total to the names of counters.
    values = {
        (name, tuple(re.findall(r'(\w+)="([^"]*)"', labels))): float(value)
        for name, labels, value in re.findall(r"^(nv_\w+)\{(.*)\} (\S+)$", text, re.M)
    }
    assert values["nv_inference_request_success", COLORS] == 2
    assert values["nv_inference_count", COLORS] == 4
    assert 2 <= values["nv_inference_exec_count", COLORS] <= 4
    assert values["nv_inference_pending_request_count", COLORS] == 0
    assert 0 < values["nv_inference_request_duration_us", COLORS] < taken_us
    for stage in ("compute_input", "compute_infer", "compute_output"):
        assert values[f"nv_inference_{stage}_duration_us", COLORS] > 0
    failures = {
        dict(labels)["model"] + "/" + dict(labels)["reason"]: value
        for (name, labels), value in values.items()
        if name == "nv_inference_request_failure" and value
    }
    assert failures == {"fragile/BACKEND": 1, "colors/OTHER": 1}


async def test_triton_s_metrics_are_off_by_default(measured: Served) -> None:
    assert not any(name.startswith("nv_") for name, _ in await scraped(measured))
