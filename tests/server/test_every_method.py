"""Every method of every service that is served or announced, on every listener."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs
from visavis.v1 import vision_pb2 as pb

from visavis_server.api.inference import grpc_service_pb2
from visavis_server.app import App

from .serving import Served, image, served_by, settings
from .test_app import Blocked
from .transport.http.test_listener import RPC, ask, framed, frames

SERVICES: list[ServiceDescriptor] = [
    pb.DESCRIPTOR.services_by_name["VisionService"],
    grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
]
METHODS = [method for service in SERVICES for method in service.methods]
OURS = list(SERVICES[0].methods)
EMPTY = b""
# Invalid bytes; unknown fields only; a truncated message.
GARBAGE = [b"\xff" * 100, b"\xfa\xff\xff\xff\x0f\x01x", b"\x0a\x7fshort"]
# The statuses of the server's own faults.
FAULTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


@pytest_asyncio.fixture
async def everything(models: Path) -> AsyncIterator[Served]:
    app = App(settings(models, reflection=True, admin=True, http="127.0.0.1:0"))
    async with served_by(app) as served:
        yield served


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as entries:
        yield entries


async def ends(served: Served, method: MethodDescriptor, request: bytes) -> grpc.StatusCode:
    """Return the status of a gRPC call; OK if it continues after a response."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    kind = {
        (False, False): served.channel.unary_unary,
        (False, True): served.channel.unary_stream,
        (True, True): served.channel.stream_stream,
    }[method.client_streaming, method.server_streaming]
    multi: Any = kind
    call = multi(path)(iter([request]) if method.client_streaming else request, timeout=20)
    try:
        answer = await (call.read() if method.server_streaming else call)
    except grpc.aio.AioRpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    if answer is not grpc.aio.EOF:  # type: ignore[attr-defined]
        message_factory.GetMessageClass(method.output_type).FromString(answer)
    call.cancel()
    return grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("part", "count", "words"),
    [
        ("SharedMemory", 6, "shared memory is not supported: .*send tensors in the request"),
        ("TraceSetting", 1, "trace settings are not supported; .*--trace"),
        ("LogSettings", 1, "log settings are not supported; .*--log-level"),
    ],
)
async def test_unsupported_methods_of_triton_are_explained(
    served: Served, part: str, count: int, words: str
) -> None:
    methods = [method for method in METHODS if part in method.name]
    assert len(methods) == count
    for method in methods:
        call = served.channel.unary_unary(f"/{method.containing_service.full_name}/{method.name}")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(EMPTY)
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert re.match(words, str(error.value.details()))


async def test_over_grpc_no_method_breaks(everything: Served, logged: list[Any]) -> None:
    for method, request in product(METHODS, (EMPTY, *GARBAGE)):
        code = await ends(everything, method, request)
        assert code not in FAULTS, (method.full_name, request)
    assert [entry for entry in logged if entry["log_level"] == "error"] == []


@pytest.mark.parametrize("kind", ["json", "proto"])
async def test_over_connect_no_method_breaks(
    everything: Served, logged: list[Any], kind: str
) -> None:
    requests = [b"{}", b"", b"[]", b"null", b'{"a":', b"\xff"] if kind == "json" else [EMPTY]
    for method, request in product(OURS, [*requests, *GARBAGE]):
        if method.server_streaming:
            kind_of, body = f"application/connect+{kind}", framed(request)
        else:
            kind_of, body = f"application/{kind}", request
        answer = await ask(everything.app, RPC + method.name, body, content_type=kind_of)
        assert answer.status < 500, (method.full_name, request)
        if method.server_streaming:
            (_, end) = frames(answer.body)[-1]
            code = json.loads(end).get("error", {}).get("code")
        else:
            code = json.loads(answer.body).get("code") if answer.status != 200 else None
        assert code not in ("internal", "unknown"), (method.full_name, request)
    assert [entry for entry in logged if entry["log_level"] == "error"] == []


async def test_over_grpc_web_no_method_breaks(everything: Served, logged: list[Any]) -> None:
    for method, request in product(OURS, (EMPTY, *GARBAGE)):
        answer = await ask(
            everything.app,
            RPC + method.name,
            framed(request),
            content_type="application/grpc-web+proto",
        )
        trailers = frames(answer.body)[-1][1] if answer.body else b""
        status = dict(line.split(":", 1) for line in trailers.decode().lower().splitlines())
        code = int((status or answer.headers)["grpc-status"])
        assert code not in [fault.value[0] for fault in FAULTS], (method.full_name, request)
    assert [entry for entry in logged if entry["log_level"] == "error"] == []


PATHS = [
    "/v2",
    "/v2/health/live",
    "/v2/models/colors",
    "/v2/models/colors/versions/1/config",
    "/v2/models/colors/infer",
    "/v2/models/colors_image/infer",
    "/v2/models/stats",
    "/v2/repository/index",
    "/v2/repository/models/nobody/load",
    "/v2/repository/models/nobody/unload",
    "/v2/logging",
]


async def test_over_the_open_inference_protocol_no_path_breaks(
    everything: Served, logged: list[Any]
) -> None:
    requests = [None, b"{}", b"", b"[]", b"null", b'{"inputs":{}}', b'{"parameters":[]}', *GARBAGE]
    sizes = [None, "0", "1", "50", "1000"]
    for path, request, size in product(PATHS, requests, sizes):
        headers = {"Inference-Header-Content-Length": size} if size else {}
        answer = await ask(everything.app, path, request, **headers)
        assert answer.status < 500 or answer.status == 501, (path, request, size)
        assert answer.status == 200 or list(json.loads(answer.body)) == ["error"]
    assert [entry for entry in logged if entry["log_level"] == "error"] == []


async def test_as_forms_no_method_breaks(everything: Served, logged: list[Any]) -> None:
    head = b'--b\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\n'
    for method, request in product(OURS, (EMPTY, *GARBAGE, *(head + part for part in GARBAGE))):
        for body in (request, request + b"\r\n--b--\r\n"):
            kind = "multipart/form-data; boundary=b"
            answer = await ask(everything.app, RPC + method.name, body, content_type=kind)
            assert answer.status < 500, (method.full_name, body)
    assert [entry for entry in logged if entry["log_level"] == "error"] == []


async def test_all_services_in_reflection_are_tested_here(everything: Served) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(everything.channel)
    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    call = stub.ServerReflectionInfo(iter([listing]))
    announced = {service.name for service in (await call.read()).list_services_response.service}
    assert announced == {service.full_name for service in SERVICES}


async def test_health_lists_every_status(everything: Served) -> None:
    path = "/grpc.health.v1.Health/List"
    answer = await everything.channel.unary_unary(path)(b"")
    statuses = health_pb2.HealthListResponse.FromString(answer).statuses
    serving = health_pb2.HealthCheckResponse.SERVING
    assert {name: each.status for name, each in statuses.items()} == dict.fromkeys(
        ("", "visavis.v1.VisionService", "colors", "boxes", "pets", "guess", "fragile"), serving
    )


def tasks() -> set[str]:
    return {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]


async def test_a_cancelled_stream_leaves_no_task_behind(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served_by(App(settings(models, cores=1))) as served:
        before, blocked = tasks(), Blocked(monkeypatch)
        compare = served.stub.CompareStream(pb.CompareStreamRequest(image=image()))
        watch = served.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        await watch.read()
        assert await asyncio.to_thread(blocked.began.wait, 10)
        assert tasks() > before
        compare.cancel()
        watch.cancel()
        async with asyncio.timeout(10):
            while tasks() > before:
                await asyncio.sleep(0.01)
        blocked.may_end.set()
