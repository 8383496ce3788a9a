"""grpc.health.v1, overall and per model."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from visavis.v1 import vision_pb2 as pb
from visavis.v1 import vision_pb2_grpc

from visavis_server.api.inference import grpc_service_pb2
from visavis_server.app import App
from visavis_server.models.loader import Loader

from ...serving import Served, image, served_by, settings, violations
from ..http.test_listener import ask

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

REQUESTS = {
    "Classify": pb.ClassifyRequest(image=image(), model="colors"),
    "Compare": pb.CompareRequest(image=image()),
    "ListModels": pb.ListModelsRequest(),
    "GetModel": pb.GetModelRequest(model="colors"),
}


async def status(channel: grpc.aio.Channel, service: str) -> int:
    health = health_pb2_grpc.HealthStub(channel)
    answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
    return answer.status


@pytest.mark.parametrize("service", ["", "visavis.v1.VisionService", "colors", "boxes"])
async def test_everything_loaded_is_serving(served: Served, service: str) -> None:
    assert await status(served.channel, service) == SERVING


async def test_watchers_get_the_status_at_once_and_when_the_server_stops(models: Path) -> None:
    async with served_by(App(settings(models))) as served:
        health = health_pb2_grpc.HealthStub(served.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await asyncio.wait_for(watch.read(), 10)).status == SERVING
        stopping = asyncio.create_task(served.app.stop())
        assert (await asyncio.wait_for(watch.read(), 10)).status == NOT_SERVING
        # It ends by itself, without the grace period of 30 s.
        assert await asyncio.wait_for(watch.read(), 10) is grpc.aio.EOF
        await asyncio.wait_for(stopping, 10)


async def test_watches_leave_room_for_checks(models: Path) -> None:
    async with served_by(App(settings(models))) as served:
        health = health_pb2_grpc.HealthStub(served.channel)
        watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(200)]
        for watch in watches:
            assert (await asyncio.wait_for(watch.read(), 10)).status == SERVING
        assert await asyncio.wait_for(status(served.channel, ""), 10) == SERVING


async def test_of_too_many_watches_the_connection_with_the_most_loses_its_oldest(
    models: Path,
) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    app = App(settings(models, max_connections=4))
    async with (
        served_by(app),
        grpc.aio.insecure_channel(app.address, options) as one,
        grpc.aio.insecure_channel(app.address, options) as other,
    ):
        watches = []
        for channel in (one, one, one, one, other, other):
            stub = health_pb2_grpc.HealthStub(channel)
            watches.append(stub.Watch(health_pb2.HealthCheckRequest()))
            assert (await asyncio.wait_for(watches[-1].read(), 10)).status == SERVING
        for ended in watches[:2]:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await asyncio.wait_for(ended.read(), 10)
            assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        stopping = asyncio.create_task(app.stop())
        for watch in watches[2:]:
            assert (await asyncio.wait_for(watch.read(), 10)).status == NOT_SERVING
        await stopping


async def test_while_models_load_health_answers_and_calls_are_unavailable(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, may_end, real = threading.Event(), threading.Event(), Loader.load

    def slow(loader: Loader, file: Any, tried: Any) -> Any:
        began.set()
        assert may_end.wait(10)
        return real(loader, file, tried)

    monkeypatch.setattr(Loader, "load", slow)
    app = App(settings(models))
    starting = asyncio.create_task(app.start())
    try:
        assert await asyncio.to_thread(began.wait, 10)
        async with grpc.aio.insecure_channel(app.address) as channel:
            loading = Served(app, channel, vision_pb2_grpc.VisionServiceStub(channel))
            assert await status(channel, "") == NOT_SERVING
            assert await status(channel, "visavis.v1.VisionService") == NOT_SERVING
            for rpc, request in REQUESTS.items():
                error = await loading.refused(rpc, request)
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                assert "loading" in error.details()
                assert violations(error) == {}
            may_end.set()
            await starting
            assert await status(channel, "") == await status(channel, "colors") == SERVING
            await loading.stub.ListModels(pb.ListModelsRequest())
    finally:
        may_end.set()
        await starting
        await app.stop()


async def test_every_probe_reports_a_stuck_core(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visavis_server.app._SCHEDULER_CHECK_INTERVAL_S", 0.01)
    async with served_by(App(settings(models, http="127.0.0.1:0"))) as served:
        live = served.channel.unary_unary(
            "/inference.GRPCInferenceService/ServerLive",
            response_deserializer=grpc_service_pb2.ServerLiveResponse.FromString,
        )
        stuck = "core-0 has been busy for 61 s (colors)"
        for trouble, expected in ((stuck, NOT_SERVING), ("", SERVING)):
            monkeypatch.setattr(served.app.scheduler, "trouble", lambda fault=trouble: fault)
            async with asyncio.timeout(10):
                while await status(served.channel, "") != expected:
                    await asyncio.sleep(0.01)
            assert await status(served.channel, "colors") == SERVING
            assert (await live(b"")).live is not bool(trouble)
            answered = await ask(served.app, "/livez")
            assert (answered.status, answered.body.decode().strip()) == (
                (503, stuck) if trouble else (200, "ok")
            )
            scraped = (await ask(served.app, "/metrics")).body.decode()
            assert f"visavis_stuck {float(bool(trouble))}" in scraped
            assert await served.app._service.proves_alive(10) is not bool(trouble)
