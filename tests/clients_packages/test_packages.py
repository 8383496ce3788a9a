"""The libraries of Go, C++ and Java, installed into an empty project by the language's own tool.

The program in the language's folder here uses the library and prints a line for each answer and
each error; the Python SDK says what these lines must be.
"""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from pathlib import Path

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2
from visavis import TLS, Client
from visavis.results import ClassificationAgreement, DetectionAgreement
from visavis.v1 import vision_pb2 as pb

from tests.clients import canned, fakes
from tests.faults.process import PATIENCE_S, ServerProcess
from tests.server import graphs
from tests.server.pictures import plain
from tests.surroundings import Surroundings
from tests.test_clients import CLIENTS, built, require_tools
from visavis_server.card import LabelSet
from visavis_server.transport.tokens import new_token

from .go_proxy import MODULE, VERSION, make_proxy

HERE = Path(__file__).parent
RETRY_MS = 1250


@dataclass(frozen=True)
class Arguments:
    """Of each program: a plain server; one with mutual TLS and a token, and what it takes to call
    it; one at a unix socket; one that fails; a picture."""

    server: str
    tls: str
    authority: str
    certificate: str
    key: str
    token: str
    unix: str
    fake: str
    picture: str


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with two classifiers and two detectors, which disagree."""
    folder = tmp_path_factory.mktemp("models")
    pets = LabelSet(name="pets", labels=("dog", "cat"))
    fewer = graphs.constant(graphs.ROWS[:, 1:])
    for name, graph, document in (
        ("colors", graphs.classifier(gain=3), graphs.classifier_document()),
        ("guess", graphs.classifier(gain=-3), graphs.classifier_document()),
        ("boxes", graphs.constant(graphs.ROWS), graphs.detector_document()),
        ("pets", fewer, graphs.detector_document(label_set=pets)),
    ):
        graphs.put(folder, name, 1, graphs.export(graph, document)[0])
    return folder


@dataclass(frozen=True)
class Failing:
    """A server that is overloaded, never detects, and stops twice before it compares.

    headers: the metadata of each detection.
    """

    fake: fakes.FakeServer
    headers: list[dict[str, str]]


@pytest.fixture(scope="module")
def failing() -> Iterator[Failing]:
    fake, headers, over = fakes.FakeServer(), list[dict[str, str]](), threading.Event()
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=250_000_000))
    overloaded = fakes.refusal(code_pb2.RESOURCE_EXHAUSTED, "the queue is full", retry)
    stopping = fakes.refusal(code_pb2.UNAVAILABLE, "the server is stopping")

    def detect(request: object, context: grpc.ServicerContext) -> object:
        headers.append(dict(context.invocation_metadata()))
        over.wait(PATIENCE_S)
        return pb.DetectResponse()

    def compare(request: object, context: grpc.ServicerContext) -> object:
        again = fake.calls["Compare"] % 3
        return stopping(request, context) if again else canned.comparison()

    fake.answers = {"Classify": overloaded, "Detect": detect, "Compare": compare}
    server = fakes.started(fake)
    yield Failing(fake, headers)
    over.set()
    server.stop(None).wait()


@pytest.fixture(scope="module")
def arguments(
    models: Path, failing: Failing, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Arguments]:
    folder = tmp_path_factory.mktemp("servers")
    authority, token = trustme.CA(), new_token("packages")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("localhost", "client@tests"):
        issued = authority.issue_cert(name)
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
        # Java reads no other format.
        pkcs8 = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(*pkcs8, serialization.NoEncryption())
        )
    (folder / "tokens").write_text(f"{token.line}\n")
    (folder / "picture.png").write_bytes(plain((255, 90, 0)))
    secured = (
        *("--tls-certificate", str(folder / "localhost.pem")),
        *("--tls-private-key", str(folder / "localhost.key")),
        *("--tls-client-ca", str(folder / "ca.pem")),
        *("--tokens", str(folder / "tokens")),
    )
    local = fakes.FakeServer()
    with ExitStack() as stack:
        plain_server = ServerProcess(models, folder)
        stack.push(plain_server)
        tls_server = ServerProcess(models, folder, *secured)
        stack.push(tls_server)
        stack.callback(fakes.started(local, f"unix:{folder}/socket").stop, None)
        plain_server.wait_until_ready()
        found = Arguments(
            server=plain_server.address,
            tls=f"localhost:{tls_server.port}",
            authority=str(folder / "ca.pem"),
            certificate=str(folder / "client@tests.pem"),
            key=str(folder / "client@tests.key"),
            token=token.token,
            unix=local.address,
            fake=failing.fake.address,
            picture=str(folder / "picture.png"),
        )
        tls = TLS(found.authority, found.certificate, found.key)
        with Client(found.tls, tls=tls, token=found.token) as client:
            client.wait_until_ready(PATIENCE_S)
        yield found


@pytest.fixture(scope="module")
def expected(arguments: Arguments) -> list[str]:
    with Client(arguments.server) as client:
        lines = [*_results(client, arguments.picture), *_comparison(client, arguments.picture)]
        names = ",".join(card.name for card in client.list_models())
    return [
        *lines,
        "rejected InvalidRequest field=top_k id=mine retry=0",
        "unknown ModelNotFound field=model id=some retry=0",
        f"tls {names}",
        "stranger AccessDenied field= id=some retry=0",
        "nobody Unavailable field= id= retry=0",
        "clear InvalidSettings field= id= retry=0",
        f"unix {','.join(card.name for card in canned.CARDS)}",
        f"overloaded Overloaded field= id= retry={RETRY_MS}",
        "late DeadlineExceeded field= id= retry=0",
        f"again {len(canned.comparison().comparisons)}",
    ]


def _results(client: Client, picture: str) -> Iterator[str]:
    yield f"models {','.join(card.name for card in client.list_models())}"
    card = client.get_model("colors", version=1)
    labels = ",".join(card.label_set.labels)
    golden, receipt = (str(value).lower() for value in (card.verification.golden_sample, False))
    assert card.receipt is None
    yield f"card colors 1 {card.tasks[0]} {labels} {golden} {receipt}"
    classified = client.classify(picture, model="colors", top_k=2, annotate=True)
    for label in classified.classifications:
        yield f"label {label.label} {label.class_id} {label.score:.3f}"
    drawn = classified.annotated_image
    assert drawn and drawn.size and drawn.encoded.startswith(b"\xff\xd8")
    yield f"drawn {drawn.media_type} {drawn.size.width} {drawn.size.height} true"
    cats = client.detect(picture, model="boxes", iou_threshold=0.9, labels=["cat"]).detections
    assert len(cats) == 2
    for cat in cats:
        edges = " ".join(f"{edge:.1f}" for edge in cat.box.xyxy)
        yield f"box {cat.label} {cat.score:.3f} {edges}"
    yield "raw blue colors 1 8 true"


def _comparison(client: Client, picture: str) -> Iterator[str]:
    compared = client.compare(picture, baseline="colors", top_k=2)
    yield f"arrived {sum(len(task.answers) for task in compared.comparisons)}"
    for task in compared.comparisons:
        for answer in task.answers:
            line = f"compared {task.task} {task.baseline} {answer.served_by.model}"
            match answer.agreement:
                case ClassificationAgreement(same, overlap, divergence):
                    yield f"{line} {str(same).lower()} {overlap:.3f} {divergence:.3f}"
                case DetectionAgreement() as of:
                    counts = f"{of.matched} {of.only_here} {of.only_in_baseline}"
                    yield f"{line} {counts} {of.f1:.3f}"
                case None:
                    yield line
    yield "alone 1 true"


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Return what a command prints; it must succeed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def go_program(folder: Path) -> list[str | Path]:
    """Install the module with `go get`, and build the program."""
    make_proxy(folder / "proxy", CLIENTS / "go")
    project = folder / "project"
    shutil.copytree(HERE / "go", project)
    settings = {
        "GOPROXY": f"file://{folder / 'proxy'}",
        "GOSUMDB": "off",
        "GOMODCACHE": str(folder / "modules"),
        # pytest removes the folder; by default the files in it are read-only.
        "GOFLAGS": "-modcacherw -trimpath",
        "GO111MODULE": "on",
    }
    run("go", "mod", "init", "example.org/check", cwd=project, **settings)
    run("go", "get", f"{MODULE}@{VERSION}", cwd=project, **settings)
    run("go", "build", "-o", "check", ".", cwd=project, **settings)
    return [project / "check"]


def cpp_program(folder: Path) -> list[str | Path]:
    """Install the library to a prefix, and let CMake find it from another project."""
    prefix, project = folder / "prefix", folder / "project"
    run("cmake", "--install", CLIENTS / "cpp" / "build", "--prefix", prefix, cwd=folder)
    shutil.copytree(HERE / "cpp", project)
    run("cmake", "-S", ".", "-B", "build", f"-DCMAKE_PREFIX_PATH={prefix}", cwd=project)
    run("cmake", "--build", "build", cwd=project)
    return [project / "build" / "check"]


def java_program(folder: Path) -> list[str | Path]:
    """Install the artifact to a local Maven repository, and build a project that depends on it."""
    run("make", "install", cwd=CLIENTS / "java")
    project, client = folder / "project", CLIENTS / "java"
    shutil.copytree(HERE / "java", project)
    repository = f"-Dmaven.repo.local={client / 'build' / 'm2'}"
    maven = ("mvn", "-B", "-q", "-s", client / "debian-settings.xml", repository)
    goals = ("package", "dependency:build-classpath", "-Dmdep.outputFile=classpath")
    run(*maven, *goals, "-Dmdep.includeScope=runtime", cwd=project)
    classpath = f"{project / 'target' / 'classes'}:{(project / 'classpath').read_text()}"
    # Debian's netty needs a native library for TLS, which the client's build has put there.
    native = f"-Djava.library.path={client / 'build' / 'lib'}"
    return ["java", native, "-cp", classpath, "Check"]


PROGRAMS = {"go": go_program, "cpp": cpp_program, "java": java_program}


@pytest.mark.parametrize("language", PROGRAMS)
def test_the_package_works_in_an_empty_project(
    language: str,
    arguments: Arguments,
    failing: Failing,
    expected: list[str],
    tmp_path: Path,
) -> None:
    require_tools(language)
    built(language)
    failing.fake.calls.clear()
    failing.headers.clear()
    program = PROGRAMS[language](tmp_path)
    found = Surroundings.under(tmp_path / "surroundings")
    done = subprocess.run(
        [*program, *astuple(arguments)],
        cwd=found.elsewhere,
        env=found.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.splitlines() == expected
    assert failing.fake.calls == {"Classify": 1, "Detect": 1, "Compare": 3}
    sent = {"authorization": "Bearer secret", "x-team": "vision"}
    assert [sent.items() <= headers.items() for headers in failing.headers] == [True]


def test_the_go_module_passes_its_own_tests() -> None:
    require_tools("go")
    run("make", "test", cwd=CLIENTS / "go")
