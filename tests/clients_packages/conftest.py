"""The servers that the programs of test_packages.py call."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2
from visavis import TLS, Client
from visavis.v1 import vision_pb2 as pb

from tests.clients import canned, fakes
from tests.faults.process import PATIENCE_S, ServerProcess
from tests.server import graphs
from tests.server.pictures import plain
from visavis_server.card import LabelSet
from visavis_server.transport.tokens import new_token

# The delay that the overloaded server requests.
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
    """Return a repository with three classifiers and three detectors, which disagree.

    "paints" and "heads" can be explained, and have labels that the others lack.
    """
    folder = tmp_path_factory.mktemp("models")
    paints = LabelSet(name="paints", labels=("violet", "ink", "green"))
    pets = LabelSet(name="pets", labels=("dog", "cat"))
    birds = LabelSet(name="birds", labels=("cat", "bird"))
    fewer = graphs.constant(graphs.ROWS[:, 1:])
    random = np.random.default_rng(5)
    maps = [random.normal(size=(1, 14, 64 // s, 64 // s)) for s in graphs.STRIDES]
    heads = graphs.constant(*graphs.split_heads(maps))
    for name, graph, document in (
        ("colors", graphs.classifier(gain=3), graphs.classifier_document()),
        ("guess", graphs.classifier(gain=-3), graphs.classifier_document()),
        ("paints", graphs.explained_classifier(), graphs.explained_document(label_set=paints)),
        ("boxes", graphs.constant(graphs.ROWS), graphs.detector_document()),
        ("heads", heads, graphs.detector_document(label_set=birds, output=graphs.yolov5_heads())),
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
    (folder / "picture.png").write_bytes(plain((255, 90, 0), 96, 64))
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
