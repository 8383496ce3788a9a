"""The runtime and the example for KServe are what KServe's own models take."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.packages import installed
from tests.surroundings import Surroundings

_FOLDER = Path(__file__).parents[2] / "deploy" / "kserve"
_REQUIREMENTS = Path(__file__).with_name("kserve-requirements.txt")

# Runs with KServe's package alone, whose __init__ would import its server.
_CHECK = """
import json, sys, types
package = types.ModuleType("kserve")
package.__path__ = [sys.argv[1] + "/kserve"]
sys.modules["kserve"] = package
import kserve.models as models

def check(kind, value, path):
    known = {wire: (name, kind.openapi_types[name]) for name, wire in kind.attribute_map.items()}
    assert set(value) <= set(known), f"{path}: unknown {set(value) - set(known)}"
    # Raises ValueError if a required field is missing.
    kind(**{known[wire][0]: each for wire, each in value.items()})
    for wire, each in value.items():
        type_name = known[wire][1]
        inner = getattr(models, type_name.removeprefix("list[").removesuffix("]"), None)
        for item in each if type_name.startswith("list[") else [each]:
            if inner is not None and isinstance(item, dict):
                check(inner, item, f"{path}.{wire}")

resource = json.load(sys.stdin)
version = resource["apiVersion"].rpartition("/")[2]
check(getattr(models, version[0].upper() + version[1:] + resource["kind"]), resource, "")
"""


@pytest.fixture(scope="module")
def kserve() -> Path:
    return installed(_REQUIREMENTS, "KServe's models")


def _check(kserve: Path, resource: object, folder: Path) -> "subprocess.CompletedProcess[str]":
    found = Surroundings.under(folder)
    return subprocess.run(
        [sys.executable, "-c", _CHECK, kserve],
        input=json.dumps(resource),
        cwd=found.elsewhere,
        env=found.environment({"PYTHONPATH": str(kserve)}),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["servingruntime", "inferenceservice"])
def test_kserve_knows_every_field(name: str, kserve: Path, tmp_path: Path) -> None:
    resource = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text("utf-8"))
    done = _check(kserve, resource, tmp_path)
    assert done.returncode == 0, done.stderr
    resource["spec"]["protocolVersion"] = "grpc-v2"  # of the predictor, or a list
    assert "protocolVersion" in _check(kserve, resource, tmp_path).stderr


def test_the_example_names_the_runtime() -> None:
    runtime, service = (
        yaml.safe_load((_FOLDER / f"{name}.yaml").read_text("utf-8"))
        for name in ("servingruntime", "inferenceservice")
    )
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    formats = runtime["spec"]["supportedModelFormats"]
    assert model["modelFormat"]["name"] in [each["name"] for each in formats]
    (container,) = runtime["spec"]["containers"]
    assert [port["name"] for port in container["ports"]] == ["h2c"]
