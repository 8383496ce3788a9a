"""The OpenAPI document and the REST paths for transcoders, held against the contract."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from visavis.v1 import vision_pb2

from tests.faults.process import ServerProcess, free_port, until
from tests.server import graphs
from tests.server.pictures import RED, plain
from tests.surroundings import Surroundings

ROOT = Path(__file__).parents[1]
DOCUMENT: dict[str, Any] = json.loads((ROOT / "clients/web/openapi.json").read_text("utf-8"))
RULES = yaml.safe_load((ROOT / "protos/visavis/v1/vision.http.yaml").read_text("utf-8"))
ANNOTATED = ROOT / "protos/visavis/v1/vision.http.binpb"
ENVOY = ROOT / "deploy/proxies/envoy-json.yaml"
SERVICE = vision_pb2.DESCRIPTOR.services_by_name["VisionService"]
RPC = f"/{SERVICE.full_name}/"
PICTURE = {"encoded": b64encode(plain(RED)).decode()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("openapi")
    colors, _ = graphs.export(graphs.classifier(), graphs.classifier_document())
    graphs.put(folder / "models", "colors", 1, colors)
    boxes, _ = graphs.export(graphs.constant(graphs.ROWS), graphs.detector_document())
    graphs.put(folder / "models", "boxes", 1, boxes)
    with ServerProcess(folder / "models", folder, "--http", "127.0.0.1:0") as server:
        yield server


@pytest.fixture(scope="module")
def url(server: ServerProcess) -> str:
    entries = map(json.loads, server.log.splitlines())
    return f"http://{next(e['http'] for e in entries if e['event'] == 'ready')}"


def asked(url: str, body: Any = None) -> Any:
    """Return what a path answers: to a POST if there is a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return json.loads(error.read())


def schema(name: str) -> Draft202012Validator:
    """Return a validator that rejects what a component's schema does not have."""
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", **DOCUMENT})


def test_the_document_is_valid_and_has_every_method() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    assert set(DOCUMENT["paths"]) == {RPC + method.name for method in SERVICE.methods}
    schemas = DOCUMENT["components"]["schemas"]
    messages = vision_pb2.DESCRIPTOR.message_types_by_name
    assert set(messages) | set(vision_pb2.DESCRIPTOR.enum_types_by_name) | {"Error"} == set(schemas)
    for name, message in messages.items():
        assert set(schemas[name]["properties"]) == {field.json_name for field in message.fields}


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Classify", {"image": PICTURE, "model": "colors", "topK": 2, "annotate": True}),
        ("Detect", {"image": PICTURE, "model": "boxes", "scoreThreshold": 0.1}),
        ("Compare", {"image": PICTURE, "tasks": ["TASK_CLASSIFICATION"]}),
        ("ListModels", {}),
        ("GetModel", {"model": "colors"}),
    ],
)
def test_requests_and_responses_are_as_the_document_has_them(
    url: str, method: str, request_: dict[str, Any]
) -> None:
    operation = DOCUMENT["paths"][RPC + method]["post"]
    (body, answer) = (
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"],
        operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"],
    )
    schema(body.rpartition("/")[2]).validate(request_)
    schema(answer.rpartition("/")[2]).validate(asked(url + RPC + method, request_))
    schema("Error").validate(asked(url + RPC + method, {"nope": 1}))
    assert not schema(body.rpartition("/")[2]).is_valid({"nope": 1})


def test_the_listener_serves_the_document(url: str) -> None:
    assert asked(f"{url}/openapi.json") == DOCUMENT


def test_every_method_has_a_path_for_transcoders() -> None:
    rules = {rule["selector"]: rule for rule in RULES["http"]["rules"]}
    assert set(rules) == {method.full_name for method in SERVICE.methods}
    for method in SERVICE.methods:
        rule = rules[method.full_name]
        path = rule.get("get") or rule["post"]
        assert ("body" in rule) is ("post" in rule)
        for field in re.findall(r"{(\w+)}", path):
            assert field in method.input_type.fields_by_name
    files = descriptor_pb2.FileDescriptorSet.FromString(ANNOTATED.read_bytes()).file
    (service,) = files[-1].service
    for method in service.method:
        rule = rules[f"{SERVICE.full_name}.{method.name}"]
        annotation = method.options.Extensions[annotations_pb2.http]
        kind = annotation.WhichOneof("pattern")
        assert (getattr(annotation, kind), annotation.body) == (rule[kind], rule.get("body", ""))
    # But for the annotations, it is the contract.
    ours = descriptor_pb2.FileDescriptorProto.FromString(files[-1].SerializeToString())
    ours.dependency.remove("google/api/annotations.proto")
    for method in ours.service[0].method:
        method.ClearField("options")
    for message in ours.message_type:
        for part in (message, *message.nested_type):
            for field in part.field:
                field.ClearField("json_name")  # which protoc leaves out if it follows the rule
    contract = descriptor_pb2.FileDescriptorProto.FromString(vision_pb2.DESCRIPTOR.serialized_pb)
    assert ours == contract


def test_envoy_transcodes_rest_with_the_shipped_configuration(
    server: ServerProcess, tmp_path: Path
) -> None:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    if (envoy := shutil.which("envoy", path=path)) is None:
        assert os.environ.get("CI") != "true", "CI has Envoy"
        pytest.skip("needs envoy")
    port = free_port()
    text = ENVOY.read_text("utf-8").replace("8001", str(server.port)).replace("8100", str(port))
    text = text.replace("/etc/envoy/vision.http.binpb", str(ANNOTATED))
    (tmp_path / "envoy.yaml").write_text(text)
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        [envoy, "-c", "envoy.yaml", "--concurrency", "1", "--disable-hot-restart"],
        cwd=tmp_path,
        env=Surroundings.under(tmp_path).environment(),
        stdout=log,
        stderr=log,
    )
    try:
        until(lambda: answers(port), "Envoy does not answer")
        rest = f"http://127.0.0.1:{port}/v1"
        models = asked(f"{rest}/models")["models"]
        assert [model["name"] for model in models] == ["boxes", "colors"]
        assert asked(f"{rest}/models/colors")["model"]["labelSet"]["labels"] == [*graphs.COLORS]
        found = asked(f"{rest}/models/boxes:detect", {"image": PICTURE})
        assert [each["label"] for each in found["detections"]] == ["cat", "dog"]
        best = asked(f"{rest}/models/colors:classify", {"image": PICTURE, "topK": 1})
        assert [each["label"] for each in best["classifications"]] == ["red"]
        compared = asked(f"{rest}/images:compare", {"image": PICTURE})
        assert len(compared["comparisons"]) == 2
        *answers_, summary = asked(f"{rest}/images:compareStream", {"image": PICTURE})
        assert [*summary] == ["summary"] and len(answers_) == 2
        assert "nobody" in asked(f"{rest}/models/nobody")["message"]
    finally:
        process.terminate()
        process.wait()
        log.close()


def answers(port: int) -> bool:
    try:
        return "models" in asked(f"http://127.0.0.1:{port}/v1/models")
    except OSError:
        return False
