"""The Helm chart renders what Kubernetes and the operators accept, and refuses wrong values."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

from tests.deploy.npm import validator
from tests.surroundings import VISAVIS, Surroundings

_ROOT = Path(__file__).parents[2]
_CHART = _ROOT / "deploy" / "helm" / "visavis"
_KUBERNETES = ("1.30", "1.37")
_CUSTOM = ("keda.sh/", "monitoring.coreos.com/")
_VALUES = sorted((_CHART / "ci").glob("*.yaml"))
_LEAST: Mapping[str, Any] = {
    "image": {"repository": "registry.example.org/visavis"},
    "models": {"volume": {"emptyDir": {}}},
    "insecure": True,
}


@pytest.fixture(scope="module")
def chart() -> helm.Chart:
    return helm.Chart.load(_CHART)


def _rendered(chart: helm.Chart, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the resources that a chart makes of values."""
    chart.validate_schema(chart.merge_values(dict(values)))
    files = chart.render(dict(values), name="shop", namespace="vision")
    texts = [text for name, text in files.items() if name.endswith(".yaml")]
    return [each for text in texts for each in yaml.safe_load_all(text) if each]


def _of_kind(resources: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (resource,) = (each for each in resources if each["kind"] == kind)
    return resource


def _containers(resources: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the containers of the pod by name, those that run before it too."""
    pod = _of_kind(resources, "Deployment")["spec"]["template"]["spec"]
    return {each["name"]: each for each in (*pod.get("initContainers", ()), *pod["containers"])}


@pytest.mark.parametrize("values", _VALUES, ids=lambda path: path.stem)
def test_all_resources_are_valid(chart: helm.Chart, values: Path) -> None:
    resources = _rendered(chart, yaml.safe_load(values.read_text("utf-8")))
    custom = [each for each in resources if each["apiVersion"].startswith(_CUSTOM)]
    builtin = [each for each in resources if each not in custom]
    assert {"Deployment", "Service", "PodDisruptionBudget"} <= {each["kind"] for each in builtin}
    for resource in builtin:
        # The image volume is of 1.31.
        for version in _KUBERNETES[values.stem == "gpu" :]:
            kubernetes_validate.validate(resource, version, strict=True)
    if custom:
        validator()(custom)


def test_the_validator_refuses_a_wrong_scaled_object() -> None:
    wrong = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "spec": {"triggers": 1}}
    with pytest.raises(AssertionError, match="triggers"):
        validator()([wrong])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image": {"repository": ""}}, "name the image of the server"),
        ({"models": {"volume": {}}}, "give the volume that holds the models"),
        ({"insecure": False}, "name tls.secret and tokens.secret"),
        ({"tls": {"secret": "tls"}}, "insecure: true contradicts"),
        ({"replica": 3}, "replica"),
        ({"replicas": "three"}, "replicas"),
        ({"settings": {"tokens": "/tokens"}}, "settings.tokens: the chart sets it"),
        ({"settings": {"Max-Queue": 1}}, "Max-Queue"),
        ({"autoscaling": {"kind": "keda"}}, "prometheus"),
        ({"autoscaling": {"kind": "cpu", "minReplicas": 5, "maxReplicas": 2}}, "maxReplicas"),
        ({"service": {"clusterIP": "none"}}, "clusterIP"),
        ({"pull": {"source": "ftp://models"}}, "source"),
        ({"pull": {"source": "s3://models", "watchSeconds": 0.5}}, "watchSeconds"),
        ({"nodeSelector": {"gpu": True}}, "nodeSelector/gpu"),
        ({"podAnnotations": {"port": 8000}}, "podAnnotations/port"),
        ({"pull": {"watchSeconds": 60}}, "pull.watchSeconds needs pull.source"),
        ({"pull": {"source": "s3://models", "models": ["../x"]}}, "models"),
        (
            {
                "models": {"volume": {"image": {"reference": "r.example.org/m:1"}}},
                "pull": {"source": "s3://models"},
            },
            "an image is read-only",
        ),
    ],
)
def test_wrong_values_are_refused_by_name(
    chart: helm.Chart, changes: Mapping[str, Any], sentence: str
) -> None:
    with pytest.raises(helm.HelmError, match=sentence):
        _rendered(chart, {**_LEAST, **changes})


@pytest.mark.parametrize("values", _VALUES, ids=lambda path: path.stem)
def test_the_server_understands_its_environment(
    chart: helm.Chart, values: Path, tmp_path: Path
) -> None:
    resources = _rendered(chart, yaml.safe_load(values.read_text("utf-8")))
    container = _containers(resources)["visavis"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    found = Surroundings.under(tmp_path)
    program = (
        "from visavis_server.settings import load_settings\n"
        "settings = load_settings({}, None)\n"
        "assert not settings.notes, settings.notes\n"
        "print(settings.grpc, settings.insecure, settings.grace_s)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=found.elsewhere,
        env=found.environment(variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    insecure = "VISAVIS_INSECURE" in variables
    assert done.stdout.split() == ["[::]:8001", str(insecure), "30.0"]


def test_the_server_gets_numbers_as_they_are_written(chart: helm.Chart) -> None:
    settings = {"max_encoded_bytes": 16777216, "max_queue_wait_s": 0.25, "queue_size": 512}
    container = _containers(_rendered(chart, {**_LEAST, "settings": settings}))["visavis"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    assert {name: variables[f"VISAVIS_{name.upper()}"] for name in settings} == {
        "max_encoded_bytes": "16777216",
        "max_queue_wait_s": "0.25",
        "queue_size": "512",
    }


def test_a_pod_may_drain_before_it_is_killed(chart: helm.Chart) -> None:
    pod = _of_kind(_rendered(chart, {**_LEAST, "graceS": 60}), "Deployment")["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    # The server ends 2 s after its grace period at the latest.
    assert pod["spec"]["terminationGracePeriodSeconds"] >= pause_s + 60 + 2


def test_the_package_holds_the_dashboard(chart: helm.Chart, tmp_path: Path) -> None:
    packed = chart.save(tmp_path)
    again = helm.Chart.load(packed)
    values = {**_LEAST, "monitoring": {"enabled": True, "dashboard": True}}
    board = _of_kind(_rendered(again, values), "ConfigMap")["data"]["visavis.json"]
    ours = _ROOT / "deploy" / "grafana" / "visavis.json"
    assert json.loads(board) == json.loads(ours.read_text("utf-8"))


def test_models_are_pulled_before_the_start_and_while_the_server_runs(
    chart: helm.Chart, tmp_path: Path
) -> None:
    values = yaml.safe_load((_CHART / "ci" / "pull.yaml").read_text("utf-8"))
    resources = _rendered(chart, values)
    containers = _containers(resources)
    pod = _of_kind(resources, "Deployment")["spec"]["template"]["spec"]
    assert [each["name"] for each in pod["initContainers"]] == ["pull"]
    assert [each["name"] for each in pod["containers"]] == ["watch", "visavis"]
    assert "--watch=60" in containers["watch"]["args"]
    assert not any("--watch" in argument for argument in containers["pull"]["args"])
    mounts = {
        name: {m["mountPath"]: m.get("readOnly", False) for m in each["volumeMounts"]}
        for name, each in containers.items()
    }
    assert (mounts["watch"]["/models"], mounts["visavis"]["/models"]) == (False, True)
    variables = {each["name"]: each["value"] for each in containers["visavis"]["env"]}
    assert float(variables["VISAVIS_WATCH_INTERVAL_S"]) == 5
    assert not any("AWS" in name for name in variables)
    assert _of_kind(resources, "NetworkPolicy")["spec"]["egress"] == [{}]
    # The command takes these arguments: a folder stands for the bucket, which is not there.
    found = Surroundings.under(tmp_path)
    for name in ("pull", "watch"):
        given = ["pull", "no-such-folder", *containers[name]["args"][2:]]
        ours = [a for a in given if not a.startswith("--verify-key")]
        done = subprocess.run(
            [VISAVIS, *ours],
            cwd=found.elsewhere,
            env=found.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, "is not a folder" in done.stderr) == (1, True), done.stderr


def test_without_a_source_nothing_pulls(chart: helm.Chart) -> None:
    resources = _rendered(chart, _LEAST)
    assert set(_containers(resources)) == {"visavis"}
    assert _of_kind(resources, "NetworkPolicy")["spec"]["egress"] == []


def test_models_that_are_pulled_once_are_not_watched(chart: helm.Chart) -> None:
    values = {**_LEAST, "models": {}, "pull": {"source": "oci://r.example.org/models:3"}}
    resources = _rendered(chart, values)
    assert set(_containers(resources)) == {"pull", "visavis"}
    pod = _of_kind(resources, "Deployment")["spec"]["template"]["spec"]
    assert {"name": "models", "emptyDir": {}} in pod["volumes"]
    variables = {e["name"]: e["value"] for e in _containers(resources)["visavis"]["env"]}
    assert float(variables["VISAVIS_WATCH_INTERVAL_S"]) == 0
