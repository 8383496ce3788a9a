"""Measures the CPU time of a call on Ray Serve and on the plain server, in turns.

`python -m tests.ray.cost --models FOLDER --picture FILE`, with a model resnet50 in the folder.
All processes of both servers count, the callers don't. What the processes do while nothing calls
is measured first, and told apart.
"""

import argparse
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
from visavis.v1 import vision_pb2 as pb
from visavis.v1 import vision_pb2_grpc

from tests.faults.process import ServerProcess
from visavis_server.api.inference import grpc_service_pb2 as oip

from .conftest import RayCluster

_STATISTICS = "/inference.GRPCInferenceService/ModelStatistics"


class Server:
    """A server to measure: its address, and the process above all of its own."""

    def __init__(self, name: str, address: str, process: int) -> None:
        self.name = name
        self._address = address
        self._process = psutil.Process(process)
        self._idle: dict[str, float] = {}

    def rest(self, seconds: float) -> None:
        """Learn what the processes do between calls, in cores."""
        before = self._cpu_s()
        time.sleep(seconds)
        after = self._cpu_s()
        self._idle = {
            name: (used - before.get(name, 0.0)) / seconds for name, used in after.items()
        }

    def load(self, request: pb.ClassifyRequest, callers: int, seconds: float) -> str:
        """Call for some seconds; returns a row of figures per call."""
        with grpc.insecure_channel(self._address) as channel:
            runs, images, cpu = *_runs(channel, request.model), self._cpu_s()
            calls, wall = _called(self._address, request, callers, seconds)
            spent = {
                name: used - cpu.get(name, 0.0) - self._idle.get(name, 0.0) * wall
                for name, used in self._cpu_s().items()
            }
            after = _runs(channel, request.model)
        batch = (after[1] - images) / max(1, after[0] - runs)
        parts = ", ".join(
            f"{name} {used / calls * 1e3:.1f}" for name, used in sorted(spent.items())
        )
        total = sum(spent.values()) / calls * 1e3
        return (
            f"{self.name}, {callers} callers: {total:.1f} ms CPU a call ({parts}); "
            f"beside them {sum(self._idle.values()):.3f} cores; "
            f"{calls / wall:.1f} calls/s, {batch:.2f} images a run"
        )

    def _cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds of all processes so far, by kind."""
        seconds: Counter[str] = Counter()
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                times, title = process.cpu_times(), " ".join(process.cmdline())
            except psutil.NoSuchProcess:
                continue
            seconds[_kind(title)] += times.user + times.system
        return seconds


def _kind(title: str) -> str:
    """Return a word for a process by its command line."""
    if found := re.match(r"ray::ServeReplica:visavis:(\w+)", title):
        return found[1]
    if title.startswith("ray::ProxyActor"):
        return "proxy"
    return "server" if "serve --models" in title else "others"


def _runs(channel: grpc.Channel, model: str) -> tuple[int, int]:
    """Return the numbers of runs and of images so far."""
    ask = channel.unary_unary(
        _STATISTICS,
        oip.ModelStatisticsRequest.SerializeToString,
        oip.ModelStatisticsResponse.FromString,
    )
    (found,) = ask(oip.ModelStatisticsRequest(name=model)).model_stats
    return found.execution_count, found.inference_count


def _called(
    address: str, request: pb.ClassifyRequest, callers: int, seconds: float
) -> tuple[int, float]:
    """Return the number of calls, and the seconds until the last one ended."""
    counts, began = [0] * callers, time.monotonic()

    def call(number: int) -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        with grpc.insecure_channel(address, options) as channel:
            stub: Any = vision_pb2_grpc.VisionServiceStub(channel)  # type: ignore[no-untyped-call]
            while time.monotonic() - began < seconds:
                stub.Classify(request)
                counts[number] += 1

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts), time.monotonic() - began


def _rows(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    picture = pb.Image(encoded=options.picture.read_bytes())
    request = pb.ClassifyRequest(image=picture, model=options.model)
    cluster = RayCluster(options.models, folder / "cluster", "--nodes", "0", *options.ray)
    try:
        with ServerProcess(options.models, folder / "plain", *options.plain) as plain:
            servers = [
                Server("visavis serve", plain.address, plain.process.pid),
                Server("Ray Serve", cluster.address, cluster.process.pid),
            ]
            for server in servers:
                server.load(request, max(options.callers), options.seconds / 2)
                server.rest(options.seconds)
            for _ in range(options.turns):
                for callers in options.callers:
                    for server in servers:
                        yield server.load(request, callers, options.seconds)
    finally:
        cluster.stop()


def main() -> None:
    """Print a row for each measurement, in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--callers", type=int, nargs="+", default=(1, 8))
    parser.add_argument("--plain", type=str.split, default=(), help="options of visavis serve")
    parser.add_argument("--ray", type=str.split, default=(), help="options of tests.ray.cluster")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cluster").mkdir()
        for row in _rows(options, Path(folder)):
            print(row, flush=True)


if __name__ == "__main__":
    main()
