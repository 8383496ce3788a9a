"""A whole server: its start, its addresses, whom it drops, and how it stops."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from visavis.v1 import vision_pb2 as pb
from visavis.v1 import vision_pb2_grpc

from visavis_server.app import App
from visavis_server.errors import ModelFileError, ProviderUnavailable, StartupError
from visavis_server.runtime import providers
from visavis_server.runtime.scheduling.scheduler import Scheduler
from visavis_server.runtime.session import Session

from . import graphs
from .serving import Served, image, served_by, settings

CLASSIFY = pb.ClassifyRequest(image=image(), model="colors")


class Blocked:
    """Sessions that wait for `may_end`; counts those that began, and work that was dropped."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began, self.may_end, self.runs = threading.Event(), threading.Event(), 0
        self.submitted = asyncio.Event()
        self.dropped = asyncio.Event()
        run, submit = Session.run, Scheduler.submit

        def blocked_run(session: Session, *args: Any, **options: Any) -> Any:
            self.runs += 1
            self.began.set()
            assert self.may_end.wait(10)
            return run(session, *args, **options)

        async def watched_submit(scheduler: Scheduler, *args: Any) -> Any:
            self.submitted.set()
            try:
                return await submit(scheduler, *args)
            except asyncio.CancelledError:
                self.dropped.set()
                raise

        monkeypatch.setattr(Session, "run", blocked_run)
        monkeypatch.setattr(Scheduler, "submit", watched_submit)

    async def call(self, served: Served) -> "asyncio.Task[Any]":
        """Keep the only worker busy with a call."""
        task = asyncio.create_task(as_coroutine(served.stub.Classify(CLASSIFY)))
        assert await asyncio.to_thread(self.began.wait, 10)
        self.submitted.clear()
        return task


async def as_coroutine(call: Any) -> Any:
    return await call


@pytest_asyncio.fixture
async def alone(models: Path) -> AsyncIterator[Served]:
    """A server with one worker and room for one that waits."""
    async with served_by(App(settings(models, cores=1, queue_size=1))) as served:
        yield served


@pytest_asyncio.fixture
async def blocked(alone: Served, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Blocked]:
    blocked = Blocked(monkeypatch)
    yield blocked
    blocked.may_end.set()


async def test_a_cancelled_request_never_reaches_the_session(
    alone: Served, blocked: Blocked
) -> None:
    first = await blocked.call(alone)
    dropped = alone.stub.Classify(CLASSIFY)
    waiting = asyncio.create_task(as_coroutine(dropped))
    await asyncio.wait_for(blocked.submitted.wait(), 10)
    waiting.cancel()
    await asyncio.wait_for(blocked.dropped.wait(), 10)
    blocked.may_end.set()
    await first
    await alone.stub.ListModels(pb.ListModelsRequest())
    assert blocked.runs == 1


async def test_a_request_out_of_time_never_reaches_the_session(
    alone: Served, blocked: Blocked
) -> None:
    first = await blocked.call(alone)
    error = await alone.refused("Classify", CLASSIFY, timeout=0.05)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(blocked.dropped.wait(), 10)
    blocked.may_end.set()
    await first
    assert blocked.runs == 1


async def test_a_full_queue_refuses_more(alone: Served, blocked: Blocked) -> None:
    first = await blocked.call(alone)
    second = asyncio.create_task(as_coroutine(alone.stub.Classify(CLASSIFY)))
    await asyncio.wait_for(blocked.submitted.wait(), 10)
    error = await alone.refused("Classify", CLASSIFY)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "the limit is 1" in error.details()
    blocked.may_end.set()
    for answer in await asyncio.gather(first, second):
        assert answer.classifications[0].label == "red"


async def test_a_call_that_every_model_would_reject_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colors, _ = graphs.export(graphs.classifier(), graphs.classifier_document())
    graphs.put(tmp_path, "colors", 1, colors)
    async with served_by(App(settings(tmp_path, cores=1, queue_size=1))) as served:
        blocked = Blocked(monkeypatch)
        first = await blocked.call(served)
        second = asyncio.create_task(as_coroutine(served.stub.Classify(CLASSIFY)))
        await asyncio.wait_for(blocked.submitted.wait(), 10)
        # Its request never comes.
        call = served.channel.stream_unary("/visavis.v1.VisionService/Classify")()
        try:
            code = await asyncio.wait_for(call.code(), 10)
        finally:
            blocked.may_end.set()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await asyncio.gather(first, second)


async def test_stopping_lets_calls_in_flight_finish_and_refuses_new_ones(
    alone: Served, blocked: Blocked
) -> None:
    first = await blocked.call(alone)
    health = health_pb2_grpc.HealthStub(alone.channel)
    watching = health.Watch(health_pb2.HealthCheckRequest())
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
    stopping = asyncio.create_task(alone.app.stop())
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    error = await alone.refused("ListModels", pb.ListModelsRequest())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "stopping" in error.details()
    blocked.may_end.set()
    assert (await first).classifications[0].label == "red"
    await stopping


async def test_a_model_that_is_not_as_it_should_be_ends_the_start_if_all_are_required(
    tmp_path: Path,
) -> None:
    contents = graphs.export(graphs.classifier(), graphs.classifier_document())[0]
    damaged = contents.replace(b"\x00\x00\x20\x41", b"\x00\x00\x21\x41")
    graphs.put(tmp_path, "good", 1, contents)
    path = graphs.put(tmp_path, "damaged", 1, damaged)
    app = App(settings(tmp_path, require_all_models=True))
    with pytest.raises(ModelFileError, match=str(path)):
        await app.start()
    await app.stop()


async def test_an_empty_repository_fails_the_start_with_advice(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=f"visavis export .* --out {tmp_path}"):
        App(settings(tmp_path))


async def test_the_reason_why_a_repository_holds_no_models_is_reported(tmp_path: Path) -> None:
    graphs.put(tmp_path, "two words", 1, b"")
    with pytest.raises(StartupError, match=r"two words: a model's name .* rename it\)"):
        App(settings(tmp_path))


@pytest.mark.parametrize("inside", ["pets", "pets/1"])
async def test_the_folder_of_one_model_is_no_repository(tmp_path: Path, inside: str) -> None:
    graphs.put(tmp_path, "pets", 1, b"")
    with pytest.raises(StartupError, match=f"{tmp_path / inside} is the folder of one model"):
        App(settings(tmp_path / inside))


async def test_a_missing_repository_fails_the_start_with_advice(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="visavis export"):
        App(settings(tmp_path / "nowhere"))


async def test_a_gpu_that_cannot_be_used_ends_the_start(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = providers.Provider("cuda", "CUDA", lambda: ["no driver"], lambda setup: {})
    monkeypatch.setattr(providers, "PROVIDERS", (providers.CPU, broken))
    with pytest.raises(ProviderUnavailable, match="--device cuda is unusable: no driver"):
        App(settings(models, device="cuda"))


async def test_a_second_server_on_the_port_is_refused(served: Served) -> None:
    with pytest.raises(StartupError, match=f"can't listen on {served.app.address}"):
        App(settings(served.app.settings.models, grpc=served.app.address))


async def test_a_port_that_something_else_holds_is_refused(models: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        with pytest.raises(
            StartupError, match=f"can't listen on {address}: the address is already in use"
        ):
            App(settings(models, grpc=address))


async def test_a_name_is_served_at_all_its_addresses_or_refused(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC itself would take one of them, and leave the other to whoever listens there."""
    real = socket.getaddrinfo

    def resolve(host: str, *args: Any, **how: Any) -> list[Any]:
        both = ("127.0.0.1", "::1") if host == "localhost" else (host,)
        return [found for each in both for found in real(each, *args, **how)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as holder:
        address = f"localhost:{holder.getsockname()[1]}"
        with pytest.raises(
            StartupError, match=f"can't listen on {address}: the address is already in use"
        ):
            App(settings(models, grpc=address))


@pytest.mark.parametrize("host", ["[::1]", "[::1%lo]", "[::1%1]", "[::ffff:127.0.0.1]", "[::]"])
async def test_an_ipv6_address_is_served(models: Path, host: str) -> None:
    async with served_by(App(settings(models, grpc=f"{host}:0", insecure=True))) as served:
        assert served.app.address == f"{host}:{served.app.port}"
        for reached in ("127.0.0.1", "[::1]") if host == "[::]" else (host.replace("lo", "1"),):
            async with grpc.aio.insecure_channel(f"{reached}:{served.app.port}") as channel:
                stub = vision_pb2_grpc.VisionServiceStub(channel)
                assert (await stub.Classify(CLASSIFY, timeout=20)).classifications


async def test_a_unix_socket_in_a_folder_that_is_missing_is_refused(
    models: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "none"
    with pytest.raises(StartupError, match=f"its folder {folder} does not exist; create it first"):
        App(settings(models, grpc=f"unix:{folder / 'visavis.sock'}"))


async def test_a_unix_socket_is_served(models: Path, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'visavis.sock'}"
    async with served_by(App(settings(models, grpc=address))) as served:
        assert served.app.address == address
        assert (await served.stub.Classify(CLASSIFY)).classifications[0].label == "red"


async def test_a_second_server_on_the_unix_socket_is_refused(models: Path, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'visavis.sock'}"
    async with served_by(App(settings(models, grpc=address))) as served:
        with pytest.raises(StartupError, match=f"can't listen on {address}: it is in use"):
            App(settings(models, grpc=address))
        assert (await served.stub.Classify(CLASSIFY)).classifications[0].label == "red"


async def test_a_stale_unix_socket_is_replaced(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "visavis.sock"
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))
    assert path.is_socket()
    async with served_by(App(settings(models, grpc=f"unix:{path}"))) as served:
        assert (await served.stub.Classify(CLASSIFY)).classifications[0].label == "red"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
async def test_a_unix_socket_that_accepts_nothing_now_is_not_taken_away(
    models: Path, tmp_path: Path, kind: socket.SocketKind
) -> None:
    """Its queue of connections is full, or it takes other messages."""
    path = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX, kind) as other, socket.socket(socket.AF_UNIX, kind) as first:
        other.bind(str(path))
        if kind is socket.SOCK_STREAM:
            other.listen(0)
            first.connect(str(path))
        inode = path.stat().st_ino
        with pytest.raises(StartupError, match=f"can't listen on unix:{path}: it is in use"):
            App(settings(models, grpc=f"unix:{path}"))
        assert path.stat().st_ino == inode


async def test_stopping_twice_is_harmless(models: Path) -> None:
    app = App(settings(models))
    await app.start()
    await app.stop()
    await app.stop()


@pytest.mark.parametrize("switched_on", [True, False])
async def test_reflection_is_served_only_by_setting(models: Path, switched_on: bool) -> None:
    async with served_by(App(settings(models, reflection=switched_on))) as served:
        stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        call = stub.ServerReflectionInfo(iter([request]))
        if switched_on:
            names = {s.name for s in (await call.read()).list_services_response.service}
            assert {"visavis.v1.VisionService", "grpc.health.v1.Health"} <= names
        else:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call.read()
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_raw_images_larger_than_grpc_s_default_are_taken(served: Served) -> None:
    raw = pb.RawImage(format=pb.PIXEL_FORMAT_RGB, width=2000, height=1000, data=bytes(6_000_000))
    request = pb.DetectRequest(image=pb.Image(raw=raw), model="boxes")
    answer = await served.stub.Detect(request)
    assert answer.image_size.width == 2000


async def test_a_signal_drains_and_ends_the_run(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(settings(models))
    ready, start = asyncio.Event(), app.start

    async def started() -> None:
        await start()
        ready.set()

    monkeypatch.setattr(app, "start", started)
    running = asyncio.create_task(app.run())
    await asyncio.wait_for(ready.wait(), 10)
    blocked = Blocked(monkeypatch)
    async with grpc.aio.insecure_channel(app.address) as channel:
        served = Served(app, channel, vision_pb2_grpc.VisionServiceStub(channel))
        call = await blocked.call(served)
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        error = await served.refused("ListModels", pb.ListModelsRequest())
        assert "stopping" in error.details()
        assert not call.done() and not running.done()
        blocked.may_end.set()
        assert (await call).classifications[0].label == "red"
    await asyncio.wait_for(running, 10)
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
    asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)


@pytest.mark.usefixtures("minimal_surroundings")
def test_the_server_imports_neither_torch_nor_the_export_stage() -> None:
    program = (
        "import sys, visavis_server.app, visavis_server.__main__, visavis_server.tools.doctor;"
        "print([m for m in ('torch', 'torchvision', 'ultralytics', 'onnx', 'visavis_export')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
