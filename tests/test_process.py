"""The server as people run it: a process of its own, started and stopped by signals."""

import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from visavis import Client

from tests.faults.process import free_port
from tests.samples import Samples
from tests.surroundings import VISAVIS, Surroundings


@pytest.fixture
def process(samples: Samples, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    repository = tmp_path / "models"
    repository.mkdir()
    for name in ("resnet50", "yolov5n"):
        (repository / name).symlink_to(samples.models / name)
    address = f"127.0.0.1:{free_port()}"
    command = [VISAVIS, "serve", "--models", str(repository), "--grpc", address]
    found = Surroundings.under(tmp_path)
    started = subprocess.Popen(
        command, stderr=subprocess.PIPE, cwd=found.elsewhere, env=found.environment()
    )
    yield started, address
    started.kill()
    started.communicate()


def test_memory_stays_below_600_mib_after_1000_calls(
    process: tuple[subprocess.Popen[bytes], str], images: Path
) -> None:
    # Of the published weights: `images` needs real data.
    server, address = process
    pictures = sorted((images / "coco" / "images" / "train2017").glob("*.jpg"))
    with Client(address) as client, ThreadPoolExecutor(8) as threads:
        client.wait_until_ready(30)

        def call(index: int) -> None:
            picture = pictures[index % len(pictures)]
            if index % 2:
                client.classify(picture, model="resnet50")
            else:
                client.detect(picture, model="yolov5n")

        list(threads.map(call, range(1000)))
    mib = psutil.Process(server.pid).memory_info().rss / 2**20
    assert mib < 600


def test_sigterm_ends_it_with_exit_code_0(process: tuple[subprocess.Popen[bytes], str]) -> None:
    server, address = process
    with Client(address) as client:
        client.wait_until_ready(30)
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0


def test_sigterm_while_loading_ends_it_too(
    process: tuple[subprocess.Popen[bytes], str],
) -> None:
    server, _ = process
    assert server.stderr is not None
    assert any(b"starting" in line for line in server.stderr)
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0


def test_a_second_server_on_the_port_says_so_and_fails(
    process: tuple[subprocess.Popen[bytes], str], samples: Samples, tmp_path: Path
) -> None:
    _, address = process
    with Client(address) as client:
        client.wait_until_ready(30)
        second = _run(tmp_path, "--models", str(samples.models), "--grpc", address)
    assert second.returncode == 1
    assert address in second.stderr


def test_an_empty_repository_ends_with_an_error_that_names_the_export(tmp_path: Path) -> None:
    (empty := tmp_path / "models").mkdir()
    failed = _run(tmp_path, "--models", str(empty))
    assert failed.returncode == 1
    assert "visavis export" in failed.stderr


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has an NVIDIA GPU")
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_without_a_gpu_cuda_does_not_start_and_says_what_is_missing(
    device: str, samples: Samples, tmp_path: Path
) -> None:
    failed = _run(tmp_path, "--models", str(samples.models), "--device", device)
    assert failed.returncode == 1
    assert f"--device {device}" in failed.stderr
    assert "driver" in failed.stderr


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    found = Surroundings.under(folder)
    return subprocess.run(
        [VISAVIS, "serve", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=found.elsewhere,
        env=found.environment({"COLUMNS": "80"}),
    )
