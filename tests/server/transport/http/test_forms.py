"""Forms: multipart/form-data for our RPCs, answered in JSON."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf import json_format
from google.protobuf.message import Message
from visavis.v1 import vision_pb2 as pb

from tests.surroundings import Surroundings
from visavis_server.app import App
from visavis_server.transport.tokens import NewToken

from ...pictures import RED, plain
from ...serving import Served, image, served_by, settings
from .test_listener import RPC, Answered, ask, call, without_timings

BOUNDARY = "form-of-the-tests"
KIND = f"multipart/form-data; boundary={BOUNDARY}"


@pytest_asyncio.fixture
async def web(models: Path) -> AsyncIterator[Served]:
    async with served_by(App(settings(models, http="127.0.0.1:0"))) as served:
        yield served


def part(name: str, value: str | bytes, more: str = "") -> bytes:
    contents = value.encode() if isinstance(value, str) else value
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + contents + b"\r\n"


def form(*fields: tuple[str, str | bytes], end: bytes = f"--{BOUNDARY}--\r\n".encode()) -> bytes:
    """Return a form; bytes are files."""
    return (
        b"".join(
            part(name, value, '; filename="a.png"' if isinstance(value, bytes) else "")
            for name, value in fields
        )
        + end
    )


PICTURE = ("image", plain(RED))


async def post(served: Served, method: str, body: bytes, **headers: str) -> Answered:
    return await ask(served.app, RPC + method, body, **{"content_type": KIND, **headers})


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (pb.ClassifyRequest(model="colors", top_k=2), [("model", "colors"), ("topK", "2")]),
        (pb.ClassifyRequest(model="colors", version=1), [("model", "colors"), ("version", "1")]),
        (pb.ClassifyRequest(model="colors", top_k=1), [("top_k", "1"), ("model", "colors")]),
        (
            pb.DetectRequest(model="boxes", score_threshold=0.5, labels=["cat", "dog"]),
            [("model", "boxes"), ("scoreThreshold", "0.5"), ("labels", "cat"), ("labels", "dog")],
        ),
        (
            pb.DetectRequest(model="boxes", annotate=True, class_agnostic=True),
            [("model", "boxes"), ("annotate", "true"), ("classAgnostic", "1")],
        ),
        (
            pb.CompareRequest(models=["boxes", "pets"], tasks=["TASK_OBJECT_DETECTION"]),
            [("models", "boxes"), ("models", "pets"), ("tasks", "TASK_OBJECT_DETECTION")],
        ),
        (
            pb.CompareRequest(models=["boxes", "pets"], explain=pb.Explain(label="cat")),
            [("models", "boxes"), ("models", "pets"), ("explain", "cat")],
        ),
        (
            pb.CompareRequest(models=["boxes"], explain=pb.Explain()),
            [("models", "boxes"), ("explain", "")],
        ),
    ],
)
async def test_a_form_gets_what_grpc_gets(
    web: Served, request_: Message, fields: list[tuple[str, str]]
) -> None:
    method = request_.DESCRIPTOR.name.removesuffix("Request")
    request_.image.CopyFrom(image())  # type: ignore[attr-defined]
    over_grpc = await getattr(web.stub, method)(request_)
    answered = await post(web, method, form(*fields, PICTURE))
    assert answered.status == 200, answered.body
    assert answered.headers["content-type"] == "application/json"
    over_http = json_format.ParseDict(answered.json, type(over_grpc)())
    assert without_timings(over_http) == without_timings(over_grpc)


async def test_a_form_without_a_picture_lists_a_model(web: Served) -> None:
    answered = await post(web, "GetModel", form(("model", "colors")))
    assert answered.json["model"]["name"] == "colors"


@pytest.mark.usefixtures("minimal_surroundings")
async def test_curl_sends_a_picture(web: Served, tmp_path: Path) -> None:
    (tmp_path / "street.png").write_bytes(plain(RED))
    found = Surroundings.under(tmp_path / "curl")
    url = f"http://{web.app.http_address}{RPC}Detect"
    fields = ("image=@street.png", "model=boxes", "scoreThreshold=0.85", "labels=cat")
    command = [part for field in fields for part in ("-F", field)]
    ran = await asyncio.create_subprocess_exec(
        *("curl", "-sS", *command, url),
        cwd=tmp_path,
        env=found.environment(),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await ran.communicate()
    assert [found["label"] for found in json.loads(out)["detections"]] == ["cat"]


HEADER = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=model\r\n"


INVALID: list[tuple[bytes, str]] = [
    (form(("model", "colors")), "image"),
    (form(PICTURE), "the request names no model"),
    (form(PICTURE, PICTURE, ("model", "colors")), "the field image more than once"),
    (form(PICTURE, ("model", "colors"), ("model", "x")), "the field model more than once"),
    (form(PICTURE, ("topK", "1"), ("top_k", "2")), "the field topK more than once"),
    (form(PICTURE, ("modle", "colors")), "a field 'modle'; it takes annotate, explain, image,"),
    (form(PICTURE, ("", "colors")), "a field ''; it takes annotate"),
    (form(PICTURE, ("topK", "many")), "topK: 'many' is not an integer"),
    (form(PICTURE, ("topK", "1.5")), "topK"),
    (form(PICTURE, ("topK", "9" * 5000)), "topK"),
    (form(PICTURE, ("annotate", "perhaps")), "annotate is 'perhaps'; it must be true or false"),
    (form(PICTURE, ("model", b"\xff")), "the request is not a message"),
    (form(PICTURE, ("model", "a" * (1 << 20)), ("version", "11")), "bytes of text"),
    (form(("image", "street.jpg"), ("model", "colors")), "with curl, write -F image=@FILE"),
    (form(PICTURE, ("model", "colors"), end=b""), "malformed: Unexpected end"),
    (form(PICTURE)[:-20], "malformed: Unexpected end"),
    (b"", "malformed"),
    (b"--" + b"x" * 1000, "malformed"),
    (HEADER.encode() + b"x: y\r\n" * 20 + b"\r\na\r\n", "malformed: Maximum segment header"),
    (HEADER.encode() + b"x: " + b"y" * 5000 + b"\r\n\r\na\r\n", "malformed: Maximum segment"),
    (HEADER.encode() + b"x: " + b"y" * (8 << 20), "malformed: Maximum segment header"),
    (HEADER.replace("form-data", "attachment").encode() + b"\r\na\r\n", "malformed: Invalid"),
    (HEADER.replace("name=model", 'name="' + "\\" * 900).encode() + b"\r\na\r\n", "malformed"),
]


async def test_an_invalid_form_is_explained(web: Served) -> None:
    for body, why in INVALID:
        answered = await post(web, "Classify", body)
        assert answered.status == 400, answered.body[:500]
        assert answered.json["code"] == "invalid_argument"
        assert why in answered.json["message"]


async def test_a_number_that_is_none_is_explained(web: Served) -> None:
    answered = await post(web, "Detect", form(PICTURE, ("scoreThreshold", "high")))
    assert answered.status == 400
    assert "not a number: high at DetectRequest.scoreThreshold" in answered.json["message"]


async def test_a_form_has_a_limited_number_of_parts(web: Served) -> None:
    answered = await post(web, "Detect", form(*[("labels", "cat")] * 5000, PICTURE))
    assert answered.status == 400
    assert "malformed: Maximum segment count exceeded" in answered.json["message"]


KINDS = [
    "multipart/form-data",
    "multipart/form-data; boundary=",
    'multipart/form-data; boundary="',
    "multipart/form-data; boundary=" + "a" * 71 + ";",
    "multipart/form-data; boundary=\\\\",
    'multipart/form-data; boundary="' + "\\" * 5000,
]


async def test_a_form_without_a_boundary_is_explained(web: Served) -> None:
    for kind in KINDS:
        answered = await post(web, "Classify", form(PICTURE), content_type=kind)
        assert answered.status == 400
        assert "no boundary" in answered.json["message"] or "malformed" in answered.json["message"]


async def test_a_quoted_boundary_is_accepted(web: Served) -> None:
    kind = f'Multipart/Form-Data; charset=utf-8; Boundary="{BOUNDARY}"'
    answered = await post(web, "Classify", form(PICTURE, ("model", "colors")), content_type=kind)
    assert answered.status == 200


async def test_a_stream_takes_no_form(web: Served) -> None:
    answered = await post(web, "CompareStream", form(PICTURE))
    assert answered.status == 415


ORIGINS: list[tuple[dict[str, Any], int]] = [
    ({"origin": "https://evil.example"}, 403),
    ({"origin": "null"}, 403),
    ({"origin": "https://evil.example", "sec_fetch_site": "cross-site"}, 403),
    ({"sec_fetch_site": "cross-site"}, 403),
    ({"sec_fetch_site": "same-origin", "origin": "https://behind.a.proxy"}, 200),
    ({"sec_fetch_site": "none"}, 200),
    ({}, 200),
]


async def test_a_page_of_another_origin_may_send_no_form(web: Served) -> None:
    """A browser sends a form without asking, unlike JSON."""
    for headers, status in ORIGINS:
        answered = await post(web, "Classify", form(PICTURE, ("model", "colors")), **headers)
        assert answered.status == status
        if status == 403:
            assert "cors_origins" in answered.json["message"]


async def test_a_page_of_a_listed_origin_may_send_a_form(models: Path) -> None:
    app = App(settings(models, http="127.0.0.1:0", cors_origins=("https://good.example",)))
    async with served_by(app) as served:
        body = form(PICTURE, ("model", "colors"))
        answered = await post(
            served, "Classify", body, origin="https://good.example", sec_fetch_site="cross-site"
        )
        assert answered.status == 200
        assert answered.headers["access-control-allow-origin"] == "https://good.example"


async def test_a_form_needs_a_token_and_a_known_host(
    models: Path, tokens: Path, token: NewToken
) -> None:
    app = App(settings(models, http="127.0.0.1:0", tokens=tokens))
    async with served_by(app) as served:
        body = form(PICTURE, ("model", "colors"))
        assert (await post(served, "Classify", body)).status == 401
        bearer = f"Bearer {token.token}"
        assert (await post(served, "Classify", body, authorization=bearer)).status == 200
        other = await post(served, "Classify", body, authorization=bearer, host="evil.example")
        assert other.status == 403


async def test_a_form_over_the_limit_is_rejected(models: Path) -> None:
    app = App(settings(models, http="127.0.0.1:0", max_message_bytes=1000))
    async with served_by(app) as served:
        answered = await post(served, "Classify", form(("image", b"x" * 2000)))
        assert answered.status == 400
        assert "larger than 1000 bytes" in answered.json["message"]
        assert (await call(served.app, "ListModels", {})).status == 200


async def test_a_form_is_counted_in_the_metrics(web: Served) -> None:
    await post(web, "Classify", form(PICTURE, ("model", "colors")))
    text = (await ask(web.app, "/metrics")).body.decode()
    counted = f'visavis_calls_total{{code="OK",door="http",method="{RPC}Classify"}} 1.0'
    assert counted in text
