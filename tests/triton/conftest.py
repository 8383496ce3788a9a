"""Environments with Triton's and KServe's clients, in which tests run, and a server for them."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.process import ServerProcess
from tests.packages import installed
from tests.server import graphs
from tests.surroundings import Surroundings
from visavis_server.api.inference import grpc_service_pb2

FOLDER = Path(__file__).parent
INSIDE = FOLDER / "with_tritonclient"
INSIDE_KSERVE = FOLDER / "with_kserve"
REQUIREMENTS = FOLDER / "requirements.txt"
RunInside = Callable[..., None]

# They run in a process of their own: see `run_inside`.
collect_ignore = [INSIDE.name, INSIDE_KSERVE.name]


@pytest.fixture(scope="session")
def packages() -> Path:
    """Return a folder with Triton's clients and the older protobuf that they are bound to."""
    return installed(REQUIREMENTS, "Triton's clients")


@pytest.fixture(scope="session")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with the descriptor of our contract.

    One process can't hold two contracts of the same name: inside, this one is only data.
    """
    file = tmp_path_factory.mktemp("contract") / "grpc_service.binpb"
    file.write_bytes(grpc_service_pb2.DESCRIPTOR.serialized_pb)
    return file


@pytest.fixture(scope="session")
def run_inside(
    packages: Path, contract: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunInside:
    """Return a function that runs a file of tests where Triton's packages go before ours."""
    settings = tmp_path_factory.mktemp("ultralytics")

    found = Surroundings.under(tmp_path_factory.mktemp("inside"))

    def run(file: str, **environment: str) -> None:
        run_before_ours(
            INSIDE / file,
            packages,
            found,
            {
                "CONTRACT": str(contract),
                "YOLO_AUTOINSTALL": "false",
                "YOLO_CONFIG_DIR": str(settings),
                "YOLO_OFFLINE": "true",
                **environment,
            },
        )

    return run


def run_before_ours(
    path: Path, packages: Path, found: Surroundings, environment: dict[str, str]
) -> None:
    """Run a file of tests in a process where some packages go before ours."""
    pytest_there = (sys.executable, "-m", "pytest", "--confcutdir", str(path.parent), "--tb=short")
    done = subprocess.run(
        (*pytest_there, str(path)),
        capture_output=True,
        text=True,
        check=False,
        cwd=found.elsewhere,
        env=found.environment({"PYTHONPATH": str(packages), **environment}),
    )
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Serve colors, which says how red, green and blue a picture is, in two versions; and boxes."""
    folder = tmp_path_factory.mktemp("triton")
    for version, gain in ((1, 10.0), (2, 20.0)):
        colors, _ = graphs.export(graphs.classifier(gain), graphs.classifier_document())
        graphs.put(folder / "models", "colors", version, colors)
    boxes, _ = graphs.export(graphs.constant(graphs.ROWS), graphs.detector_document())
    graphs.put(folder / "models", "boxes", 1, boxes)
    with ServerProcess(folder / "models", folder, "--http", "127.0.0.1:0") as server:
        yield server


@pytest.fixture(scope="session")
def http_address(server: ServerProcess) -> str:
    """Return the server's address for HTTP."""
    entries = map(json.loads, server.log.splitlines())
    address: str = next(e["http"] for e in entries if e["event"] == "ready")
    return address
