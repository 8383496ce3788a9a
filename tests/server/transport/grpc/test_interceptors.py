"""Errors as clients see them: status, field, request id, and nothing internal."""

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs
from visavis.v1 import vision_pb2 as pb

from visavis_server.api.vision import queries
from visavis_server.app import App
from visavis_server.errors import Overloaded
from visavis_server.runtime.scheduling.scheduler import Scheduler
from visavis_server.vision.results import Picture

from ...pictures import BLACK, plain
from ...serving import Served, details, image, raw, served_by, settings, violations

RPC = "/visavis.v1.VisionService/"
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
NAN = float("nan")


def classify(**fields: Any) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(**{"image": image(), "model": "colors", **fields})


def detect(**fields: Any) -> pb.DetectRequest:
    return pb.DetectRequest(**{"image": image(), "model": "boxes", **fields})


@pytest.mark.parametrize(
    ("rpc", "request_", "code", "field", "words"),
    [
        (
            "Classify",
            pb.ClassifyRequest(model="colors"),
            INVALID,
            "image",
            "the request has no image",
        ),
        ("Detect", detect(image=pb.Image()), INVALID, "image", "image.encoded"),
        ("Classify", classify(model=""), INVALID, "model", "choose one of boxes, colors"),
        ("GetModel", pb.GetModelRequest(), INVALID, "model", "choose one of boxes, colors"),
        (
            "Classify",
            classify(model="yolo"),
            NOT_FOUND,
            "model",
            "'yolo'; the models are: boxes, colors",
        ),
        (
            "GetModel",
            pb.GetModelRequest(model="x"),
            NOT_FOUND,
            "model",
            "the models are: boxes, colors",
        ),
        ("Classify", classify(version=3), NOT_FOUND, "version", "its versions are: 1, 2"),
        ("Classify", classify(version=0), INVALID, "version", "at least 1"),
        ("GetModel", pb.GetModelRequest(model="boxes", version=-1), INVALID, "version", "-1"),
        (
            "Detect",
            detect(model="colors"),
            INVALID,
            "model",
            "for object detection are: boxes, pets",
        ),
        ("Classify", classify(model="boxes"), INVALID, "model", "for classification are: colors"),
        ("Classify", classify(top_k=0), INVALID, "top_k", "top_k is 0"),
        ("Classify", classify(top_k=-5), INVALID, "top_k", "top_k is -5"),
        ("Detect", detect(score_threshold=1.01), INVALID, "score_threshold", "is 1.01"),
        ("Detect", detect(score_threshold=NAN), INVALID, "score_threshold", "is nan"),
        ("Detect", detect(score_threshold=float("-inf")), INVALID, "score_threshold", "-inf"),
        ("Detect", detect(iou_threshold=-0.1), INVALID, "iou_threshold", "is -0.1"),
        ("Detect", detect(iou_threshold=NAN), INVALID, "iou_threshold", "is nan"),
        ("Detect", detect(max_detections=0), INVALID, "max_detections", "1 to 1000"),
        ("Detect", detect(max_detections=1001), INVALID, "max_detections", "1 to 1000"),
        ("Detect", detect(labels=["cat", "bird"]), INVALID, "labels", "no label 'bird'"),
        ("Classify", classify(image=pb.Image(encoded=b"")), INVALID, "image.encoded", "empty"),
        (
            "Classify",
            classify(image=pb.Image(encoded=b"<html>")),
            INVALID,
            "image.encoded",
            "only JPEG",
        ),
        (
            "Classify",
            classify(image=pb.Image(encoded=plain()[:60])),
            INVALID,
            "image.encoded",
            "damaged",
        ),
        ("Detect", detect(image=raw(0, 1, 1, b"abc")), INVALID, "image.raw.format", "choose RGB"),
        ("Detect", detect(image=raw(77, 1, 1, b"abc")), INVALID, "image.raw.format", "is 77"),
        ("Detect", detect(image=raw(1, 2, 2, b"abc")), INVALID, "image.raw.data", "2x2 in RGB"),
        ("Detect", detect(image=raw(1, 0, 2, b"")), INVALID, "image.raw.width", "is 0"),
        ("Detect", detect(image=raw(4, 2, 3, bytes(9))), INVALID, "image.raw.height", "even"),
        ("Detect", detect(image=raw(3, 65535, 65535, b"")), INVALID, "image.raw", "the limit is"),
    ],
)
async def test_an_invalid_request_is_rejected_by_its_field(
    served: Served, rpc: str, request_: Any, code: grpc.StatusCode, field: str, words: str
) -> None:
    error = await served.refused(rpc, request_)
    assert error.code() is code
    assert words in error.details()
    assert violations(error) == {field: error.details()}


async def test_every_response_and_every_error_has_a_request_id(served: Served) -> None:
    call = served.stub.Classify(classify())
    await call
    good = dict(await call.trailing_metadata())["x-request-id"]
    error = await served.refused("Classify", classify(model="yolo"))
    bad = dict(error.trailing_metadata())["x-request-id"]
    assert len(good) == len(bad) == 32 and good != bad
    assert [d.request_id for d in details(error, error_details_pb2.RequestInfo)] == [bad]


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05abc", b"<html>"])
@pytest.mark.parametrize("rpc", ["Classify", "Compare", "ListModels"])
async def test_invalid_bytes_are_an_invalid_request(served: Served, rpc: str, data: bytes) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await served.channel.unary_unary(RPC + rpc)(data)
    assert refused.value.code() is INVALID
    assert list(violations(refused.value)) == ["request"]


async def test_invalid_bytes_end_a_stream_the_same_way(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await served.channel.unary_stream(RPC + "CompareStream")(b"\xff").read()
    assert refused.value.code() is INVALID
    assert list(violations(refused.value)) == ["request"]


@pytest.mark.parametrize("rpc", ["Classify", "Compare", "CompareStream"])
async def test_an_unexpected_error_is_logged_in_full_and_reported_as_internal(
    served: Served, monkeypatch: pytest.MonkeyPatch, rpc: str
) -> None:
    async def broken(*args: Any) -> None:
        raise RuntimeError("secret /etc/path")

    monkeypatch.setattr(Scheduler, "submit", broken)
    request = pb.ClassifyRequest if rpc == "Classify" else getattr(pb, f"{rpc}Request")
    fields = {"image": image(), **({"model": "colors"} if rpc == "Classify" else {})}
    call = getattr(served.stub, rpc)(request(**fields))
    with capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as failed:
        await (call.read() if rpc == "CompareStream" else call)
    error = failed.value
    request_id = dict(error.trailing_metadata())["x-request-id"]
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == f"internal error; request {request_id}"
    assert "secret" not in str(error.trailing_metadata())
    (log,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert log["request_id"] == request_id
    assert log["method"] == RPC + rpc
    assert str(log["exc_info"]) == "secret /etc/path"


async def test_a_failed_model_is_an_internal_error(served: Served) -> None:
    error = await served.refused("Classify", classify(model="fragile", image=image(BLACK)))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == "the model computed NaN or infinity for this image"
    assert violations(error) == {}


async def test_overload_has_a_retry_delay(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*args: Any) -> None:
        raise Overloaded("too much", retry_after_s=1.5)

    monkeypatch.setattr(Scheduler, "submit", full)
    error = await served.refused("Classify", classify())
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    (retry,) = details(error, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 1500


async def test_a_long_message_is_cut(served: Served) -> None:
    names = [f"{i}" * 100 for i in range(100)]
    error = await served.refused("Detect", detect(labels=names))
    assert len(error.details()) == 512


async def test_an_unknown_method_is_unimplemented(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await served.channel.unary_unary(RPC + "Segment")(b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_health_keeps_its_own_statuses(served: Served) -> None:
    health = health_pb2_grpc.HealthStub(served.channel)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await health.Check(health_pb2.HealthCheckRequest(service="yolo"))
    assert refused.value.code() is NOT_FOUND


async def test_at_level_debug_every_call_is_logged_with_its_code(models: Path) -> None:
    async with served_by(App(settings(models, log_level="debug"))) as served:
        with capture_logs() as logs:
            await served.stub.Classify(classify())
            await served.refused("Classify", classify(model="yolo"))
            async for _ in served.stub.CompareStream(pb.CompareStreamRequest(image=image())):
                pass
    calls = [log for log in logs if log["event"] == "call"]
    assert [call["code"] for call in calls] == ["OK", "NOT_FOUND", "OK"]
    assert calls[0]["method"] == RPC + "Classify" and len(calls[0]["request_id"]) == 32


@pytest.mark.parametrize("rpc", ["Classify", "Compare"])
async def test_a_failure_leaves_no_picture_behind(
    served: Served, monkeypatch: pytest.MonkeyPatch, rpc: str
) -> None:
    pictures: list[weakref.ref[Picture]] = []
    read = queries.read_picture

    def read_picture(*args: Any, **options: Any) -> Picture:
        pictures.append(weakref.ref(picture := read(*args, **options)))
        return picture

    monkeypatch.setattr(queries, "read_picture", read_picture)
    gc.disable()
    try:
        if rpc == "Classify":
            await served.refused(rpc, classify(image=pb.Image(encoded=plain()[:60])))
        else:  # One model of several fails, and the call does not.
            await served.stub.Compare(pb.CompareRequest(image=image(BLACK)))
        (picture,) = pictures
        async with asyncio.timeout(10):  # the client gets the error before the server is done
            while picture() is not None:
                await asyncio.sleep(0.01)
    finally:
        gc.enable()
