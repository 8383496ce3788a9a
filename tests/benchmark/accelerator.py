"""The scheduler with an accelerator that is simulated: it sleeps as a GPU would, and copies."""

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from visavis_server.runtime.plan import Plan
from visavis_server.runtime.scheduling.scheduler import Caller, Scheduler, Stop
from visavis_server.settings import ImageLimits
from visavis_server.vision.families.resize import resize_shorter_side
from visavis_server.vision.image import decode

from .site import Site
from .targets import Measurement, Result, at_least

# Of a small GPU on a slow bus: slower than two cores decode, so that it is the bottleneck.
_RUN_S, _RUN_PER_IMAGE_S = 0.004, 0.006
_COPY_PER_IMAGE_S = 0.001
_CALLERS = 64


@dataclass
class _Job:
    encoded: bytes
    pixels: Any = None


class _Accelerator:
    """One device: its bus and its processor each do one thing at a time, beside each other."""

    name = "accelerator"
    plan = Plan(runs_on="device", batch=16, instances=2)

    def __init__(self) -> None:
        self.busy_s = 0.0
        self.batches: list[int] = []
        self._bus, self._processor = threading.Lock(), threading.Lock()

    def allocate(self, jobs: list[_Job]) -> None:
        """Nothing: each job keeps its own input."""

    def prepare(self, job: _Job) -> None:
        """Decode and resize, as the server does."""
        job.pixels = resize_shorter_side(decode(job.encoded, ImageLimits()), 256, 224, 224)

    def run(self, jobs: list[_Job], exclusive: bool, stop: Stop) -> list[float]:
        """Copy the batch, then compute; another stream may copy meanwhile."""
        with self._bus:
            time.sleep(_COPY_PER_IMAGE_S * len(jobs))
        with self._processor:
            began = time.perf_counter()
            time.sleep(_RUN_S + _RUN_PER_IMAGE_S * len(jobs))
            self.busy_s += time.perf_counter() - began
            self.batches.append(len(jobs))
        return [float(np.mean(job.pixels)) for job in jobs]

    def finish(self, job: _Job, output: float) -> float:
        """Return the output itself."""
        return output


def _busy(site: Site) -> Sequence[Result]:
    encoded = [path.read_bytes() for path in site.pictures]
    accelerator, scheduler = _Accelerator(), Scheduler(2, 1000, streams=2)
    end = time.perf_counter() + site.seconds

    async def caller(number: int) -> None:
        while time.perf_counter() < end:
            number += 1
            job = _Job(encoded[number % len(encoded)])
            await scheduler.submit(accelerator, job, Caller("Classify"))

    async def load() -> None:
        await asyncio.gather(*(caller(number) for number in range(_CALLERS)))

    began = time.perf_counter()
    try:
        asyncio.run(load())
    finally:
        scheduler.close()
    took_s = time.perf_counter() - began
    busy = accelerator.busy_s / took_s
    mean = sum(accelerator.batches) / len(accelerator.batches)
    alone = _RUN_S + (_RUN_PER_IMAGE_S + _COPY_PER_IMAGE_S) * 16
    return [
        Result(
            busy,
            f"**{busy:.0%}** busy, {sum(accelerator.batches) / took_s:.0f} images per s in batches "
            f"of {mean:.1f}; one stream that copies, then computes: {16 / alone:.0f} at most",
        )
    ]


MEASUREMENTS = (
    Measurement(
        "accelerator",
        (at_least("A simulated GPU, batch 16, from JPEGs: busy", 0.9, "over 90 %"),),
        _busy,
    ),
)
