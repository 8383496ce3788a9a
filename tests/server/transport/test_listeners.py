"""The gRPC listener: tokens, certificates, and the limits that gRPC enforces."""

import asyncio
import gzip
import resource
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs
from visavis import TLS, AccessDenied, AsyncClient
from visavis.v1 import vision_pb2 as pb
from visavis.v1 import vision_pb2_grpc

from visavis_server.app import App
from visavis_server.errors import StartupError
from visavis_server.transport import listeners
from visavis_server.transport.certificates import Certificates
from visavis_server.transport.tokens import NewToken

from ..authority import Authority, with_tls
from ..serving import Served, details, image, look_again, served_by, settings

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
CLASSIFY = pb.ClassifyRequest(image=image(), model="colors")
LIST = pb.ListModelsRequest()


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


@asynccontextmanager
async def guarded(models: Path, tokens: Path, **changes: Any) -> AsyncIterator[Served]:
    async with served_by(App(settings(models, tokens=tokens, **changes))) as served:
        yield served


async def code_of(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_a_call_with_a_token_is_answered(models: Path, tokens: Path, token: NewToken) -> None:
    async with guarded(models, tokens) as served:
        answer = await served.stub.Classify(CLASSIFY, metadata=bearer(token.token))
    assert answer.classifications[0].label == "red"


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        bearer("wrong"),
        bearer(""),
        (("authorization", "Basic dXNlcjpwYXNz"),),
        (*bearer("one"), *bearer("two")),
        (("token-bin", b"\xff"),),
    ],
)
async def test_a_call_without_a_valid_token_is_rejected(
    models: Path, tokens: Path, metadata: Any
) -> None:
    async with guarded(models, tokens) as served:
        error = await served.refused("Classify", CLASSIFY, metadata=metadata)
    assert error.code() is UNAUTHENTICATED
    assert "token" in error.details() or "Bearer" in error.details()
    assert details(error, error_details_pb2.RequestInfo)


async def test_every_method_requires_authentication_even_unknown_ones(
    models: Path, tokens: Path
) -> None:
    async with guarded(models, tokens, reflection=True) as served:
        health = health_pb2_grpc.HealthStub(served.channel)
        reflection = reflection_pb2_grpc.ServerReflectionStub(served.channel)
        listing = reflection_pb2.ServerReflectionRequest(list_services="")
        codes = [
            await code_of(served.stub.ListModels(LIST)),
            await code_of(served.stub.CompareStream(pb.CompareStreamRequest()).read()),
            await code_of(health.Check(health_pb2.HealthCheckRequest())),
            await code_of(health.Watch(health_pb2.HealthCheckRequest()).read()),
            await code_of(reflection.ServerReflectionInfo(iter([listing])).read()),
            await code_of(served.channel.unary_unary("/no.Such/Method")(b"")),
        ]
    assert set(codes) == {UNAUTHENTICATED}


async def test_health_can_be_opened_by_setting(models: Path, tokens: Path) -> None:
    async with guarded(models, tokens, open_health=True) as served:
        health = health_pb2_grpc.HealthStub(served.channel)
        answer = await health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert await code_of(served.stub.ListModels(LIST)) is UNAUTHENTICATED


async def test_authentication_comes_before_the_body_is_read(models: Path, tokens: Path) -> None:
    async with guarded(models, tokens, message_timeout_s=600) as served:
        # A call whose message never arrives: only its headers do.
        call = served.channel.stream_unary("/visavis.v1.VisionService/Classify")()
        assert await asyncio.wait_for(code_of(call), 10) is UNAUTHENTICATED


async def lists(channel: grpc.aio.Channel) -> grpc.StatusCode:
    async with channel:
        call = vision_pb2_grpc.VisionServiceStub(channel).ListModels(LIST, timeout=5)
        return await code_of(call)


async def test_with_a_certificate_only_tls_is_accepted(models: Path, authority: Authority) -> None:
    async with served_by(with_tls(models, authority)) as served:
        assert await lists(authority.channel(served.app)) is grpc.StatusCode.OK
        assert await code_of(served.stub.ListModels(LIST)) is grpc.StatusCode.UNAVAILABLE


async def test_mutual_tls_accepts_only_trusted_clients(models: Path, authority: Authority) -> None:
    app = with_tls(models, authority, tls_client_ca=authority.client_ca)
    async with served_by(app):
        assert await lists(authority.channel(app, client=True)) is grpc.StatusCode.OK
        assert await lists(authority.channel(app)) is grpc.StatusCode.UNAVAILABLE


async def test_the_sdk_speaks_tls_with_a_token(
    models: Path, authority: Authority, tokens: Path, token: NewToken
) -> None:
    app = with_tls(models, authority, tls_client_ca=authority.client_ca, tokens=tokens)
    issued = authority.ca.issue_cert("client@tests")
    key, chain = authority.folder / "client-key.pem", authority.folder / "client.pem"
    key.write_bytes(issued.private_key_pem.bytes())
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    tls = TLS(root_certificates=authority.client_ca, certificate=chain, private_key=key)
    async with served_by(app):
        where = f"localhost:{app.port}"
        async with AsyncClient(where, tls=tls, token=token.token) as client:
            assert {card.name for card in await client.list_models()} >= {"colors", "boxes"}
        async with AsyncClient(where, tls=tls, token="another") as client:
            with pytest.raises(AccessDenied, match="the token is not valid on this server"):
                await client.list_models()


async def test_changed_certificates_are_used_at_the_next_handshake(
    models: Path, authority: Authority
) -> None:
    async with served_by(with_tls(models, authority)) as served:
        assert await lists(authority.channel(served.app)) is grpc.StatusCode.OK
        authority.ca = trustme.CA()
        authority.root = authority.ca.cert_pem.bytes()
        authority.issue()
        look_again(served.app)
        assert await lists(authority.channel(served.app)) is grpc.StatusCode.OK


async def test_broken_certificates_are_not_loaded(models: Path, authority: Authority) -> None:
    async with served_by(with_tls(models, authority)) as served:
        authority.key.write_text("half of a key")
        look_again(served.app)
        assert await lists(authority.channel(served.app)) is grpc.StatusCode.OK


@pytest.mark.parametrize("contents", [None, "no PEM"])
async def test_an_unusable_certificate_prevents_the_start(
    models: Path, authority: Authority, contents: str | None
) -> None:
    if contents is None:
        authority.certificate.unlink()
    else:
        authority.certificate.write_text(contents)
    with pytest.raises(StartupError, match=str(authority.certificate)):
        with_tls(models, authority)


async def test_a_gzip_bomb_is_rejected_before_decompression(served: Served) -> None:
    bomb = pb.ClassifyRequest(model="colors", image=pb.Image(encoded=bytes(50_000_000)))
    error = await served.refused("Classify", bomb, compression=grpc.Compression.Gzip)
    assert len(gzip.compress(bomb.SerializeToString(), 1)) < 300_000
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("how", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_requests_are_rejected(served: Served, how: grpc.Compression) -> None:
    error = await served.refused("Classify", CLASSIFY, compression=how)
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert f"'{how.name.lower()}'" in error.details()


async def test_headers_of_a_megabyte_are_rejected(served: Served) -> None:
    metadata = [(f"x-{i}", "x" * 60_000) for i in range(16)]
    error = await served.refused("ListModels", LIST, metadata=metadata)
    assert error.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
    assert await served.stub.ListModels(LIST)


async def test_a_name_of_a_megabyte_is_rejected_briefly(served: Served) -> None:
    for name in ("x" * 1_000_000, "\x00\x1b[31m\r\n" * 1000):
        request = pb.ClassifyRequest(image=image(), model=name)
        error = await served.refused("Classify", request)
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert len(error.details()) <= 512 and error.details().isprintable()


async def test_a_safe_request_id_of_a_client_is_kept(served: Served) -> None:
    for given, kept in (("order-17.a_b", True), ("x" * 65, False), ("a b", False)):
        call = served.stub.ListModels(LIST, metadata=(("x-request-id", given),))
        await call
        assert (dict(await call.trailing_metadata())["x-request-id"] == given) is kept


@pytest.fixture
def open_files(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[Any]]:
    """Return a function that sets the hard limit, and returns the requested limits."""

    def limit(most: int) -> list[Any]:
        asked: list[Any] = []
        monkeypatch.setattr(resource, "getrlimit", lambda which: (64, most))
        monkeypatch.setattr(resource, "setrlimit", lambda which, pair: asked.append(pair))
        return asked

    return limit


@pytest.mark.parametrize(
    ("most", "http", "connections"),
    [(100_000, True, 1024), (1000, False, 808), (1000, True, 404), (2240, True, 1024)],
)
def test_connections_of_all_listeners_leave_descriptors_for_the_rest(
    models: Path, open_files: Any, most: int, http: bool, connections: int
) -> None:
    asked = open_files(most)
    given = settings(models, http="127.0.0.1:0" if http else None)
    assert listeners.within_descriptors(given).max_connections == connections
    assert asked == [(most, most)]


def test_too_few_descriptors_prevent_the_start(models: Path, open_files: Any) -> None:
    open_files(192)
    with pytest.raises(StartupError, match=r"may open 192 files \(ulimit -n\).*allow 1216"):
        listeners.within_descriptors(settings(models))


async def test_the_key_of_another_certificate_prevents_the_start(
    models: Path, authority: Authority
) -> None:
    authority.key.write_bytes(trustme.CA().issue_cert("other").private_key_pem.bytes())
    with pytest.raises(StartupError) as refused:
        with_tls(models, authority)
    assert f"private key {authority.key} does not match" in str(refused.value)
    assert str(authority.certificate) in str(refused.value)


async def test_the_key_of_another_certificate_is_not_loaded(
    models: Path, authority: Authority
) -> None:
    async with served_by(with_tls(models, authority)) as served:
        authority.key.write_bytes(trustme.CA().issue_cert("other").private_key_pem.bytes())
        with capture_logs() as logs:
            look_again(served.app)
        assert "does not match" in logs[0]["why"]
        assert await lists(authority.channel(served.app)) is grpc.StatusCode.OK


def test_an_expired_certificate_is_logged_as_a_warning(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("localhost", not_after=datetime(2020, 1, 1, tzinfo=UTC))
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    key.write_bytes(issued.private_key_pem.bytes())
    certificate.write_bytes(issued.cert_chain_pems[0].bytes())
    with capture_logs() as logs:
        Certificates(certificate, key, None)
    assert (logs[0]["event"], logs[0]["file"]) == (
        "the certificate has expired",
        str(certificate),
    )
    assert "2020" in logs[0]["when"]


async def test_an_encrypted_key_is_rejected_without_asking_for_its_password(
    authority: Authority, models: Path
) -> None:
    command = ["openssl", "pkey", "-aes128", "-passout", "pass:secret"]
    locked = subprocess.run(
        [*command, "-in", authority.key], capture_output=True, check=True
    ).stdout
    authority.key.write_bytes(locked)
    with pytest.raises(StartupError, match=str(authority.key)):
        with_tls(models, authority)
