"""Requests that are legal protobuf, and hold millions of something; and how long health waits."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import grpc
from visavis.v1 import vision_pb2 as pb

from tests.server.pictures import RED, plain
from tests.server.stuffed import delimited
from visavis_server.api.inference import grpc_service_pb2 as oip

from .calls import channel, health

VISION: Final = "/visavis.v1.VisionService/"
INFERENCE: Final = "/inference.GRPCInferenceService/"
Request = tuple[str, bytes]


def large_requests(size: int) -> Mapping[str, Request]:
    """Return a path and a message for each kind, of about so many bytes or of a given count."""
    picture = pb.Image(encoded=plain(RED))
    detect = pb.DetectRequest(image=picture, model="boxes").SerializeToString()
    compare = pb.CompareRequest(image=picture).SerializeToString()
    infer = oip.ModelInferRequest(model_name="colors").SerializeToString()
    empty = size // 2
    requests = {
        "labels": (VISION + "Detect", detect + b"\x3a\x00" * empty),
        "tasks": (VISION + "Compare", compare + delimited(2, b"\1" * size)),
        "models": (VISION + "CompareStream", compare + b"\x1a\x00" * empty),
        "outputs": (INFERENCE + "ModelInfer", infer + b"\x32\x00" * empty),
        "inputs": (INFERENCE + "ModelStreamInfer", infer + b"\x2a\x00" * empty),
        "BYTES elements": (INFERENCE + "ModelInfer", tensor("BYTES", [size // 4], bytes(size))),
        "parameters": (INFERENCE + "RepositoryModelLoad", b"\x1a\x00" * empty),
        "typed contents": (
            INFERENCE + "ModelInfer",
            infer + delimited(5, delimited(5, delimited(2, b"\1" * size))),
        ),
    }
    for rank in (400, 30_000, 100_000):
        requests[f"{rank:,} sizes of 2^62"] = (
            INFERENCE + "ModelInfer",
            tensor("FP32", [2**62] * rank, b""),
        )
    return requests


def tensor(datatype: str, shape: list[int], raw: bytes) -> bytes:
    """Return a ModelInferRequest with one input."""
    request = oip.ModelInferRequest(model_name="colors", raw_input_contents=[raw])
    request.inputs.add(name="images", datatype=datatype, shape=shape)
    return request.SerializeToString()


async def longest_health_s(address: str, requests: Mapping[str, Request]) -> tuple[float, set[str]]:
    """Send the requests one after the other; return how long health took at most, and all codes."""
    longest_s, codes = 0.0, set()
    async with channel(address) as one, channel(address) as other:

        async def watch() -> None:
            nonlocal longest_s
            while True:
                began = time.monotonic()
                await health(one)
                longest_s = max(longest_s, time.monotonic() - began)

        await health(one)
        watching = asyncio.create_task(watch())
        for path, data in requests.values():
            stream = path.endswith("Stream") or "StreamInfer" in path
            try:
                if stream:
                    async for _ in other.stream_stream(path)(iter([data]), timeout=120):
                        pass
                else:
                    await other.unary_unary(path)(data, timeout=120)
                codes.add("OK")
            except grpc.aio.AioRpcError as error:
                codes.add(error.code().name)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    return longest_s, codes
