"""The npm package, installed into an empty project: both module systems, types, errors, TLS."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from visavis.v1 import vision_pb2 as pb

from tests import npm
from tests.surroundings import Surroundings

from . import canned
from .fakes import FakeServer
from .library_servers import LibraryServers, library_servers


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibraryServers]:
    with library_servers(tmp_path_factory.mktemp("libraries")) as servers:
        yield servers


@pytest.fixture(scope="module", params=["esm.mjs", "commonjs.cjs"])
def seen(
    request: pytest.FixtureRequest, npm_project: Path, tmp_path_factory: Any
) -> dict[str, Any]:
    """What a program saw that does everything once."""
    with (
        library_servers(tmp_path_factory.mktemp("libraries")) as servers,
        Surroundings.temporary() as found,
    ):
        done = subprocess.run(
            ["node", npm_project / request.param, *servers.arguments],
            cwd=found.elsewhere,
            env=found.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return {
            **json.loads(done.stdout),
            "requests": servers.fake.requests,
            "metadata": servers.fake.metadata,
        }


def plain(message: Any) -> Any:
    """Return a message as the library must show it: protobuf's JSON, with numbers as numbers."""
    return rounded(MessageToDict(message, always_print_fields_with_no_presence=True))


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    if isinstance(value, str) and value.isdigit():  # 64-bit integers are strings in JSON.
        return float(value)
    return round(float(value), 3) if isinstance(value, int | float) else value


def test_results_have_every_field_of_the_contract(seen: dict[str, Any]) -> None:
    detected = pb.DetectResponse()
    detected.CopyFrom(canned.DETECTED)
    detected.heat_map.CopyFrom(canned.heat_map(pb.Explain(label="bus")))
    assert rounded(seen["detected"]) == plain(detected)
    assert rounded(seen["explained"]) == plain(canned.heat_map(pb.Explain()))
    assert seen["drawn"] == seen["difference"] == canned.PICTURE.encoded.hex()
    assert seen["labels"] == [found.label for found in canned.BUS_LABELS]
    card = pb.Model()
    card.CopyFrom(next(card for card in canned.CARDS if card.name == "yolov5n"))
    card.receipt.CopyFrom(canned.RECEIPT)
    assert rounded(seen["card"]) == {**plain(card), "tasks": ["detection"]}
    assert [name for name, _, _ in seen["models"]] == [card.name for card in canned.CARDS]
    assert seen["models"][2][1:] == [["detection"], 1_872_157]


def test_comparison_has_every_answer_with_its_agreement(seen: dict[str, Any]) -> None:
    compared = canned.comparison()
    answers = [answer for of in compared.comparisons for answer in of.answers]
    assert seen["streamed"] == [answer.served_by.model for answer in answers]
    tasks = seen["compared"]["comparisons"]
    assert [of["task"] for of in tasks] == ["classification", "detection"]
    assert [of["baseline"] for of in tasks] == ["resnet50", "yolov5n"]
    shown = [answer for of in tasks for answer in of["answers"]]
    expected = plain(answers[1])
    assert rounded(shown[1]["agreement"]) == {
        "kind": "classification",
        **expected["classificationAgreement"],
    }
    pairs = plain(answers[4])["detectionAgreement"]
    assert rounded(shown[4]["agreement"]) == {"kind": "detection", **pairs}
    assert shown[5]["status"] == {"code": "INTERNAL", "message": "internal error"}
    assert "agreement" not in shown[0]
    assert ["heatMap" in answer for answer in shown] == [True] * 5 + [False]
    assert rounded(shown[0]["heatMap"]) == plain(canned.heat_map(pb.Explain(label="")))
    unexplained = [answer for of in seen["unexplained"]["comparisons"] for answer in of["answers"]]
    assert not any("heatMap" in answer for answer in unexplained)
    assert rounded(seen["compared"]["leftOut"]) == plain(compared)["leftOut"]
    assert len(seen["compared"]["models"]) == len(canned.CARDS)


def test_options_arrive_as_fields_of_the_request(seen: dict[str, Any]) -> None:
    (detect,) = [one for one in seen["requests"] if isinstance(one, pb.DetectRequest)]
    assert detect == pb.DetectRequest(
        image=pb.Image(encoded=b"jpeg"),
        model="yolov5n",
        score_threshold=0,
        labels=["bus"],
        annotate=True,
        explain=pb.Explain(label="bus"),
    )
    (compare,) = [one for one in seen["requests"] if isinstance(one, pb.CompareRequest)]
    raw = pb.RawImage(format=pb.PIXEL_FORMAT_BGR, width=2, height=1, data=bytes(6))
    assert compare == pb.CompareRequest(
        image=pb.Image(raw=raw),
        tasks=[pb.TASK_OBJECT_DETECTION],
        models=["a", "b"],
        baseline="b",
        annotate_difference=True,
    )
    streamed = next(one for one in seen["requests"] if isinstance(one, pb.CompareStreamRequest))
    assert (streamed.explain, streamed.annotate_difference) == (pb.Explain(label=""), True)
    assert seen["metadata"]["x-team"] == "vision"


def test_errors_have_the_servers_details(seen: dict[str, Any]) -> None:
    assert seen["invalid"] == {
        "typed": True,
        "code": "INVALID_ARGUMENT",
        "message": "top_k is 0",
        "field": "top_k",
        "requestId": "mine",
    }
    overloaded = {key: seen["overloaded"][key] for key in ("code", "message", "retryAfterMs")}
    assert overloaded == {
        "code": "RESOURCE_EXHAUSTED",
        "message": "queue is full",
        "retryAfterMs": 1500,
    }
    names = ("late", "aborted", "closed", "withoutToken", "withoutCertificate", "untrusted")
    assert {name: seen[name]["code"] for name in names} == {
        "late": "DEADLINE_EXCEEDED",
        "aborted": "CANCELLED",
        "closed": "CANCELLED",
        "withoutToken": "UNAUTHENTICATED",
        "withoutCertificate": "UNAVAILABLE",
        "untrusted": "UNAVAILABLE",
    }
    assert all(seen[name]["typed"] for name in names)


def test_unavailable_server_is_asked_again_and_an_overloaded_one_is_not(
    seen: dict[str, Any],
) -> None:
    assert (seen["repeated"], seen["streamRepeated"]) == (5, "comparison")
    classified = [one.model for one in seen["requests"] if isinstance(one, pb.ClassifyRequest)]
    assert classified.count("starting") == 3
    assert classified.count("busy") == 1


def test_calls_leave_no_listeners_on_a_signal_that_they_share(seen: dict[str, Any]) -> None:
    assert seen["listeners"] == 0


def test_unusable_arguments_are_named_before_any_call(seen: dict[str, Any]) -> None:
    for name, field, text in (
        ("unusable", "image", "read the file, and pass its bytes"),
        ("pixels", "image", "image has 6 bytes; 2×2 pixels in BGR have 12"),
        ("explain", "explain", "give true, or a label as a string"),
        ("task", "tasks", "choose from: classification, detection"),
        ("inTheClear", "token", "would be sent in the clear"),
        ("address", "address", "write HOST:PORT"),
        ("halfCertificate", "tls", "give both or neither"),
        ("header", "headers", "set by the option `token`"),
    ):
        assert (seen[name]["typed"], seen[name]["field"]) == (True, field), name
        assert text in seen[name]["message"]


def test_unix_socket_and_tls_with_a_token_reach_a_server(seen: dict[str, Any]) -> None:
    assert seen["overSocket"] == seen["overTls"] == len(canned.CARDS)


def test_examples_of_the_readme_are_right(npm_project: Path) -> None:
    blocks = re.findall(r"```ts\n(.*?)```", (npm.LIBRARY / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for number, block in enumerate(blocks):
        (npm_project / f"readme_{number}.mts").write_text(block)
    programs = [f"readme_{number}.mts" for number in range(len(blocks))]
    types = ("--typeRoots", npm.LIBRARY / "node_modules" / "@types", "--types", "node")
    compile_types(npm_project, "--module", "nodenext", *types, *programs)


def test_the_readmes_program_works(npm_project: Path, fake: FakeServer) -> None:
    text = (npm.LIBRARY / "README.md").read_text("utf-8")
    program = text.partition("```ts\n")[2].partition("```")[0]
    assert '"127.0.0.1:8001"' in program
    (npm_project / "readme.mts").write_text(program.replace("127.0.0.1:8001", fake.address))
    bundle = ("--bundle", "--platform=node", "--format=esm", "--packages=external")
    target = npm_project / "readme.mjs"
    build = [npm.tool("esbuild"), "readme.mts", *bundle, f"--outfile={target}"]
    subprocess.run(build, cwd=npm_project, capture_output=True, check=True)
    with Surroundings.temporary() as found:
        (found.elsewhere / "bus.jpg").write_bytes(b"jpeg")
        done = subprocess.run(
            ["node", target],
            cwd=found.elsewhere,
            env=found.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines() if line[0].isalpha()] == [
        box.label for box in canned.BUS_BOXES
    ]


def test_documentation_is_complete() -> None:
    npm.run("make", "doc", "TYPEDOC=--emit none", folder=npm.LIBRARY)


@pytest.mark.parametrize("module", ["nodenext", "bundler", "commonjs"])
def test_types_of_the_package_are_right(npm_project: Path, module: str) -> None:
    resolution = {
        "nodenext": ["--module", "nodenext"],
        "bundler": ["--module", "esnext", "--moduleResolution", "bundler"],
        "commonjs": ["--module", "nodenext"],
    }[module]
    program = "types.mts"
    if module == "commonjs":
        program = "types.cts"
        (npm_project / program).write_text((npm_project / "types.mts").read_text())
    compile_types(npm_project, "--types", "", *resolution, program)


def compile_types(npm_project: Path, *arguments: str | Path) -> None:
    strict = ("--noEmit", "--strict", "--exactOptionalPropertyTypes")
    checked = subprocess.run(
        [npm.tool("tsc"), *strict, "--target", "es2022", "--lib", "es2022,dom", *arguments],
        cwd=npm_project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout) == (0, "")
