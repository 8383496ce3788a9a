"""The crate, packed and used by an empty cargo project: results, errors, TLS, retries."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from visavis.v1 import vision_pb2 as pb

from tests import builds
from tests.surroundings import Surroundings

from . import canned
from .fakes import FakeServer
from .library_servers import library_servers

CRATE = Path(__file__).parents[2] / "clients" / "rust"
README = (CRATE / "README.md").read_text("utf-8")
PROGRAM = Path(__file__).parent / "rust_project" / "src" / "main.rs"
DEBIAN = Path("/usr/share/cargo/registry")
MANIFEST = """
[package]
name = "empty"
version = "0.1.0"
edition = "2021"

[dependencies]
tokio = { version = "1", features = ["macros", "rt", "time"] }
visavis = { path = "../visavis-0.1.0" }
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("cargo"):
        assert os.environ.get("CI") != "true"
        pytest.skip("needs cargo")
    folder = tmp_path_factory.mktemp("cargo")
    run("make", "-C", CRATE, "package", folder=folder)
    shutil.unpack_archive(
        CRATE / "build" / "target" / "package" / "visavis-0.1.0.crate", folder, "gztar"
    )
    project = folder / "empty"
    (project / "src" / "bin").mkdir(parents=True)
    shutil.copy(PROGRAM, project / "src")
    readme = README.partition("```rust,no_run\n")[2].partition("```")[0]
    assert '"127.0.0.1:8001"' in readme
    # The address is known only when a server runs.
    readme = readme.replace('"127.0.0.1:8001"', "std::env::args().nth(1).unwrap()")
    (project / "src" / "bin" / "readme.rs").write_text(readme)
    (project / "Cargo.toml").write_text(MANIFEST)
    if any(DEBIAN.glob("h2-*")):
        (project / ".cargo").mkdir()
        (project / ".cargo" / "config.toml").write_text(
            '[source.crates-io]\nreplace-with = "debian"\n'
            f'[source.debian]\ndirectory = "{DEBIAN}"\n[net]\noffline = true\n'
        )
    # What the scenario was built with is built already.
    target = CRATE / "build" / "target"
    run("cargo", "build", "--quiet", "--target-dir", target, folder=project)
    return target / "debug" / "empty"


def run(*command: str | Path, folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, env=builds.ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "warning" in done.stderr) == (0, False), done.stderr[-4000:]


def test_a_program_sees_what_the_servers_answer(program: Path, tmp_path: Path) -> None:
    with library_servers(tmp_path) as servers, Surroundings.temporary() as found:
        done = subprocess.run(
            [program, *servers.arguments],
            cwd=found.elsewhere,
            env=found.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    seen = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    cards = len(canned.CARDS)
    answers = [answer for of in canned.comparison().comparisons for answer in of.answers]
    assert seen == {
        "models": quoted([card.name for card in canned.CARDS]),
        "card": "(1872157, [Detection], 151200, 0.002, Some(2.5e-5))",
        "labels": quoted([found.label for found in canned.BUS_LABELS]),
        "bus": '("bus", 5, [12.0, 232.0, 804.0, 756.0])',
        "served_by": '("yolov5n", "CPUExecutionProvider")',
        "inference_ms": "41.3",
        "size": "(810, 1080)",
        "drawn": str(len(canned.PICTURE.encoded)),
        "map": '("bus", 7, 3, 2, [-2.5, 0.0, 1.0, 2.0, 3.0, 60.75])',
        "scale and area": "(-2.5, 60.75, [100.0, 50.0, 400.0, 250.0])",
        "best": 'Some("bus")',
        "difference": str(len(canned.PICTURE.encoded)),
        "left_out": '"yolov5m"',
        "agreement resnet50": "(Classification, Ok, None)",
        "agreement resnet18": "(Classification, Ok, Some(0.118))",
        "agreement yolov5n-cls": "(Classification, Ok, Some(0.973))",
        "agreement yolov5n": "(Detection, Ok, None)",
        "agreement yolov5s": "(Detection, Ok, Some(0.962))",
        "agreement yolov5x": "(Detection, Internal, None)",
        "comparisons": "2",
        "streamed": quoted([answer.served_by.model for answer in answers]),
        "after the end": "true",
        "invalid": '(InvalidArgument, Some("top_k"), Some("mine"), "INVALID_ARGUMENT: top_k is 0")',
        "overloaded": "(ResourceExhausted, Some(1.5s))",
        "late": "DeadlineExceeded",
        "repeated": "5",
        "stream repeated": "true",
        "pixels": 'Some("image")',
        "address": '"invalid address \\"localhost\\"; write HOST:PORT, such as 127.0.0.1:8001, '
        'or unix:PATH"',
        "in the clear": '"the token for vision.example.org:8001 would be sent in the clear; '
        'use TLS"',
        "header": '"the header authorization is set by the client"',
        "nobody": "(Unavailable, true)",
        "many": str(20 * len(canned.BUS_BOXES)),
        "dropped": "true",
        "after dropped": str(cards),
        "over a socket": str(cards),
        "over TLS": str(cards),
        "without a token": "Unauthenticated",
        "without a certificate": "Unavailable",
        "untrusted": "Unavailable",
    }
    requests = servers.fake.requests
    classified = [one.model for one in requests if isinstance(one, pb.ClassifyRequest)]
    assert classified.count("starting") == 3
    assert classified.count("busy") == 1
    detect = next(one for one in requests if isinstance(one, pb.DetectRequest))
    image = pb.Image(encoded=b"jpeg")
    assert detect == pb.DetectRequest(
        image=image,
        model="yolov5n",
        score_threshold=0,
        labels=["bus"],
        annotate=True,
        explain=pb.Explain(label="bus"),
    )
    streamed = next(one for one in requests if isinstance(one, pb.CompareStreamRequest))
    assert streamed.explain == pb.Explain(label="")
    assert streamed.annotate_difference
    compare = next(one for one in requests if isinstance(one, pb.CompareRequest))
    raw = pb.RawImage(format=pb.PIXEL_FORMAT_BGR, width=2, height=1, data=bytes(6))
    assert compare == pb.CompareRequest(
        image=pb.Image(raw=raw),
        tasks=[pb.TASK_OBJECT_DETECTION],
        models=["a", "b"],
        baseline="b",
        annotate_difference=True,
    )
    assert servers.fake.metadata["x-team"] == "vision"


def test_the_readmes_program_works(program: Path, fake: FakeServer) -> None:
    with Surroundings.temporary() as found:
        (found.elsewhere / "bus.jpg").write_bytes(b"jpeg")
        done = subprocess.run(
            [program.with_name("readme"), fake.address],
            cwd=found.elsewhere,
            env=found.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert all(box.label in line for box, line in zip(canned.BUS_BOXES, lines, strict=True))


def test_documentation_is_complete_and_its_examples_compile(program: Path) -> None:
    run("make", "-C", CRATE, "doc", "test", folder=CRATE)


def quoted(names: list[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
