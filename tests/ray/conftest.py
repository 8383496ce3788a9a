"""One cluster for all tests of Ray Serve."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.faults.conftest import slow
from tests.faults.process import ServerProcess, free_port
from tests.server import graphs
from tests.surroundings import Surroundings

if find_spec("ray") is None:
    assert os.environ.get("CI") != "true", "CI installs the extra ray"
    pytest.skip("needs the extra ray: pip install 'visavis-server[ray]'", allow_module_level=True)

# Finds a dead node within seconds, and starts no process before it is needed. Otherwise as
# docs/guides/ray.md says.
_RAY = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "4",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
}


_RETRYING = {
    "name": [{}],
    "retryPolicy": {
        "maxAttempts": 3,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    },
}


class RayCluster:
    """The process of `tests.ray.cluster`; address: of the proxies of all its nodes."""

    def __init__(self, models: Path, folder: Path, *more: str) -> None:
        # Ray's sockets lie in it, and the paths of sockets are short.
        self._temporary = tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)
        self.address = f"127.0.0.1:{free_port()}"
        surroundings = Surroundings.under(folder)
        self.log_file = folder / "cluster.log"
        port = self.address.rpartition(":")[2]
        environment = {**surroundings.environment_of_tests(), **_RAY}
        environment["RAY_TMPDIR"] = self._temporary.name
        ports = ("--grpc-port", port, "--http-port", str(free_port()))
        options = ("--models", models, *ports, *more)
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.ray.cluster", *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=surroundings.elsewhere,
                env=environment,
                start_new_session=True,
            )
        assert self._answer() == "ready"

    def ask(self, command: str, *arguments: str) -> Any:
        """Return the answer to a command."""
        assert self.process.stdin
        print(command, *arguments, file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith(("{", "[", '"', "null")) or line.strip().isdigit():
                return json.loads(line)
        raise AssertionError(self.log_file.read_text("utf-8", "replace")[-4000:])

    def stop(self) -> None:
        """End all processes of the cluster."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        self._temporary.cleanup()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository of small models, under the names of the clients' scenario."""
    folder = tmp_path_factory.mktemp("ray") / "models"
    explained = graphs.explained_document(name="resnet50")
    model, _ = graphs.export(graphs.explained_classifier(), explained)
    graphs.put(folder, "resnet50", 1, model)
    # A tenth of a second for each picture.
    graphs.put(folder, "resnet18", 1, slow())
    model, _ = graphs.export(graphs.constant(graphs.ROWS), graphs.detector_document(name="yolov5n"))
    graphs.put(folder, "yolov5n", 1, model)
    return folder


@pytest.fixture(scope="module")
def cluster(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    running = RayCluster(models, tmp_path_factory.mktemp("cluster"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def plain(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A plain server of the same models."""
    with ServerProcess(models, tmp_path_factory.mktemp("plain")) as server:
        yield server


@pytest.fixture(scope="module")
def channels(cluster: RayCluster, plain: ServerProcess) -> Iterator[list[grpc.Channel]]:
    """Return channels to the cluster and to the plain server."""
    # Ray stops the proxies of nodes without replicas, half a minute after it has started them.
    retrying = (("grpc.service_config", json.dumps({"methodConfig": [_RETRYING]})),)
    addresses = (cluster.address, plain.address)
    channels = [grpc.insecure_channel(address, retrying) for address in addresses]
    yield channels
    for channel in channels:
        channel.close()
