"""The most that one process of the server could answer: calls without a picture or a model."""

import asyncio
import time
from dataclasses import dataclass

import grpc

from visavis import connection
from visavis.bench.process import Watched
from visavis.v1 import vision_pb2 as pb

_METHOD = "/visavis.v1.VisionService/GetModel"
_CALLERS = 16
_WARM_UP_S, _MEASURED_S = 0.5, 2.0


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Calls per second that were answered, and the CPU time that each took the server, if known."""

    per_s: float
    server_cpu_ms: float | None

    def __str__(self) -> str:
        text = f"without picture and model: {self.per_s:,.0f} calls per s"
        if not self.server_cpu_ms:
            return text
        most = 1e3 / self.server_cpu_ms
        return (
            f"{text}, {self.server_cpu_ms:.2f} ms of the server's CPU each; so one process answers "
            f"at most {most:,.0f} per s, whatever the model and however many cores"
        )


async def ceiling(address: str, model: str, watched: Watched | None, timeout_s: float) -> Ceiling:
    """Ask for a model's card as fast as possible, over one connection for each caller.

    Such a call takes the server's path but for the picture, the scheduler and the model, so the
    real ceiling is lower. Raises grpc.aio.AioRpcError.
    """
    where = connection.endpoint(address)
    options = [*connection.channel_options(where), ("grpc.use_local_subchannel_pool", 1)]
    request = pb.GetModelRequest(model=model).SerializeToString()
    channels = [grpc.aio.insecure_channel(where.target, options) for _ in range(_CALLERS)]
    answered = 0
    over = asyncio.Event()

    async def caller(channel: grpc.aio.Channel) -> None:
        nonlocal answered
        call = channel.unary_unary(_METHOD, None, None)
        while not over.is_set():
            await call(request, timeout=timeout_s)
            answered += 1

    def cpu_s() -> float | None:
        return watched.cpu_s() if watched else None

    tasks = [asyncio.create_task(caller(channel)) for channel in channels]
    try:
        await asyncio.sleep(_WARM_UP_S)
        before, cpu_before, began = answered, cpu_s(), time.perf_counter()
        await asyncio.sleep(_MEASURED_S)
        count, cpu_after, took_s = answered - before, cpu_s(), time.perf_counter() - began
        over.set()
        await asyncio.gather(*tasks)
    finally:
        for channel in channels:
            await channel.close(None)
    if cpu_before is None or cpu_after is None or not count:
        return Ceiling(count / took_s, None)
    return Ceiling(count / took_s, (cpu_after - cpu_before) / count * 1e3)
