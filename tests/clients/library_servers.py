"""Servers with canned answers that a library's program is run against, and what it must see."""

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import trustme
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2
from visavis.v1 import vision_pb2_grpc

from . import canned, fakes
from .fakes import FakeServer, refusal

TOKEN = "secret"


@dataclass(frozen=True)
class LibraryServers:
    """Three servers: over TCP, a unix socket, and mutual TLS with a token. fake: the first one.

    certificate, key: those of a client that the third one knows.
    """

    fake: FakeServer
    socket: Path
    tls: str
    ca_file: Path
    certificate: Path
    key: Path

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of a program that uses them all."""
        files = map(str, (self.ca_file, self.certificate, self.key))
        return (self.fake.address, str(self.socket), self.tls, *files, TOKEN)


@contextmanager
def library_servers(folder: Path) -> Iterator[LibraryServers]:
    """Yield servers that answer.

    Classify refuses `top_k` 0, a model "busy" and, twice, a model "starting"; a model "slow" does
    not answer. CompareStream refuses a model "starting" twice.
    """
    fake, local, secured = FakeServer(), FakeServer(), FakeServer()
    fake.answers["Classify"] = _classify(fake)
    fake.answers["CompareStream"] = _compare_stream()
    secured.answers["ListModels"] = _only_with_a_token
    authority = trustme.CA()
    ca, certificate, key = folder / "ca.pem", folder / "client.pem", folder / "client.key"
    authority.cert_pem.write_to_path(ca)
    client = authority.issue_cert("client@tests")
    client.cert_chain_pems[0].write_to_path(certificate)
    client.private_key_pem.write_to_path(key)
    issued = authority.issue_cert("localhost")
    pair = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
    mutual = grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), True)
    tls = grpc.server(futures.ThreadPoolExecutor(4))
    vision_pb2_grpc.add_VisionServiceServicer_to_server(secured, tls)
    port = tls.add_secure_port("127.0.0.1:0", mutual)
    tls.start()
    servers = [fakes.started(fake), fakes.started(local, f"unix:{folder}/socket"), tls]
    try:
        address = f"localhost:{port}"
        yield LibraryServers(fake, folder / "socket", address, ca, certificate, key)
    finally:
        for server in servers:
            server.stop(None).wait()


def _classify(fake: FakeServer) -> fakes.Answer:
    starts = iter(range(2))

    def classify(request: Any, context: Any) -> Any:
        if request.HasField("top_k") and request.top_k == 0:
            info = error_details_pb2.RequestInfo(request_id=fake.metadata["x-request-id"])
            detail = fakes.bad_field("top_k", "starts at 1")
            refusal(code_pb2.INVALID_ARGUMENT, "top_k is 0", detail, info)(request, context)
        if request.model == "busy":
            delay = Duration(seconds=1, nanos=500_000_000)
            retry = error_details_pb2.RetryInfo(retry_delay=delay)
            refusal(code_pb2.RESOURCE_EXHAUSTED, "queue is full", retry)(request, context)
        if request.model == "slow":
            ended = threading.Event()
            context.add_callback(ended.set)
            ended.wait(20)
        if request.model == "starting" and next(starts, None) is not None:
            refusal(code_pb2.UNAVAILABLE, "loading")(request, context)
        return fakes.completed(canned.CLASSIFIED, request)

    return classify


def _compare_stream() -> fakes.Answer:
    starts = iter(range(2))

    def compare_stream(request: Any, context: Any) -> Any:
        if request.models == ["starting"] and next(starts, None) is not None:
            refusal(code_pb2.UNAVAILABLE, "loading")(request, context)
        return fakes.streamed(request)

    return compare_stream


def _only_with_a_token(request: Any, context: Any) -> Any:
    if dict(context.invocation_metadata()).get("authorization") != f"Bearer {TOKEN}":
        refusal(code_pb2.UNAUTHENTICATED, "authentication required")(request, context)
    return canned.LISTED
