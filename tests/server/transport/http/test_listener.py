"""The HTTP listener: the same answers, errors, limits and guards as over gRPC."""

import asyncio
import json
import re
import socket
import ssl
import struct
import sys
import tracemalloc
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from visavis.v1 import vision_pb2 as pb

from visavis_server.app import App
from visavis_server.errors import StartupError
from visavis_server.transport.tokens import NewToken

from ...authority import Authority, with_tls
from ...pictures import RED, plain
from ...serving import Served, image, look_again, served_by, settings
from ...test_app import Blocked

RPC = "/visavis.v1.VisionService/"
CLASSIFY = {"model": "colors", "image": {"encoded": b64encode(plain(RED)).decode()}}
DETECT = {**CLASSIFY, "model": "boxes"}
COMPARE = {"image": CLASSIFY["image"]}
JSON = {"content-type": "application/json"}
README = Path(__file__).parents[4] / "README.md"
DOCUMENT = README.parent / "docs" / "http.md"
# TLS over HTTP needs asyncio's event loop.
SERVES_HTTP_WITH_TLS = pytest.mark.asyncio(loop_factories=["asyncio"])


@dataclass
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    app: App,
    path: str,
    body: bytes | dict[str, Any] | None = None,
    tls: ssl.SSLContext | None = None,
    **headers: str,
) -> Answered:
    """Send one request: POST if it has a body, else GET."""
    assert app.http_address
    port = int(app.http_address.rpartition(":")[2])
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    sent = {**(JSON if isinstance(body, dict) else {}), **headers}
    sent = {name.replace("_", "-"): value for name, value in sent.items()}

    def send() -> Answered:
        connection = (
            HTTPSConnection("localhost", port, timeout=10, context=tls)
            if tls
            else HTTPConnection("127.0.0.1", port, timeout=10)
        )
        connection.request("GET" if data is None else "POST", path, data, sent)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        answered = Answered(response.status, headers, response.read())
        connection.close()
        return answered

    return await asyncio.to_thread(send)


async def call(app: App, method: str, request: dict[str, Any], **headers: str) -> Answered:
    return await ask(app, RPC + method, request, **headers)


def framed(data: bytes) -> bytes:
    return struct.pack(">BI", 0, len(data)) + data


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Return flags and contents of Connect's and gRPC-Web's envelopes."""
    found, at = [], 0
    while at < len(data):
        flags, length = struct.unpack_from(">BI", data, at)
        found.append((flags, data[at + 5 : at + 5 + length]))
        at += 5 + length
    return found


def without_timings(message: Message) -> Any:
    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k != "timings"}
        return [strip(each) for each in value] if isinstance(value, list) else value

    return strip(json_format.MessageToDict(message))


@pytest_asyncio.fixture
async def web(models: Path) -> AsyncIterator[Served]:
    async with served_by(App(settings(models, http="127.0.0.1:0"))) as served:
        yield served


@pytest.mark.parametrize(
    ("method", "request_", "kind"),
    [
        ("Classify", CLASSIFY, pb.ClassifyRequest),
        ("Detect", {**DETECT, "scoreThreshold": 0.5, "labels": ["cat"]}, pb.DetectRequest),
        ("Compare", {**COMPARE, "topK": 2}, pb.CompareRequest),
        ("ListModels", {}, pb.ListModelsRequest),
        ("GetModel", {"model": "boxes"}, pb.GetModelRequest),
    ],
)
async def test_json_gets_what_grpc_gets(
    web: Served, method: str, request_: dict[str, Any], kind: type[Message]
) -> None:
    over_grpc = await getattr(web.stub, method)(json_format.ParseDict(request_, kind()))
    answered = await call(web.app, method, request_)
    assert answered.status == 200
    assert answered.headers["content-type"] == "application/json"
    over_http = json_format.ParseDict(answered.json, type(over_grpc)())
    assert without_timings(over_http) == without_timings(over_grpc)


async def test_json_includes_zeros(web: Served) -> None:
    answer = (await call(web.app, "Classify", CLASSIFY)).json
    assert answer["servedBy"]["randomWeights"] is False
    assert answer["classifications"][0]["classId"] == 0


async def test_binary_connect_gets_what_grpc_gets(web: Served) -> None:
    request = pb.DetectRequest(model="boxes", image=image())
    over_grpc = await web.stub.Detect(request)
    answered = await ask(
        web.app, f"{RPC}Detect", request.SerializeToString(), content_type="application/proto"
    )
    over_http = pb.DetectResponse.FromString(answered.body)
    assert without_timings(over_http) == without_timings(over_grpc)


async def test_a_comparison_streams_over_connect(web: Served) -> None:
    answered = await ask(
        web.app,
        f"{RPC}CompareStream",
        framed(json.dumps(COMPARE).encode()),
        content_type="application/connect+json",
    )
    *events, (flags, end) = frames(answered.body)
    assert (flags, json.loads(end)) == (2, {})
    kinds = [next(iter(json.loads(event))) for _, event in events]
    assert kinds == ["answer"] * 5 + ["summary"]


async def test_grpc_web_gets_what_grpc_gets(web: Served) -> None:
    request = pb.CompareRequest(image=image())
    over_grpc = await web.stub.Compare(request)
    answered = await ask(
        web.app,
        f"{RPC}Compare",
        framed(request.SerializeToString()),
        content_type="application/grpc-web+proto",
    )
    (_, message), (flags, trailers) = frames(answered.body)
    assert flags == 0x80 and b"grpc-status: 0" in trailers.replace(b":", b": ").replace(b"  ", b" ")
    assert without_timings(pb.CompareResponse.FromString(message)) == without_timings(over_grpc)


async def test_an_error_has_its_status_and_the_details_of_grpc(web: Served) -> None:
    answered = await call(web.app, "Classify", {**CLASSIFY, "topK": 0}, x_request_id="mine")
    assert answered.status == 400
    assert (answered.json["code"], answered.headers["x-request-id"]) == ("invalid_argument", "mine")
    found = {
        detail["type"]: b64decode(detail["value"] + "===") for detail in answered.json["details"]
    }
    bad = error_details_pb2.BadRequest.FromString(found["google.rpc.BadRequest"])
    info = error_details_pb2.RequestInfo.FromString(found["google.rpc.RequestInfo"])
    assert (bad.field_violations[0].field, info.request_id) == ("top_k", "mine")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"topk": 3}', "has no field 'topk'; it has"),
        (b"{", "it is not JSON: Expecting"),
        (b'{"model": ' + b"[" * 50_000, "the request is not a message"),
        (b'{"model": ' + b"[" * 100_000, "more than 65536 bytes of brackets"),
        (b"\xff\xfe", "must be an object"),
    ],
)
async def test_an_invalid_body_is_rejected(web: Served, body: bytes, words: str) -> None:
    answered = await ask(web.app, f"{RPC}Classify", body, **JSON)
    assert answered.status == 400 and words in answered.json["message"]


async def test_grpc_is_rejected_with_a_hint(web: Served) -> None:
    answered = await ask(web.app, f"{RPC}Classify", b"", content_type="application/grpc")
    assert answered.status == 400 and "send gRPC to the port" in answered.json["message"]


async def test_a_body_over_the_limit_is_rejected(models: Path) -> None:
    app = App(settings(models, http="127.0.0.1:0", max_message_bytes=1000))
    async with served_by(app):
        announced = await ask(app, f"{RPC}Classify", None, content_length="1000000000", **JSON)
        assert announced.status in (400, 405)
        answered = await ask(app, f"{RPC}Classify", b" " * 1001, **JSON)
        assert answered.status == 400 and "larger than 1000 bytes" in answered.json["message"]


async def test_a_rejection_reaches_a_proxy_that_is_still_sending_the_body(
    models: Path, tokens: Path
) -> None:
    app = App(settings(models, http="127.0.0.1:0", tokens=tokens))
    async with served_by(app):
        assert app.http_address
        host, _, port = app.http_address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = b" " * (1 << 20)
        head = f"POST {RPC}Classify HTTP/1.1\r\nhost: localhost\r\ncontent-length: {2 * len(body)}"
        writer.write(f"{head}\r\n\r\n".encode() + body)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401")
        writer.write(body)
        # A connection that is reset would raise here.
        await writer.drain()
        assert b"unauthenticated" in await asyncio.wait_for(reader.read(), 10)
        writer.close()


async def test_the_deadline_is_kept(web: Served) -> None:
    answered = await call(web.app, "Classify", CLASSIFY, connect_timeout_ms="0")
    assert (answered.status, answered.json["code"]) == (504, "deadline_exceeded")


async def stalled(app: App, head: bytes) -> bytes:
    """Send only the beginning of a request; return the response."""
    assert app.http_address
    host, _, port = app.http_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def test_a_stalled_body_times_out_and_blocks_no_other_call(models: Path) -> None:
    app = App(settings(models, http="127.0.0.1:0", message_timeout_s=0.3, max_arriving=3))
    head = f"POST {RPC}Classify HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{{"
    async with served_by(app) as served:
        waiting = [asyncio.create_task(stalled(app, head.encode())) for _ in range(2)]
        assert (await call(app, "Classify", CLASSIFY)).status == 200
        assert await served.stub.Classify(pb.ClassifyRequest(model="colors", image=image()))
        for answer in await asyncio.gather(*waiting):
            assert answer.startswith(b"HTTP/1.1 504") and b"did not arrive within 0.3 s" in answer


@pytest.mark.parametrize("head", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: localhost\r\nx: "])
async def test_a_stalled_head_closes_its_connection(models: Path, head: bytes) -> None:
    app = App(settings(models, http="127.0.0.1:0", handshake_timeout_s=0.2))
    async with served_by(app):
        assert await stalled(app, head) == b""


async def test_a_reused_connection_may_not_stall(models: Path) -> None:
    app = App(settings(models, http="127.0.0.1:0", handshake_timeout_s=0.5))
    whole = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
    async with served_by(app):
        assert (await stalled(app, whole + whole + b"GET /")).count(b"HTTP/1.1 200") == 2


async def test_work_for_a_client_that_disconnects_is_cancelled(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(settings(models, http="127.0.0.1:0", cores=1))
    async with served_by(app) as served:
        blocked = Blocked(monkeypatch)
        first = await blocked.call(served)
        assert app.http_address
        host, _, port = app.http_address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps(CLASSIFY).encode()
        head = f"POST {RPC}Classify HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json"
        writer.write(f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        await asyncio.wait_for(blocked.submitted.wait(), 10)
        writer.close()
        await asyncio.wait_for(blocked.dropped.wait(), 10)
        blocked.may_end.set()
        await first
        assert blocked.runs == 1


async def test_calls_require_a_token_and_the_page_does_not(
    models: Path, tokens: Path, token: NewToken
) -> None:
    app = App(settings(models, http="127.0.0.1:0", tokens=tokens))
    async with served_by(app):
        for path in (f"{RPC}ListModels", f"{RPC}Nothing", "/metrics", "/livez", "/readyz"):
            refused = await ask(app, path, {} if path.startswith(RPC) else None)
            assert refused.status == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert refused.json["code"] == "unauthenticated"
        bearer = {"authorization": f"Bearer {token.token}"}
        assert (await call(app, "ListModels", {}, **bearer)).status == 200
        assert (await ask(app, "/metrics", **bearer)).status == 200
        assert (await ask(app, "/")).status == 200
        # The rejection is sent before the body has arrived.
        head = f"POST {RPC}Classify HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n"
        assert (await stalled(app, head.encode())).startswith(b"HTTP/1.1 401")


async def test_open_health_opens_only_the_probes(models: Path, tokens: Path) -> None:
    app = App(settings(models, http="127.0.0.1:0", tokens=tokens, open_health=True))
    async with served_by(app):
        assert (await ask(app, "/livez")).status == (await ask(app, "/readyz")).status == 200
        assert (await ask(app, "/metrics")).status == 401


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:80", "10.0.0.1:8000", "", "["),
        *("127.0.0.1:80@evil.example", "127.0.0.1/evil.example", "localhost:80:80"),
    ],
)
async def test_a_foreign_host_name_is_rejected(web: Served, host: str) -> None:
    answered = await ask(web.app, "/", host=host)
    assert answered.status in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "LocalHost:1", "127.0.0.1", "[::1]:80", "[::1]"])
async def test_local_host_names_are_accepted(web: Served, host: str) -> None:
    assert (await ask(web.app, "/", host=host)).status == 200


async def test_a_host_name_in_the_settings_is_accepted(models: Path) -> None:
    app = App(settings(models, http="127.0.0.1:0", http_hosts=("vision.example",)))
    async with served_by(app):
        assert (await ask(app, "/", host="vision.example")).status == 200
        assert (await ask(app, "/", host="Vision.Example:8000")).status == 200


@pytest.mark.parametrize("header", ["connect_timeout_ms", "grpc_timeout"])
@pytest.mark.parametrize("timeout", ["soon", "-1", "9" * 4000, "1e3", ""])
async def test_an_invalid_timeout_is_rejected_briefly(
    web: Served, header: str, timeout: str
) -> None:
    answered = await call(web.app, "ListModels", {}, **{header: timeout})
    assert answered.status == 400
    assert len(answered.body) < 512


@pytest.mark.parametrize(
    ("header", "timeout"), [("connect_timeout_ms", "5S"), ("grpc_timeout", "5")]
)
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (f"{RPC}ListModels", "application/json"),
        (f"{RPC}Classify", "multipart/form-data; boundary=b"),
        ("/v2/models/colors/infer", "application/json"),
    ],
)
async def test_a_timeout_in_the_form_of_the_other_header_is_rejected(
    web: Served, path: str, kind: str, header: str, timeout: str
) -> None:
    answered = await ask(web.app, path, b"{}", content_type=kind, **{header: timeout})
    assert answered.status == 400
    assert b"invalid timeout" in answered.body


@pytest.mark.parametrize("body", [b"null", b"[]", b"1", b'"text"', b"true", b" "])
async def test_json_other_than_an_object_is_rejected(web: Served, body: bytes) -> None:
    answered = await ask(web.app, f"{RPC}ListModels", body, **JSON)
    assert answered.status == 400
    assert b"must be an object" in answered.body


async def test_only_pages_of_configured_origins_may_call(models: Path) -> None:
    app = App(settings(models, http="127.0.0.1:0", cors_origins=("https://good.example",)))
    async with served_by(app):
        for origin, allowed in (("https://good.example", True), ("https://evil.example", False)):
            answered = await call(app, "ListModels", {}, origin=origin)
            assert ("access-control-allow-origin" in answered.headers) is allowed


async def test_by_default_no_other_origin_may_call(web: Served) -> None:
    answered = await call(web.app, "ListModels", {}, origin="https://good.example")
    assert "access-control-allow-origin" not in answered.headers


@pytest.mark.parametrize("path", ["/", "/livez", "/metrics", "/nothing", f"{RPC}ListModels"])
async def test_every_response_has_security_headers(web: Served, path: str) -> None:
    headers = (await ask(web.app, path)).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert len(headers["x-request-id"]) == 32
    assert "server" not in headers


async def test_only_the_page_s_files_are_served(web: Served) -> None:
    for path in ("/../pyproject.toml", "/%2e%2e/%2e%2e/pyproject.toml", "//etc/passwd"):
        assert (await ask(web.app, path)).status == 404


async def test_readiness_depends_on_models(models: Path) -> None:
    app = App(settings(models, http="127.0.0.1:0"))
    async with served_by(app):
        assert (await ask(app, "/readyz")).status == 200
        app._models._repository = None
        assert (await ask(app, "/readyz")).status == 503
        assert (await ask(app, "/livez")).status == 200
        answered = await call(app, "Classify", CLASSIFY)
        assert (answered.status, answered.json["code"]) == (503, "unavailable")


async def test_metrics_count_calls_and_stages_of_all_listeners(web: Served) -> None:
    request = pb.ClassifyRequest(model="colors", image=image())
    await web.stub.Classify(request)
    await call(web.app, "Classify", CLASSIFY)
    await call(web.app, "Classify", {**CLASSIFY, "topK": 0})
    await call(web.app, "Secret", CLASSIFY)
    text = (await ask(web.app, "/metrics")).body.decode()
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }

    def calls(door: str, code: str) -> float | None:
        labels = (("code", code), ("door", door), ("method", f"{RPC}Classify"))
        return samples.get(("visavis_calls_total", *labels))

    assert calls("grpc", "OK") == calls("http", "OK") == calls("http", "INVALID_ARGUMENT") == 1
    assert "Secret" not in text
    stage = (("model", "colors"), ("stage", "inference"), ("version", "2"))
    assert samples["visavis_stage_seconds_count", *stage] == 2
    assert samples["visavis_stage_seconds_sum", *stage] > 0
    of_http = (("door", "http"), ("le", "+Inf"), ("method", f"{RPC}Classify"))
    assert samples["visavis_call_seconds_bucket", *of_http] == 2


async def test_stopping_lets_calls_in_flight_finish(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(settings(models, http="127.0.0.1:0", cores=1))
    async with served_by(app):
        blocked = Blocked(monkeypatch)
        first = asyncio.create_task(call(app, "Classify", CLASSIFY))
        assert await asyncio.to_thread(blocked.began.wait, 10)
        stopping = asyncio.create_task(app.stop())
        while not app._calls.stopping:
            await asyncio.sleep(0)
        assert (await call(app, "Classify", CLASSIFY)).status == 503
        assert (await ask(app, "/readyz")).status == 503
        blocked.may_end.set()
        assert (await first).status == 200
        await stopping


@SERVES_HTTP_WITH_TLS
async def test_certificates_are_reloaded_when_they_change(
    models: Path, authority: Authority
) -> None:
    app = with_tls(models, authority, http="127.0.0.1:0")
    async with served_by(app):
        assert (await ask(app, "/livez", tls=authority.context())).status == 200
        authority.ca = trustme.CA()
        authority.root = authority.ca.cert_pem.bytes()
        authority.issue()
        look_again(app)
        assert (await ask(app, "/livez", tls=authority.context())).status == 200
        authority.key.write_text("half of a key")
        look_again(app)
        assert (await ask(app, "/livez", tls=authority.context())).status == 200
        assert await stalled(app, b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n") == b""


@SERVES_HTTP_WITH_TLS
async def test_mutual_tls_accepts_only_trusted_clients(models: Path, authority: Authority) -> None:
    app = with_tls(models, authority, tls_client_ca=authority.client_ca, http="127.0.0.1:0")
    async with served_by(app):
        known = authority.context(client=True)
        assert (await ask(app, "/livez", tls=known)).status == 200
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask(app, "/livez", tls=authority.context())
        # After the CA has changed, the old client is not trusted any more.
        authority.client_ca.write_bytes(trustme.CA().cert_pem.bytes())
        look_again(app)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask(app, "/livez", tls=authority.context(client=True))


@SERVES_HTTP_WITH_TLS
async def test_a_client_without_tls_is_disconnected(models: Path, authority: Authority) -> None:
    app = with_tls(models, authority, http="127.0.0.1:0", handshake_timeout_s=0.2)
    async with served_by(app):
        assert await stalled(app, b"") == b""


@SERVES_HTTP_WITH_TLS
async def test_failed_handshakes_free_their_connections(models: Path, authority: Authority) -> None:
    limits: dict[str, Any] = {"max_connections": 2, "handshake_timeout_s": 0.5}
    app = with_tls(models, authority, http="127.0.0.1:0", **limits)
    async with served_by(app):
        for data in (b"", b"this is no TLS\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"):
            assert await stalled(app, data) == b""
        assert (await ask(app, "/livez", tls=authority.context())).status == 200


@SERVES_HTTP_WITH_TLS
async def test_silent_connections_take_little_memory(models: Path, authority: Authority) -> None:
    count = 100
    app = with_tls(models, authority, http="127.0.0.1:0")
    async with served_by(app):
        assert app.http_address
        host, _, port = app.http_address.rpartition(":")
        tracemalloc.start()
        try:
            silent = [socket.create_connection((host, int(port))) for _ in range(count)]
            assert (await ask(app, "/livez", tls=authority.context())).status == 200
            assert tracemalloc.get_traced_memory()[0] < count * (100 << 10)
        finally:
            tracemalloc.stop()
        for each in silent:
            each.close()


async def test_connections_over_the_limit_are_closed_until_there_is_room(
    models: Path,
) -> None:
    app = App(settings(models, http="127.0.0.1:0", max_connections=2))
    async with served_by(app):
        assert app.http_address
        host, _, port = app.http_address.rpartition(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        with suppress(ConnectionError):
            assert await stalled(app, b"") == b""
        for _, writer in silent:
            writer.close()
        async with asyncio.timeout(10):
            while await stalled(app, LIVEZ) == b"":
                await asyncio.sleep(0.01)


async def test_a_port_in_use_prevents_the_start(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartupError, match=f"can't serve HTTP on {address}.*--http"):
            App(settings(models, http=address))


async def test_malformed_http_is_answered_and_not_logged(
    web: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert (await stalled(web.app, b"\x16\x03\x01 hello\r\n\r\n")).startswith(b"HTTP/1.1 400")
    seen = capsys.readouterr()
    assert "Invalid" not in seen.out + seen.err


async def conversation(app: App, data: bytes) -> bytes:
    """Return everything received until the connection is closed."""
    assert app.http_address
    host, _, port = app.http_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    answered = b""
    with suppress(ConnectionError):
        while came := await asyncio.wait_for(reader.read(65536), 10):
            answered += came
    writer.close()
    return answered


LISTING = (
    f"POST {RPC}ListModels HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
).encode()
LIVEZ = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
CHUNKS = b"2\r\n{}\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        LISTING + CHUNKED + b"content-length: 2\r\n\r\n" + CHUNKS,
        LISTING + b"Content-Length: 12\r\n" + CHUNKED + b"\r\n" + CHUNKS,
        LISTING + b"content-length: 0\r\nTRANSFER-ENCODING: Chunked\r\n\r\n" + CHUNKS,
        LIVEZ[:-2] + CHUNKED + b"content-length: 0\r\n\r\n0\r\n\r\n",
        LISTING.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n" + CHUNKS,
        LISTING + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        LISTING + b"content-length: 2, 3\r\n\r\n{}",
        LISTING + b"content-length: +2\r\n\r\n{}",
        LISTING + b"content-length: 0x2\r\n\r\n{}",
        LISTING + b"content-length: -1\r\n\r\n{}",
        LISTING + b"content-length: 99999999999999999999999\r\n\r\n{}",
        LISTING + b"transfer-encoding: chunked, identity\r\n\r\n" + CHUNKS,
        LISTING + b"transfer-encoding: xchunked\r\n\r\n" + CHUNKS,
        LISTING + CHUNKED * 2 + b"\r\n" + CHUNKS,
        LISTING + b"transfer-encoding : chunked\r\n\r\n" + CHUNKS,
        LISTING + b"x: y\rcontent-length: 2\r\n\r\n{}",
        LISTING + CHUNKED + b"\r\n2;a\nb\r\n{}\r\n0\r\n\r\n",
        LISTING + CHUNKED + b"\r\n2\n{}\n0\n\n",
        LISTING + CHUNKED + b"\r\n0x2\r\n{}\r\n0\r\n\r\n",
        LISTING + CHUNKED + b"\r\n2\r\n{}xx0\r\n\r\n",
    ],
)
async def test_a_request_with_an_ambiguous_end_is_the_last_of_its_connection(
    web: Served, request_: bytes
) -> None:
    answered = await conversation(web.app, request_ + LIVEZ)
    assert answered.startswith(b"HTTP/1.1 400")
    assert answered.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "request_",
    [
        LISTING + CHUNKED + b"\r\n2;a=b\r\n{}\r\n0\r\ncontent-length: 9\r\n\r\n",
        LISTING + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
        LISTING + b"content-length:\r\n 2\r\n\r\n{}",
        (LISTING + b"content-length: 2\r\n\r\n{}").replace(b"\r\n", b"\n"),
    ],
)
async def test_lenient_requests_of_rfc_9112_are_accepted(web: Served, request_: bytes) -> None:
    answered = await conversation(web.app, request_ + LIVEZ)
    assert answered.count(b"HTTP/1.1 200") == 2
    assert answered.endswith(b"ok\n")


@pytest.mark.parametrize("size", [b"ffffffffffffffff", b"f" * 20])
async def test_a_chunk_of_any_size_is_read_up_to_the_limit(models: Path, size: bytes) -> None:
    app = App(settings(models, http="127.0.0.1:0", max_message_bytes=1000))
    async with served_by(app):
        request = LISTING + CHUNKED + b"\r\n" + size + b"\r\n" + b"x" * 2000
        answered = await conversation(app, request + LIVEZ)
        assert answered.startswith(b"HTTP/1.1 400")
        assert answered.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("path", [f"{RPC}ListModels", "/livez"])
async def test_requests_in_chunks_of_one_byte_are_answered_one_after_another(
    web: Served, path: str
) -> None:
    head = LISTING.replace(f"{RPC}ListModels".encode(), path.encode()) + CHUNKED + b"\r\n"
    body = b"{" + b" " * 1000 + b"}"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    answered = await conversation(web.app, 3 * (head + chunks) + LIVEZ)
    statuses = re.findall(rb"HTTP/1.1 (\d+)", answered)
    assert statuses == [b"405" if path == "/livez" else b"200"] * 3 + [b"200"]
    assert answered.endswith(b"ok\n")


async def test_without_its_packages_the_error_names_the_extra(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for module in (
        "visavis_server.transport.http.listener",
        "visavis_server.transport.http.server",
    ):
        monkeypatch.delitem(sys.modules, module, raising=False)
    for setting in ("http", "metrics"):
        wanted = rf"--{setting} needs uvicorn: pip install 'visavis-server\[http\]'"
        with pytest.raises(StartupError, match=wanted):
            App(settings(models, **{setting: "127.0.0.1:0"}))


def test_a_public_address_takes_tls_and_authentication(models: Path) -> None:
    with pytest.raises(ValueError, match=r"0\.0\.0\.0:8000 is a public address"):
        settings(models, http="0.0.0.0:8000")
    assert settings(models, http="0.0.0.0:8000", insecure=True).http


@pytest.mark.usefixtures("minimal_surroundings")
async def test_the_curl_lines_of_the_documents_work(models: Path, tmp_path: Path) -> None:
    lines = [
        line
        for document in (README, DOCUMENT)
        for line in re.findall(r"^\$ (.*curl .*)$", document.read_text("utf-8"), re.MULTILINE)
    ]
    assert len(lines) == 6
    # Longer than the limit of a command-line argument.
    noise = Image.effect_noise((640, 640), 100).convert("RGB")
    noise.save(tmp_path / "street.jpg", quality=95)
    assert (tmp_path / "street.jpg").stat().st_size > 131_072
    async with served_by(App(settings(models, http="127.0.0.1:0"))) as served:
        here = {"127.0.0.1:8000": str(served.app.http_address), "yolov5n": "boxes"}
        here |= {"resnet50": "colors", "labels=person": "labels=cat", "labels=bus": "labels=dog"}
        for line in lines:
            for old, new in here.items():
                line = line.replace(old, new)
            done = await asyncio.create_subprocess_exec(
                "bash", "-c", line, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await done.communicate()
            answer = json.loads(out)
            assert {"detections", "classifications", "comparisons", "outputs"} & set(answer), line
            if "Detect" in line:
                assert [found["label"] for found in answer["detections"]] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("method", "body", "content_type", "status", "why"),
    [
        ("Nope", b"{}", "application/json", 404, "no such method; its methods are Classify, D"),
        ("Classify", b"{}", "text/plain", 415, "the content-type must be application/json or"),
        ("Classify", None, "application/json", 405, "require POST"),
    ],
)
async def test_an_invalid_call_is_explained(
    web: Served, method: str, body: bytes | None, content_type: str, status: int, why: str
) -> None:
    answered = await ask(web.app, RPC + method, body, content_type=content_type)
    assert answered.status == status
    assert answered.headers["content-type"].startswith("text/plain")
    assert why in answered.body.decode()


async def test_headers_that_are_not_utf_8_fail_no_call(web: Served) -> None:
    assert (await call(web.app, "ListModels", {}, x_note="\xff")).status == 200
    answered = await ask(web.app, f"{RPC}ListModels", b"{}", content_type="application/\xff")
    assert answered.status == 415


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"topK": "many"}, "topK: 'many' is not an integer"),
        ({"topK": 1.5}, "not an integer: 1.5 at ClassifyRequest.topK"),
        ({"modle": "colors"}, "ClassifyRequest has no field 'modle'; it has 'image', 'model',"),
        ({"image": {"url": "x"}}, "image: Image has no field 'url'; it has 'encoded', 'raw'"),
        ({"model": 5}, "model: it must be a string, not int"),
        ({"\ud800": 5}, "it is not JSON: a name in the JSON has a lone surrogate"),
    ],
)
async def test_an_invalid_field_of_json_is_named_and_explained(
    web: Served, changes: dict[str, Any], why: str
) -> None:
    answered = await call(web.app, "Classify", {**CLASSIFY, **changes})
    assert answered.status == 400
    assert why in answered.json["message"]


async def test_invalid_json_is_rejected_with_its_position(web: Served) -> None:
    answered = await ask(web.app, RPC + "Classify", b"{", **JSON)
    assert "it is not JSON: Expecting property name" in answered.json["message"]
