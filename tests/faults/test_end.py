"""That it ends when it is told to, whatever hangs, and what other signals do."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from tests.server import graphs
from tests.surroundings import can_unshare

from .calls import OK, channel, classify, ended, stub_of
from .conftest import Serve
from .process import VISAVIS, ServerProcess, until

# Replaces a part of the server by one that never returns, and then serves.
_HANGING = """
import asyncio, sys, time
from visavis_server.vision import results
from visavis_server.models import engine
from visavis_server.api.vision import service as vision_service
def hang(*arguments, **named):
    open(sys.argv[2], "w").close()
    while True:
        time.sleep(0.01)
async def hang_beside_the_loop(*arguments):
    await asyncio.to_thread(hang)
{replaced}
from visavis_server.__main__ import main
sys.exit(main(sys.argv[3:]))
"""
_REPLACED = {
    "a decoder": "results.Picture.decode = hang",
    "a run that does not end when it is told to": "engine.Engine.run = hang",
    "a thread beside the loop": "vision_service.VisionService.Classify = hang_beside_the_loop",
}
GRACE_S = 1.0


@pytest.mark.parametrize("what", _REPLACED)
async def test_past_the_grace_period_it_ends_whatever_hangs(
    models: Path, tmp_path: Path, what: str
) -> None:
    hangs = tmp_path / "hangs"

    class Hanging(ServerProcess):
        command = (sys.executable, "-c", _HANGING.format(replaced=_REPLACED[what]), "", str(hangs))

    with Hanging(models, tmp_path / "server", "--grace-s", str(GRACE_S)) as server:
        async with channel(server.address) as one:
            call = asyncio.ensure_future(ended(stub_of(one).Classify(classify("colors"))))
            await asyncio.to_thread(until, hangs.exists, "nothing hangs")
            server.signal(signal.SIGTERM)
            began = time.monotonic()
            assert await asyncio.to_thread(server.wait) == 0
            # Once it took as long as the thread did; what is more than 3 s here is the machine's.
            assert time.monotonic() - began < GRACE_S + 10
            codes = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            assert (await call).code in codes
        last = json.loads(server.log.splitlines()[-1])
        assert last["event"] == "ended with work unfinished"
        if what != "a thread beside the loop":
            assert any(each.startswith("core-") for each in last["unfinished"])


async def test_calls_survive_signals_that_do_not_stop_it(serve: Serve) -> None:
    server = serve()
    async with channel(server.address) as one:
        calls = [
            asyncio.ensure_future(ended(stub_of(one).Classify(classify("slow")))) for _ in range(16)
        ]
        await stub_of(one).Classify(classify("colors"))
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE) * 3:
            server.signal(number)
        assert [call.code for call in await asyncio.gather(*calls)] == [OK] * 16
    assert server.process.poll() is None


async def test_sighup_reads_the_repository_again(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changing"
    colors = (models / "colors" / "1" / "model.onnx").read_bytes()
    graphs.put(folder, "colors", 1, colors)
    with ServerProcess(folder, tmp_path) as server:
        graphs.put(folder, "more", 1, colors)
        shutil.rmtree(folder / "colors")
        server.signal(signal.SIGHUP)
        async with channel(server.address) as one:
            codes = []
            for _ in range(600):
                called = [ended(stub_of(one).Classify(classify(m))) for m in ("more", "colors")]
                codes = [call.code for call in await asyncio.gather(*called)]
                if codes == [OK, grpc.StatusCode.NOT_FOUND]:
                    break
                await asyncio.sleep(0.1)
            assert codes == [OK, grpc.StatusCode.NOT_FOUND], server.log


# As process 1, as in a container.


class FirstProcess:
    """A server that is process 1, behind some shell commands."""

    def __init__(self, models: Path, folder: Path, before: str = "") -> None:
        self.log_file = folder / "log"
        serve = f"exec {VISAVIS} serve --models {models} --grpc unix:{folder}/socket --device cpu"
        with self.log_file.open("wb") as log:
            self.outer = subprocess.Popen(
                ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", f"{before} {serve}"],
                stdout=log,
                stderr=log,
                cwd=folder,
                env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            )
        until(lambda: bool(psutil.Process(self.outer.pid).children()), "it has not begun")
        (self.first,) = psutil.Process(self.outer.pid).children()

    def log(self) -> str:
        return self.log_file.read_text()

    def takes_sigterm(self) -> bool:
        status = Path(f"/proc/{self.first.pid}/status").read_text()
        (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught, 16) & 1 << (signal.SIGTERM - 1))

    def end(self) -> int:
        self.first.send_signal(signal.SIGTERM)
        return self.outer.wait(60)


@pytest.fixture
def as_process_1(models: Path, tmp_path: Path) -> Iterator[Callable[..., FirstProcess]]:
    started: list[FirstProcess] = []

    def start(before: str = "") -> FirstProcess:
        started.append(FirstProcess(models, tmp_path, before))
        return started[-1]

    yield start
    for server in started:
        if server.outer.poll() is None:
            server.first.kill()
            server.outer.wait(60)


@pytest.mark.skipif(not can_unshare(), reason="namespaces for processes take root")
@pytest.mark.parametrize("later_s", [0.0, 0.2, 0.6, 1.5])
def test_as_process_1_it_ends_in_its_first_second_too(
    as_process_1: Callable[..., FirstProcess], later_s: float
) -> None:
    server = as_process_1()
    # Long before it has imported what it needs.
    until(server.takes_sigterm, "it takes no SIGTERM")
    assert "starting" not in server.log()
    time.sleep(later_s)
    assert server.end() == 0, server.log()


@pytest.mark.skipif(not can_unshare(), reason="namespaces for processes take root")
def test_as_process_1_it_leaves_no_zombies(as_process_1: Callable[..., FirstProcess]) -> None:
    # Children of a shell that has ended before they do are process 1's.
    server = as_process_1(before="sh -c 'for i in 1 2 3; do sleep 2 & done';")
    until(lambda: len(server.first.children()) >= 3, "process 1 has not got the children")
    until(lambda: "ready" in server.log(), "it is not ready")
    until(lambda: len(server.first.children()) == 1, f"{server.first.children()} are left")
    assert server.end() == 0, server.log()
