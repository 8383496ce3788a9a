"""The shipped configuration, by Ray Serve's own schema, and the arguments of the application."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from ray._common.utils import import_attr
from ray.serve.schema import ServeDeploySchema

from tests.surroundings import Surroundings
from visavis_server.errors import StartupError
from visavis_server.ray.application import application
from visavis_server.ray.arguments import Arguments

from .cluster import CONFIGURATION


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text("utf-8"))
    return found


def _keys(part: Any, above: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Return the paths of all keys."""
    if isinstance(part, list):
        return {path for each in part for path in _keys(each, above)}
    if not isinstance(part, dict):
        return {above}
    return {path for key, value in part.items() for path in _keys(value, (*above, key))}


def test_ray_serve_accepts_the_shipped_configuration(shipped: dict[str, Any]) -> None:
    read = ServeDeploySchema.model_validate(shipped)
    assert read.http_options.host == "127.0.0.1"
    for path in (*read.grpc_options.grpc_servicer_functions, read.applications[0].import_path):
        assert callable(import_attr(path))
    # It ignores what it does not know.
    assert _keys(shipped) == _keys(read.model_dump(exclude_unset=True))
    misspelt = shipped | {"grpc_options": {"prot": 8001}}
    ignored = ServeDeploySchema.model_validate(misspelt).model_dump(exclude_unset=True)
    assert _keys(misspelt) - _keys(ignored) == {("grpc_options", "prot")}


def test_its_comments_are_valid_settings_of_deployments(shipped: dict[str, Any]) -> None:
    lines = CONFIGURATION.read_text("utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if "# - name: resnet50" in line)
    commented = yaml.safe_load("\n".join(line.replace("# ", "", 1) for line in lines[start:]))
    assert [each["name"] for each in commented] == ["resnet50", "yolov5n"]
    (only,) = shipped["applications"]
    whole = shipped | {"applications": [only | {"deployments": commented}]}
    read = ServeDeploySchema.model_validate(whole)
    assert _keys(whole) == _keys(read.model_dump(exclude_unset=True))


def test_the_shipped_arguments_are_valid(shipped: dict[str, Any]) -> None:
    arguments = Arguments(**shipped["applications"][0]["args"])
    assert arguments.read_settings().models == Path("/srv/models")


def test_each_model_is_a_deployment(models: Path) -> None:
    built = application(Arguments(models=models))
    assert built._bound_deployment.name == "ingress"
    handles, versions, settings = built._bound_deployment.init_args
    names = {name: bound._bound_deployment.name for name, bound in handles.items()}
    assert names == {name: name for name in ("resnet18", "resnet50", "yolov5n")}
    assert versions == {name: [1] for name in names}
    assert settings["models"] == models


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"grpc": "0.0.0.0:1"}, "grpc has no effect on Ray Serve; it has grpc_options.port"),
        ({"workers": 4}, "num_replicas"),
        ({"cores": 4}, "num_cpus"),
    ],
)
def test_a_setting_without_effect_is_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Arguments(models=Path("/srv/models"), settings=settings)


def test_a_wrong_setting_is_named() -> None:
    arguments = Arguments(models=Path("/srv/models"), settings={"queue_sise": 4})
    with pytest.raises(StartupError, match="queue_sise; did you mean queue_size"):
        arguments.read_settings()
    with pytest.raises(StartupError, match="absolute path"):
        Arguments(models=Path("models")).read_settings()
    with pytest.raises(ValidationError, match="modles"):
        Arguments(models=Path("/srv/models"), modles=1)  # type: ignore[call-arg]


def test_a_repository_that_cannot_be_served_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=str(tmp_path)):
        application(Arguments(models=tmp_path))


def test_a_proxy_imports_neither_ray_nor_the_models_libraries(tmp_path: Path) -> None:
    """And usage statistics are off before anything of Ray is imported."""
    program = (
        "import sys, os, visavis_server.ray.gate;"
        "print(sorted({'ray', 'numpy', 'onnxruntime', 'cv2'} & set(sys.modules)),"
        "os.environ['RAY_USAGE_STATS_ENABLED'])"
    )
    surroundings = Surroundings.under(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=surroundings.elsewhere,
        env=surroundings.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "[] 0", done.stderr
