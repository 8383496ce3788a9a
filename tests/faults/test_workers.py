"""Several workers on one address: they answer as one server, and each may die alone."""

import asyncio
import base64
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest
from visavis import Client
from visavis.v1 import vision_pb2 as pb

from tests.surroundings import VISAVIS, Surroundings, can_unshare
from visavis_server.api.inference import grpc_service_pb2 as inference_pb

from .calls import COLORS, OK, Ended, channel, classify, ended, stub_of
from .process import PATIENCE_S, ServerProcess, free_port, until
from .reloading import put, reload_under_callers

UNAVAILABLE, NOT_FOUND = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND
WORKERS = 2
# So many connections that each worker has one: the chance that it has none is 1 in 32768.
CONNECTIONS = 16
# On each of them at once: most still wait when the last has arrived, and none too long even on a
# busy machine.
CALLS = 2


class WorkersServer(ServerProcess):
    """A server with workers, and with HTTP."""

    def __init__(self, models: Path, folder: Path, *options: str, **environment: str) -> None:
        self.http = f"127.0.0.1:{free_port()}"
        self.killed: set[int] = set()
        more = ("--workers", str(WORKERS), "--http", self.http)
        super().__init__(models, folder, *more, *options, **environment)

    @property
    def workers(self) -> list[psutil.Process]:
        """The processes that listen on the gRPC port."""
        return [each for each in self.seen.children() if _listens(each, self.port)]

    def all_workers(self) -> list[psutil.Process]:
        """The workers, once all are seen.

        The kernel's table of sockets is not read at one moment: while others change, one that
        stays can be missing from it.
        """
        until(lambda: len(self.workers) >= WORKERS, "not all workers listen")
        return self.workers

    @property
    def entries(self) -> list[dict[str, object]]:
        """The entries of the log; each of its lines must be one."""
        return [json.loads(line) for line in self.log.splitlines()]

    def metrics(self) -> dict[str, float]:
        """What /metrics says, whichever worker is asked, by name and labels."""
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=PATIENCE_S) as answer:
            lines = answer.read().decode().splitlines()
        rows = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in rows}

    def ended(self) -> set[object]:
        """The process ids of the workers that have ended."""
        return {entry["pid"] for entry in self.entries if entry["event"] == "worker ended"}

    def kill_one(self, victim: psutil.Process | None = None) -> int:
        """Kill a worker; returns its process id."""
        victim = victim or self.workers[0]
        victim.kill()
        self.killed.add(victim.pid)
        return int(victim.pid)

    def until_replaced(self, killed: int) -> None:
        until(
            lambda: len(self.workers) == WORKERS and killed not in {w.pid for w in self.workers},
            "the worker was not replaced",
        )


def _listens(process: psutil.Process, port: int) -> bool:
    try:
        return any(c.laddr.port == port and c.status == "LISTEN" for c in process.net_connections())
    except psutil.Error:
        return False


def _connected(process: psutil.Process, port: int) -> int:
    """Return how many connections at a port a process has accepted."""
    ends = process.net_connections()
    return sum(each.laddr.port == port and each.status == "ESTABLISHED" for each in ends)


@pytest.fixture(scope="module")
def shared(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkersServer]:
    """One server for the tests that leave it as it was."""
    with WorkersServer(models, tmp_path_factory.mktemp("workers"), "--admin") as server:
        yield server
        assert server.ended() == server.killed, "a worker ended by itself"


@pytest.fixture
def server(models: Path, tmp_path: Path) -> Iterator[WorkersServer]:
    with WorkersServer(models, tmp_path, "--grace-s", "20") as server:
        yield server


async def on_many_connections(
    address: str, model: str = "colors", timeout_s: float = PATIENCE_S
) -> Counter[grpc.StatusCode]:
    """Return how a call on each of many connections ends."""
    channels = [channel(address) for _ in range(CONNECTIONS)]
    try:
        calls = [
            ended(stub_of(one).Classify(classify(model), timeout=timeout_s)) for one in channels
        ]
        return Counter(call.code for call in await asyncio.gather(*calls))
    finally:
        await asyncio.gather(*(one.close() for one in channels))


async def slow_calls(
    server: WorkersServer, channels: Sequence[grpc.aio.Channel]
) -> list[asyncio.Future[Ended]]:
    """Send calls that take long on each of many connections, and return once all have arrived."""

    def arrived() -> float:
        """Return how many calls have ended or wait, besides one that runs in each worker."""
        here = server.metrics()
        ended = (here[name] for name in here if re.match(r"visavis_calls_total.*/Classify", name))
        waiting = (here[name] for name in here if re.match(r"visavis_model_waiting.*slow", name))
        return sum(ended) + sum(waiting)

    before = await asyncio.to_thread(arrived)
    calls = [
        asyncio.ensure_future(ended(stub_of(one).Classify(classify("slow"))))
        for one in channels
        for _ in range(CALLS)
    ]
    most = before + len(calls) - WORKERS
    await asyncio.to_thread(until, lambda: arrived() >= most, "not all calls have arrived")
    return calls


def others(ends: Sequence[Ended], *codes: grpc.StatusCode) -> list[str]:
    """Return the errors of calls that ended with none of the codes."""
    return [str(each.error) for each in ends if each.code not in codes]


async def test_metrics_are_those_of_all_workers_whichever_is_asked(shared: WorkersServer) -> None:
    name = 'visavis_calls_total{code="OK",door="grpc",method="/visavis.v1.VisionService/Classify"}'
    before = shared.metrics().get(name, 0)
    assert await on_many_connections(shared.address) == {OK: CONNECTIONS}
    for _ in range(6):
        assert (await asyncio.to_thread(shared.metrics))[name] == before + CONNECTIONS
    metrics = shared.metrics()
    assert metrics['visavis_build_info{version="0.1.0"}'] == 1
    # The memory of each worker is its own.
    budgets = [name for name in metrics if name.startswith("visavis_memory_budget_bytes")]
    assert sorted(re.findall(r'worker="(\d)"', " ".join(budgets))) == ["1", "2"]
    assert [metrics[f'visavis_worker_up{{worker="{n}"}}'] for n in (1, 2)] == [1, 1]
    both = [metrics[f'visavis_worker_resident_bytes{{worker="{n}"}}'] for n in (1, 2)]
    assert min(both) > 10 << 20


async def test_every_protocol_is_served_by_all_workers(shared: WorkersServer) -> None:
    picture = pb.Image(encoded=COLORS["red"])
    body = json.dumps(
        {"model": "colors", "image": {"encoded": base64.b64encode(COLORS["red"]).decode()}}
    )

    def over_http() -> str:
        request = urllib.request.Request(
            f"http://{shared.http}/visavis.v1.VisionService/Classify",
            body.encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return str(json.load(answer)["classifications"][0]["label"])

    for _ in range(8):
        assert await asyncio.to_thread(over_http) == "red"
        async with channel(shared.address) as one:
            models = ["colors", "boxes"]
            compare = pb.CompareStreamRequest(image=picture, models=models)
            stream = stub_of(one).CompareStream(compare, timeout=PATIENCE_S)
            events = [event async for event in stream]
            arrived = [e.answer.answer.served_by.model for e in events if e.HasField("answer")]
            assert sorted(arrived) == sorted(models)
            infer = inference_pb.ModelInferRequest(model_name="colors_image")
            tensor = infer.inputs.add(name="IMAGE", datatype="BYTES", shape=[1])
            tensor.contents.bytes_contents.append(COLORS["red"])
            call = one.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                inference_pb.ModelInferRequest.SerializeToString,
                inference_pb.ModelInferResponse.FromString,
            )
            assert (await call(infer, timeout=PATIENCE_S)).model_name == "colors_image"


async def test_counters_do_not_fall_when_a_worker_is_killed(shared: WorkersServer) -> None:
    await on_many_connections(shared.address)
    before = shared.metrics()
    shared.until_replaced(shared.kill_one())
    after = shared.metrics()
    counters = [name for name in before if "_total" in name or "_bucket" in name]
    assert len(counters) > 50
    assert {n: (before[n], after.get(n)) for n in counters if after.get(n, -1) < before[n]} == {}


def test_each_line_of_the_log_is_json_and_says_which_worker_wrote_it(shared: WorkersServer) -> None:
    by_worker = Counter(e["worker"] for e in shared.entries if e["event"] == "loaded")
    assert set(by_worker) == {1, 2}
    (ready, *_) = [e for e in shared.entries if e["event"] == "all workers ready"]
    assert (ready["workers"], ready["listen"]) == (WORKERS, shared.address)


def test_workers_have_cores_of_their_own(shared: WorkersServer) -> None:
    allowed = os.sched_getaffinity(0)
    one, other = (set(worker.cpu_affinity()) for worker in shared.all_workers())
    assert one | other <= allowed
    if len(allowed) >= WORKERS:
        assert not one & other
        assert one | other == allowed


def test_the_supervisor_loads_none_of_the_large_libraries(shared: WorkersServer) -> None:
    loaded = Path(f"/proc/{shared.process.pid}/maps").read_text()
    for library in ("onnxruntime", "numpy", "cv2", "grpc", "google/"):
        assert library not in loaded
    assert "onnxruntime" in Path(f"/proc/{shared.workers[0].pid}/maps").read_text()


def test_a_killed_worker_is_replaced_within_a_second(shared: WorkersServer) -> None:
    began = time.monotonic()
    shared.until_replaced(shared.kill_one())
    # It takes 0.2 s; what is more than 1 s here is the machine's.
    assert time.monotonic() - began < 10
    (last, *_) = [e for e in reversed(shared.entries) if e["event"] == "worker ended"]
    assert (last["how"], last["next_in_s"]) == ("by signal 9", 0.0)


async def test_a_hanging_worker_gets_no_new_connections(shared: WorkersServer) -> None:
    """Long before it is replaced, and whichever it is."""
    for victim in shared.all_workers():
        began = time.monotonic()
        victim.suspend()
        try:
            while await on_many_connections(shared.address, timeout_s=2.0) != {OK: CONNECTIONS}:
                assert time.monotonic() - began < 20
        finally:
            victim.resume()


def test_killing_workers_loses_none_of_the_calls_of_the_sdk(shared: WorkersServer) -> None:
    answers: Counter[str] = Counter()
    over = time.monotonic() + 6

    def call() -> None:
        while time.monotonic() < over:
            with Client(shared.address, timeout=PATIENCE_S) as client:
                for color in ("red", "green", "blue") * 5:
                    found = client.classify(COLORS[color], model="colors")
                    answers[found.classifications[0].label == color] += 1

    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(call) for _ in range(6)]
        for _ in range(2):
            time.sleep(1)
            shared.until_replaced(shared.kill_one())
        for each in calls:
            each.result()  # raises what a call raised
    assert answers[True] > 100
    assert set(answers) == {True}


async def test_without_retries_only_the_killed_workers_calls_fail_and_may_be_retried(
    shared: WorkersServer,
) -> None:
    channels = [channel(shared.address) for _ in range(CONNECTIONS)]
    calls = await slow_calls(shared, channels)
    victim = max(shared.workers, key=lambda worker: _connected(worker, shared.port))
    its_calls = _connected(victim, shared.port) * CALLS
    shared.kill_one(victim)
    ends = await asyncio.gather(*calls)
    await asyncio.gather(*(one.close() for one in channels))
    # Those of its calls that had their answers are not lost.
    assert 0 < sum(each.code is UNAVAILABLE for each in ends) <= its_calls
    assert others(ends, OK, UNAVAILABLE) == []
    await asyncio.to_thread(shared.until_replaced, victim.pid)


async def test_models_are_loaded_and_unloaded_in_all_workers(shared: WorkersServer) -> None:
    async def administer(action: str) -> None:
        async with channel(shared.address) as one:
            kind = getattr(inference_pb, f"RepositoryModel{action}Request")
            response = getattr(inference_pb, f"RepositoryModel{action}Response")
            method = f"/inference.GRPCInferenceService/RepositoryModel{action}"
            call = one.unary_unary(method, kind.SerializeToString, response.FromString)
            await call(kind(model_name="colors"), timeout=PATIENCE_S)

    await administer("Unload")
    assert await on_many_connections(shared.address) == {NOT_FOUND: CONNECTIONS}
    # A replaced worker knows it too.
    await asyncio.to_thread(lambda: shared.until_replaced(shared.kill_one()))
    assert await on_many_connections(shared.address) == {NOT_FOUND: CONNECTIONS}
    await administer("Load")
    assert await on_many_connections(shared.address) == {OK: CONNECTIONS}


@pytest.mark.parametrize("more", [(), ("--workers", "2")])
def test_another_server_on_the_address_is_refused(
    shared: WorkersServer, models: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    found = Surroundings.under(tmp_path)
    done = subprocess.run(
        [VISAVIS, "serve", "--models", models, "--device", "cpu", "--grpc", shared.address, *more],
        cwd=found.elsewhere,
        env=found.environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1
    assert f"can't listen on {shared.address}: the address is already in use" in done.stderr


async def test_sigterm_answers_the_calls_in_flight_in_all_workers(server: WorkersServer) -> None:
    channels = [channel(server.address) for _ in range(CONNECTIONS)]
    calls = await slow_calls(server, channels)
    server.signal(signal.SIGTERM)
    assert others(await asyncio.gather(*calls), OK) == []
    assert await asyncio.to_thread(server.wait) == 0
    await asyncio.gather(*(one.close() for one in channels))
    assert server.entries[-1]["event"] == "all workers stopped"


async def test_a_second_sigterm_ends_all_workers_at_once(server: WorkersServer) -> None:
    family = server.seen.children(recursive=True)
    async with channel(server.address) as one:
        calls = [
            asyncio.ensure_future(ended(stub_of(one).Classify(classify("slow"))))
            for _ in range(100)
        ]
        await asyncio.sleep(0.5)
        server.signal(signal.SIGTERM)
        await asyncio.to_thread(until, lambda: "stopping all workers" in server.log, "no drain")
        server.signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.wait) == 128 + signal.SIGTERM
        await asyncio.gather(*calls)
    assert not psutil.wait_procs(family, timeout=PATIENCE_S)[1]


def test_workers_end_when_the_supervisor_is_killed(server: WorkersServer) -> None:
    family = server.seen.children(recursive=True)
    assert len(family) >= WORKERS + 1
    server.signal(signal.SIGKILL)
    server.wait()
    assert not psutil.wait_procs(family, timeout=PATIENCE_S)[1]


async def test_sighup_reloads_all_workers(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changing"
    put(folder, "colors", 1)
    with WorkersServer(folder, tmp_path) as server:
        put(folder, "more", 1)
        server.signal(signal.SIGHUP)
        end = time.monotonic() + PATIENCE_S
        while await on_many_connections(server.address, "more") != {OK: CONNECTIONS}:
            assert time.monotonic() < end, server.log
            await asyncio.sleep(0.1)
        assert await on_many_connections(server.address) == {OK: CONNECTIONS}


async def test_reloads_under_callers_fail_nothing_in_any_worker(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    put(folder, "colors", 1)
    with WorkersServer(folder, tmp_path, "--watch-interval-s", "0.1") as server:
        report = await reload_under_callers(server, folder, reloads=2, callers=8)
    assert report["failures"] == []
    assert report["mixed"] == []
    assert report["versions"] == [1, 2, 3]


def test_systemd_hears_of_one_server_and_a_hanging_worker_is_replaced(
    models: Path, tmp_path: Path
) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(PATIENCE_S)
        watchdog = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "3000000"}
        with WorkersServer(models, tmp_path, **watchdog) as server:
            assert systemd.recv(100) == b"READY=1"
            assert systemd.recv(100) == b"WATCHDOG=1"
            hanging = server.workers[0]
            hanging.suspend()
            while "worker replaced" not in server.log:
                # The other worker answers for the server.
                assert systemd.recv(100) == b"WATCHDOG=1"
            assert hanging.pid not in {worker.pid for worker in server.workers}
            server.signal(signal.SIGTERM)
            while (heard := systemd.recv(100)) == b"WATCHDOG=1":
                pass
            assert heard == b"STOPPING=1"
            assert server.wait() == 0
    assert "no model has answered for 3 s" in server.log


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_workers_that_cannot_start_end_the_server_with_the_reason(
    tmp_path: Path, log_format: str
) -> None:
    found = Surroundings.under(tmp_path)
    serve = [VISAVIS, "serve", "--models", tmp_path, "--device", "cpu", "--workers", "2"]
    done = subprocess.run(
        [*serve, "--grpc", "127.0.0.1:0", "--log-format", log_format],
        cwd=found.elsewhere,
        env=found.environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "export one with `visavis export" in last, done.stderr
    assert last.startswith("visavis: ") if log_format == "console" else json.loads(last)


def test_auto_says_what_it_chose_and_why(models: Path, tmp_path: Path) -> None:
    with ServerProcess(models, tmp_path, "--workers", "auto", "--cores", "2") as server:
        (chosen, *_) = map(json.loads, server.log.splitlines())
    assert (chosen["event"], chosen["workers"]) == ("workers chosen", 1)
    assert "2 usable cores" in chosen["why"]


@pytest.mark.skipif(not can_unshare(), reason="namespaces for processes take root")
def test_as_process_1_all_workers_end_and_leave_no_zombies(models: Path, tmp_path: Path) -> None:
    log_file = tmp_path / "log"
    options = f"--models {models} --device cpu --workers 2 --grpc 127.0.0.1:0 --log-format json"
    with log_file.open("wb") as log:
        outer = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount-proc", VISAVIS, "serve", *options.split()],
            stdout=log,
            stderr=log,
            cwd=tmp_path,
            env=Surroundings.under(tmp_path).environment(),
        )
    try:
        until(lambda: "all workers ready" in log_file.read_text(), "it is not ready")
        (first,) = psutil.Process(outer.pid).children()
        (supervisor,) = first.children()
        victim = next(filter(_is_worker, supervisor.children()))
        victim.kill()
        until(lambda: "worker replaced" in log_file.read_text(), log_file.read_text())
        family = first.children(recursive=True)
        assert [each.pid for each in family if each.status() == psutil.STATUS_ZOMBIE] == []
        first.send_signal(signal.SIGTERM)
        assert outer.wait(PATIENCE_S) == 0
        assert not psutil.wait_procs(family, timeout=PATIENCE_S)[1]
    finally:
        outer.kill()
        outer.wait()


def _is_worker(process: psutil.Process) -> bool:
    return any(each.status == "LISTEN" for each in process.net_connections())


def test_no_worker_is_ready_before_all_have_loaded_their_models(shared: WorkersServer) -> None:
    first = [e for e in shared.entries if e.get("worker") in (1, 2)]
    ready = min(str(e["timestamp"]) for e in first if e["event"] == "ready")
    loaded = [e["worker"] for e in first if e["event"] == "loaded" and str(e["timestamp"]) < ready]
    # colors, fragile, boxes and slow.
    assert Counter(loaded) == {1: 4, 2: 4}
