"""What the server does to the machine that it runs on: as little as possible."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from visavis.v1 import vision_pb2 as pb

from tests.server.pictures import RED, plain
from tests.surroundings import VISAVIS, Surroundings

from .calls import OK, channel, classify, ended, stub_of
from .conftest import Serve
from .process import ServerProcess, free_port, until
from .traced import Traced, ran

needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to mount file systems"
)


async def test_a_server_phones_nobody_and_writes_no_file(models: Path, tmp_path: Path) -> None:
    found, trace = Surroundings.under(tmp_path), tmp_path / "trace"
    address, http = f"127.0.0.1:{(port := free_port())}", f"127.0.0.1:{free_port()}"
    options = ["--models", models, "--device", "cpu", "--grpc", address, "--http", http]
    # From the start: what is looked up while importing would be missed otherwise.
    traced = subprocess.Popen(
        Traced.command([VISAVIS, "serve", *options], trace),
        cwd=found.elsewhere,
        env=found.environment(),
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
    seen = Traced.read(trace, found)
    assert seen.calls
    assert seen.connected == []
    assert (seen.sent, seen.looked_up, seen.written()) == ([], [], [])
    assert found.files == []


@pytest.mark.parametrize(
    ("command", "writes"),
    [
        ("doctor", []),
        ("token alice --file tokens", ["tokens"]),
        ("tune colors --models MODELS --device cpu --seconds 0.1 --rounds 1", ["visavis.toml"]),
        (
            "bench PICTURE --models MODELS --model colors --method classify --callers 1 "
            "--seconds 0.1 --warm-up 0 --rounds 1 --limit",
            [],
        ),
    ],
)
def test_a_command_phones_nobody_and_writes_what_it_is_told_to(
    command: str, writes: list[str], models: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "red.png"
    picture.write_bytes(plain(RED, 64, 64))
    command = command.replace("MODELS", str(models)).replace("PICTURE", str(picture))
    seen, found = _seen([VISAVIS, *command.split()], tmp_path)
    assert (seen.sent, seen.looked_up) == ([], [])
    # Files that are gone when they are closed are made below it.
    assert seen.written(found.elsewhere, Path(tempfile.gettempdir())) == []
    assert found.files == [found.elsewhere / name for name in writes]


def test_a_slim_system_is_told_which_opencv_it_can_load(models: Path, tmp_path: Path) -> None:
    found = Surroundings.under(tmp_path)
    (tmp_path / "lacking" / "cv2").mkdir(parents=True)
    loader = "libGL.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "lacking" / "cv2" / "__init__.py").write_text(f"raise ImportError({loader!r})")
    done = subprocess.run(
        [VISAVIS, "serve", "--models", models, "--grpc", f"127.0.0.1:{free_port()}"],
        cwd=found.elsewhere,
        env=found.environment({"PYTHONPATH": str(tmp_path / "lacking")}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert loader in line
    assert "pip install opencv-python-headless" in line


def test_commands_import_nothing_from_the_working_folder(models: Path, tmp_path: Path) -> None:
    found = Surroundings.under(tmp_path)
    found.shadow_modules()
    picture = tmp_path / "red.png"
    picture.write_bytes(plain(RED, 64, 64))
    for command in (
        f"bench {picture} --models {models} --model colors --method classify --callers 1 "
        "--seconds 0.1 --warm-up 0 --rounds 1 --limit",
        f"tune colors --models {models} --device cpu --seconds 0.1 --rounds 1",
        "export yolov5n --weights random --size 64 --out out",
    ):
        done = subprocess.run(
            [VISAVIS, *command.split()],
            cwd=found.elsewhere,
            env=found.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_server_imports_nothing_from_the_working_folder(models: Path, tmp_path: Path) -> None:
    """Neither while it starts, nor for the trial of a model that comes later."""
    folder = tmp_path / "models"
    shutil.copytree(models / "colors", folder / "colors")
    options = ("--watch-interval-s", "0.1", "--http", f"127.0.0.1:{free_port()}")
    server = ServerProcess(folder, tmp_path / "server", *options)
    server.process.kill()
    server.wait()
    server.surroundings.shadow_modules()
    server.start()
    with server:
        shutil.copytree(models / "colors", folder / "later")
        until(lambda: '"model": "later/1"' in server.log, "the later model is not loaded")
        assert '"level": "error"' not in server.log


def test_a_client_reaches_the_server_and_nothing_else(serve: Serve, tmp_path: Path) -> None:
    picture = tmp_path / "red.png"
    picture.write_bytes(plain(RED, 64, 64))
    server = serve()
    for command in ("classify --model colors", "compare --models colors,fragile"):
        arguments = [VISAVIS, *command.split(), picture, "--server", server.address]
        seen, found = _seen(arguments, tmp_path)
        assert (seen.sent, seen.looked_up, seen.written()) == ([], [], [])
        assert found.files == []


def test_a_trial_phones_nobody_and_writes_no_file(models: Path, tmp_path: Path) -> None:
    file = models / "colors" / "1" / "model.onnx"
    order = tmp_path / "order.json"
    order.write_text(json.dumps([["colors", 1, str(file)]]))
    command = f"exec {sys.executable} -P -m visavis_server.models.trial_process < {order}"
    seen, found = _seen(["/bin/sh", "-c", command], tmp_path)
    assert (seen.sent, seen.looked_up, seen.written()) == ([], [], [])
    assert found.files == []


def test_an_export_phones_nobody_and_writes_the_model(tmp_path: Path) -> None:
    # The one that also imports ultralytics.
    command = "export yolov5nu --weights random --size 64 --out out"
    seen, found = _seen([VISAVIS, *command.split()], tmp_path)
    assert seen.sent == []
    # PyTorch asks for the user's name, and glibc asks nscd before it reads /etc/passwd.
    assert [call for call in seen.looked_up if "/nscd/" not in call] == []
    assert seen.written(found.elsewhere / "out", Path(tempfile.gettempdir())) == []
    assert found.files == [found.elsewhere / "out" / "yolov5nu" / "1" / "model.onnx"]


def _seen(arguments: Sequence[object], tmp_path: Path) -> tuple[Traced, Surroundings]:
    """Run a command under strace; returns what was seen, and where it ran."""
    found, trace = Surroundings.under(tmp_path), tmp_path / "trace"
    done = ran(arguments, found, trace)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = Traced.read(trace, found)
    assert seen.calls
    return seen, found


async def test_a_picture_that_memory_has_no_room_for_is_refused_and_the_server_goes_on(
    serve: Serve,
) -> None:
    server = serve("--cores", "1")
    large = pb.ClassifyRequest(
        image=pb.Image(encoded=plain(RED, width=3600, height=3500)), model="colors"
    )
    async with channel(server.address) as one:
        stub = stub_of(one)
        assert (await ended(stub.Classify(classify()))).code is OK
        room = server.seen.memory_info().vms + (20 << 20)
        server.seen.rlimit(psutil.RLIMIT_AS, (room, psutil.RLIM_INFINITY))
        outcome = await ended(stub.Classify(large))
        assert outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert outcome.error and "out of memory" in str(outcome.error.details())
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
        f'"$0" serve --models {models} --device cpu --grpc 127.0.0.1:$1'
    )
    for folder in (models, *models.parents):  # pytest makes them for their owner alone
        if folder.name.startswith(("fault-models", "pytest-")):
            folder.chmod(0o755)
    await _serves_in_a_namespace(script, tmp_path)


@needs_root
def test_a_user_that_the_system_does_not_know_needs_no_home(models: Path, tmp_path: Path) -> None:
    # The interpreter of the tests may lie where only its owner looks.
    stranger = (
        "setpriv --reuid 12345 --regid 12345 --clear-groups --inh-caps=+dac_read_search "
        "--ambient-caps=+dac_read_search"
    )
    found = Surroundings.under(tmp_path)
    environment = found.environment()
    del environment["HOME"]
    # Not below pytest's folder, which is for its owner alone.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        shutil.copytree(models / "colors", Path(folder, "colors"))
        command = f"tune --models {folder} --device cpu --seconds 0.1 --rounds 1 --dry-run"
        done = subprocess.run(
            [*stranger.split(), VISAVIS, *command.split()],
            cwd=found.elsewhere,
            env=environment,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert "without tuning" in done.stdout


@needs_root
async def test_a_full_disk_for_the_log_ends_no_call(models: Path, tmp_path: Path) -> None:
    script = (
        f"mount -t tmpfs -o size=64k tmpfs {tmp_path} && "
        f"(dd if=/dev/zero of={tmp_path}/full bs=1k count=100 2>/dev/null || true) && "
        f'exec "$0" serve --models {models} --device cpu --grpc 127.0.0.1:$1 '
        f"--log-level debug 2>{tmp_path}/log"
    )
    await _serves_in_a_namespace(script, tmp_path)


async def _serves_in_a_namespace(script: str, tmp_path: Path) -> None:
    """Assert that a server which a script starts, in mounts of its own, answers and ends well."""
    port = free_port()
    command = ["unshare", "--mount", "sh", "-c", script, VISAVIS, str(port)]
    found = Surroundings.under(tmp_path.with_name(f"{tmp_path.name}-user"))
    process = subprocess.Popen(
        command, cwd=found.elsewhere, env=found.environment(), stderr=subprocess.PIPE, text=True
    )
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
