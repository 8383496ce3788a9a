"""The server as Triton's, KServe's and ultralytics' clients see it."""

import json
from pathlib import Path

import pytest
from visavis import Client

from tests.faults.process import ServerProcess, free_port
from tests.packages import installed
from tests.samples import Samples
from tests.surroundings import Surroundings

from .conftest import INSIDE, INSIDE_KSERVE, RunInside, run_before_ours

FILES = sorted(path.name for path in INSIDE.glob("test_*.py"))
REAL = "test_real_models.py"


@pytest.mark.parametrize("file", [name for name in FILES if name != REAL])
def test_tritons_clients_work_unchanged(
    file: str, run_inside: RunInside, server: ServerProcess, http_address: str
) -> None:
    run_inside(file, ADDRESS=server.address, HTTP_ADDRESS=http_address)


def test_kserve_s_rest_client_works_unchanged(http_address: str, tmp_path: Path) -> None:
    packages = installed(INSIDE_KSERVE / "requirements.txt", "KServe's client")
    found = Surroundings.under(tmp_path)
    environment = {"HTTP_ADDRESS": http_address}
    run_before_ours(INSIDE_KSERVE / "test_rest.py", packages, found, environment)


def test_ultralytics_finds_what_detect_finds(
    run_inside: RunInside, samples: Samples, tmp_path: Path
) -> None:
    bus = samples.bus
    http = f"127.0.0.1:{free_port()}"
    serving = ServerProcess(samples.models, tmp_path, "--http", http)
    with serving as server, Client(server.address) as client:
        found = client.detect(bus, model="yolov5n").detections
        expected = [
            {
                "box": [d.box.x_min, d.box.y_min, d.box.x_max, d.box.y_max],
                "score": d.score,
                "class_id": d.class_id,
                "label": d.label,
            }
            for d in found
        ]
        (tmp_path / "expected.json").write_text(json.dumps(expected))
        run_inside(
            REAL,
            ADDRESS=server.address,
            HTTP_ADDRESS=http,
            PICTURE=str(bus),
            EXPECTED=str(tmp_path / "expected.json"),
        )
