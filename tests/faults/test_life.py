"""How a server ends, and what it tells systemd."""

import asyncio
import signal
import socket
import sys
import time
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from tests.server import graphs
from tests.surroundings import Surroundings

from .calls import OK, channel, classify, ended, health, stub_of
from .conftest import Serve, slow
from .process import ServerProcess, until

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_sigterm_under_64_calls_in_flight_answers_all_64(serve: Serve) -> None:
    server = serve()
    async with channel(server.address) as one, channel(server.address) as other:
        calls = [asyncio.ensure_future(ended(stub_of(one).Classify(classify("slow"))))]
        calls += [
            asyncio.ensure_future(ended(stub_of(one).Classify(classify("slow")))) for _ in range(63)
        ]
        # The answer to a call that came later says that those are in.
        await stub_of(one).Classify(classify("colors"))
        server.signal(signal.SIGTERM)
        while await health(other) != NOT_SERVING:
            await asyncio.sleep(0.01)
        late = await ended(stub_of(other).Classify(classify()))
        assert late.code is UNAVAILABLE
        assert [call.code for call in await asyncio.gather(*calls)] == [OK] * 64
    assert server.wait() == 0


async def test_a_second_sigterm_ends_it_at_once(serve: Serve) -> None:
    server = serve()
    async with channel(server.address) as one:
        calls = [
            asyncio.ensure_future(ended(stub_of(one).Classify(classify("slow"))))
            for _ in range(100)
        ]
        await stub_of(one).Classify(classify("colors"))
        server.signal(signal.SIGTERM)
        while await health(one) != NOT_SERVING:
            await asyncio.sleep(0.01)
        server.signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.wait) == 128 + signal.SIGTERM
        for call in calls:
            call.cancel()


def test_sigterm_during_a_reload_ends_it_with_exit_code_0(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    graphs.put(folder, "colors", 1, (models / "colors" / "1" / "model.onnx").read_bytes())
    with ServerProcess(folder, tmp_path, "--watch-interval-s", "0.05") as server:
        graphs.put(folder, "slow", 1, (models / "slow" / "1" / "model.onnx").read_bytes())
        until(lambda: bool(server.seen.children()), "no trial has begun")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "stopped" in server.log


def test_sigterm_while_a_model_loads_without_end_ends_it_with_exit_code_0(tmp_path: Path) -> None:
    folder = tmp_path / "endless"
    graphs.put(folder, "endless", 1, slow(times=10**9))
    server = ServerProcess(folder, tmp_path)
    try:
        # It listens, and the model is being warmed up.
        until(lambda: "starting" in server.log and server.threads > 3, "it has not begun")
        time.sleep(0.5)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "stopped" in server.log
    finally:
        server.__exit__(None, None, None)


def test_systemd_hears_ready_alive_and_stopping(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(30)
        server = serve(NOTIFY_SOCKET=str(path), WATCHDOG_USEC="600000")
        assert systemd.recv(100) == b"READY=1"
        for _ in range(3):
            assert systemd.recv(100) == b"WATCHDOG=1"
        server.signal(signal.SIGTERM)
        while (heard := systemd.recv(100)) == b"WATCHDOG=1":
            pass
        assert heard == b"STOPPING=1"
    assert server.wait() == 0


async def test_clients_that_are_killed_leave_nothing_behind(serve: Serve, tmp_path: Path) -> None:
    server, found = serve(), Surroundings.under(tmp_path)
    async with channel(server.address) as one:
        await stub_of(one).Classify(classify("slow"))
        descriptors, threads = server.descriptors, 0
        program = (
            "import asyncio, sys\n"
            "from tests.faults.calls import *\n"
            "async def main():\n"
            "    channels = [channel(sys.argv[1]) for _ in range(8)]\n"
            "    calls = [ended(stub_of(c).Classify(classify('slow'))) for c in channels * 8]\n"
            "    print('calling', flush=True)\n"
            "    await asyncio.gather(*calls)\n"
            "asyncio.run(main())\n"
        )
        for number in range(4):
            client = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", program, server.address),
                stdout=asyncio.subprocess.PIPE,
                cwd=found.elsewhere,
                env=found.environment_of_tests(),
            )
            assert client.stdout
            await client.stdout.readline()
            while server.descriptors < descriptors + 8:
                await asyncio.sleep(0.01)
            client.kill()
            await client.wait()
            until(
                lambda: server.descriptors <= descriptors,
                f"{descriptors} open files have become {server.descriptors}",
            )
            # gRPC starts threads as they are needed, and keeps them.
            if number == 0:
                threads = server.threads
        until(lambda: server.threads <= threads, f"{threads} threads have become {server.threads}")
        assert (await ended(stub_of(one).Classify(classify()))).code is OK
