"""Pictures a second from encoded JPEGs: the server, a plain loop on the same device, their parts.

The plain loop has a thread for each core: decode a batch, prepare it, run it, read its answers.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from visavis.client import Client
from visavis.errors import VisavisError

from tests.surroundings import Surroundings
from visavis_server.card import Task
from visavis_server.models.model_files import ModelFile
from visavis_server.models.served_model import ServedModel
from visavis_server.vision.families import preprocess_one
from visavis_server.vision.results import Options

from .proofs import Failed, require
from .site import Site, decoded

BATCHES = (1, 8, 16)
_CALLERS = 64
_CORES_PER_CALLER = 8
_READY_S = 300.0
# Of a part's own throughput: who reaches it is bounded by it.
_BOUND = 0.75


@dataclass(frozen=True)
class Row:
    """Pictures a second at one batch size, and what bounds the server, in words."""

    model: str
    batch: int
    server: float
    loop: float
    device: float
    cores: float
    bottleneck: str


def rows(site: Site, file: ModelFile) -> Iterator[Row]:
    """Measure a model at each batch size."""
    model = site.loaded(file)
    cores = _rate(site.planner.cores, site.seconds, _without_session(site, model))
    for batch in BATCHES:
        device = _rate(site.planner.streams, site.seconds, _session_alone(site, model, batch))
        loop = _rate(site.planner.cores, site.seconds, _plain_loop(site, model, batch))
        server = _served(site, model, batch)
        yield Row(
            model.name, batch, server, loop, device, cores, _bottleneck(server, device, cores)
        )


def _bottleneck(server: float, device: float, cores: float) -> str:
    """Name what bounds the server: the slower of its parts, unless it stays well below both."""
    least, part = min((device, "the device"), (cores, "decoding on the cores"))
    if server >= _BOUND * least:
        return part
    return f"the server's process: it reaches {server / least:.0%} of {part}; try --workers"


def _rate(threads: int, seconds: float, step: Callable[[], int]) -> float:
    """Return the pictures a second of threads that repeat a step, which returns its pictures."""
    done: list[int] = []
    step()
    began = time.perf_counter()

    def run() -> None:
        while time.perf_counter() < began + seconds:
            done.append(step())

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(done) / (time.perf_counter() - began)


def _without_session(site: Site, model: ServedModel) -> Callable[[], int]:
    """Return a step that decodes and prepares one picture, and reads an answer."""
    family, options = model.engine.family, Options().of(model.task)
    turn = iter(range(1 << 62))
    sessions, names = model.engine.sessions, model.engine._output_names
    outputs = sessions.run(site.inputs(model, 1), names)

    def step() -> int:
        picture = decoded(site.encoded[next(turn) % len(site.encoded)])
        _, geometry = preprocess_one(family, picture)
        family.postprocess(outputs, geometry, options)
        return 1

    return step


def _session_alone(site: Site, model: ServedModel, batch: int) -> Callable[[], int]:
    inputs, names = site.inputs(model, batch), model.engine._output_names

    def step() -> int:
        model.engine.sessions.run(inputs, names)
        return batch

    return step


def _plain_loop(site: Site, model: ServedModel, batch: int) -> Callable[[], int]:
    family, options = model.engine.family, Options().of(model.task)
    turn, names = iter(range(1 << 62)), model.engine._output_names

    def step() -> int:
        encoded = [site.encoded[next(turn) % len(site.encoded)] for _ in range(batch)]
        prepared = [preprocess_one(family, decoded(data)) for data in encoded]
        outputs = model.engine.sessions.run([tensor[0] for tensor, _ in prepared], names)
        for i, (_, geometry) in enumerate(prepared):
            family.postprocess([output[i : i + 1] for output in outputs], geometry, options)
        return batch

    return step


def _served(site: Site, model: ServedModel, batch: int) -> float:
    """Return the answers a second of a server, with callers in other processes."""
    with Surroundings.temporary() as where, _server(site, model, batch, where) as address:
        method = "classify" if model.task is Task.CLASSIFICATION else "detect"
        processes = max(1, site.planner.cores // _CORES_PER_CALLER)
        callers = str(_CALLERS // processes)
        command = [sys.executable, "-P", "-m", "tests.gpu.caller", address, method, model.name]
        command += [callers, str(site.seconds), *(str(each.resolve()) for each in site.files)]
        environment, folder = where.environment_of_tests(), where.elsewhere
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=folder)
            for _ in range(processes)
        ]
        done = [json.loads(each.communicate(timeout=120)[0]) for each in running]
    failed = sum(each["failed"] for each in done)
    require(not failed, f"{failed} calls to the server failed")
    return float(sum(each["answered"] for each in done) / site.seconds)


@contextmanager
def _server(site: Site, model: ServedModel, batch: int, where: Surroundings) -> Iterator[str]:
    """Run a server whose largest batch is given; yields its address once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    device = site.provider.device
    settings = where.elsewhere / "visavis.toml"
    settings.write_text(f'[tuning."{model.name}"]\ndevice = "{device}"\nbatch = {batch}\n', "utf-8")
    module = ["visavis", "serve"] if site.is_gpu else ["tests.gpu.stand_in"]
    command = [sys.executable, "-P", "-m", *module, "--models", str(site.repository.resolve())]
    command += ["--grpc", address, "--device", device, "--streams", str(site.planner.streams)]
    environment = where.environment_of_tests()
    for name in ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"):
        if name in os.environ:
            environment[name] = os.environ[name]
    log_file = where.elsewhere / "server.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, cwd=where.elsewhere
        )
        try:
            _wait(address, process, log_file)
            yield address
        finally:
            process.terminate()
            process.wait(60)


def _wait(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + _READY_S
    with Client(address) as client:
        while time.monotonic() < end and process.poll() is None:
            with suppress(VisavisError):
                client.wait_until_ready(1.0)
                return
    raise Failed(f"the server is not ready: {log.read_text('utf-8', errors='replace')[-1000:]}")
