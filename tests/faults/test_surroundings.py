"""What the server does to the machine that it runs on: as little as possible."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from visavis.v1 import vision_pb2 as pb

from tests.server.pictures import RED, plain

from .calls import OK, channel, classify, ended, stub_of
from .conftest import Serve
from .process import free_port

ROOT = Path(__file__).parents[2]
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to mount file systems"
)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
async def test_nothing_phones_home_and_no_file_outside_is_written(
    models: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    home = tmp_path / "home"
    home.mkdir()
    # From the start: what is looked up while importing would be missed otherwise.
    command = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,openat,creat,mkdir", "-o", trace]
    options = [
        "--models",
        models,
        "--device",
        "cpu",
        "--grpc",
        f"127.0.0.1:{(port := free_port())}",
        "--http",
        f"127.0.0.1:{free_port()}",
    ]
    traced = subprocess.Popen(
        list(map(str, [*command, sys.executable, "-m", "server", *options])),
        cwd=ROOT,
        env={**os.environ, "HOME": str(home)},
        stderr=subprocess.DEVNULL,
    )
    try:
        await _answers(traced, port)
        # The first child is the server: strace itself passes no signal on.
        psutil.Process(traced.pid).children()[0].send_signal(signal.SIGTERM)
        assert traced.wait(60) == 0
    finally:
        traced.kill()
        traced.wait()
    lines = trace.read_text(errors="replace").splitlines()
    sent = [line for line in lines if re.search(r"AF_INET6?\b", line) and "connect(" in line]
    assert sent == []
    looked_up = [line for line in lines if "resolv.conf" in line or "nscd" in line]
    assert looked_up == []
    written = [
        line
        for line in lines
        if re.search(r"O_WRONLY|O_RDWR|O_CREAT|\bcreat\(|mkdir\(", line)
        and " = -1 " not in line
        and not re.search(r'"(/dev/|/proc/|/sys/)|__pycache__', line)
    ]
    assert written == []
    assert list(home.iterdir()) == []


async def test_a_picture_that_memory_has_no_room_for_is_refused_and_the_server_goes_on(
    serve: Serve,
) -> None:
    server = serve("--cores", "1")
    large = pb.ClassifyRequest(
        image=pb.Image(encoded=plain(RED, width=5000, height=4990)), model="colors"
    )
    async with channel(server.address) as one:
        stub = stub_of(one)
        assert (await ended(stub.Classify(classify()))).code is OK
        room = server.seen.memory_info().vms + (40 << 20)
        server.seen.rlimit(psutil.RLIMIT_AS, (room, psutil.RLIM_INFINITY))
        outcome = await ended(stub.Classify(large))
        assert outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert outcome.error and "not enough memory" in str(outcome.error.details())
        assert (await ended(stub.Classify(classify()))).code is OK
        server.seen.rlimit(psutil.RLIMIT_AS, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
        assert (await ended(stub.Classify(large))).code is OK


@needs_root
async def test_a_server_runs_as_nobody_on_a_read_only_root(models: Path, tmp_path: Path) -> None:
    script = (
        "mount --make-rprivate / && mount -o remount,bind,ro / && ! touch /nothing 2>/dev/null "
        # The interpreter of the tests may lie where only its owner looks.
        "&& exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs "
        "--inh-caps=+dac_read_search --ambient-caps=+dac_read_search "
        f'"$0" -m server --models {models} --device cpu --grpc 127.0.0.1:$1'
    )
    for folder in (models, *models.parents):  # pytest makes them for their owner alone
        if folder.name.startswith(("fault-models", "pytest-")):
            folder.chmod(0o755)
    await _serves_in_a_namespace(script, tmp_path)


@needs_root
async def test_a_full_disk_for_the_log_ends_no_call(models: Path, tmp_path: Path) -> None:
    script = (
        f"mount -t tmpfs -o size=64k tmpfs {tmp_path} && "
        f"(dd if=/dev/zero of={tmp_path}/full bs=1k count=100 2>/dev/null || true) && "
        f'exec "$0" -m server --models {models} --device cpu --grpc 127.0.0.1:$1 '
        f"--log-level debug 2>{tmp_path}/log"
    )
    await _serves_in_a_namespace(script, tmp_path)


async def _serves_in_a_namespace(script: str, tmp_path: Path) -> None:
    """Assert that a server which a script starts, in mounts of its own, answers and ends well."""
    port = free_port()
    command = ["unshare", "--mount", "sh", "-c", script, sys.executable, str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        await _answers(process, port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


async def _answers(process: "subprocess.Popen[Any]", port: int) -> None:
    """Wait until a server has loaded its models, and answers."""
    async with channel(f"127.0.0.1:{port}") as one:
        while True:
            call = stub_of(one).Classify(classify(), wait_for_ready=True, timeout=60)
            if (await ended(call)).code is OK:
                return
            assert process.poll() is None, process.stderr and process.stderr.read()
            await asyncio.sleep(0.1)
