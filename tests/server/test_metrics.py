"""What Prometheus reads of a server."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families
from visavis.v1 import vision_pb2 as pb

from server.app import App
from server.errors import StartupError

from .pictures import BLACK
from .serving import Served, image, served_by, settings

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


async def test_how_each_model_is_run_can_be_read(measured: Served) -> None:
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


async def test_what_became_of_requests_is_counted(measured: Served) -> None:
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


async def test_calls_count_by_the_code_that_their_callers_see(measured: Served) -> None:
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


async def test_no_string_of_a_caller_becomes_a_label(measured: Served) -> None:
    await measured.refused("Classify", pb.ClassifyRequest(image=image(), model="x-evil-x"))
    assert not any("x-evil-x" in str(key) for key in await scraped(measured))


async def test_metrics_are_off_unless_asked_for(served: Served) -> None:
    assert served.app.metrics_address is None


async def test_an_address_that_cannot_be_had_ends_the_start(measured: Served, models: Path) -> None:
    address = measured.app.metrics_address
    app = App(settings(models, metrics=address))
    with pytest.raises(StartupError, match=f"can't serve metrics on {address}: .*in use"):
        await app.start()
    await app.stop()
