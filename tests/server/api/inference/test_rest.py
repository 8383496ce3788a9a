"""The Open Inference Protocol over HTTP; tests/triton and tests/kserve have others' clients."""

import asyncio
import json
import struct
from base64 import b64encode
from collections.abc import AsyncIterator
from http.client import HTTPConnection
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from visavis_server.api.inference import grpc_service_pb2 as pb
from visavis_server.api.inference.rest.request import Asked
from visavis_server.api.inference.rest.response import write
from visavis_server.api.inference.tensors import Request
from visavis_server.app import App
from visavis_server.card import LabelSet
from visavis_server.errors import InvalidRequest
from visavis_server.transport.intake import CALL_BYTES
from visavis_server.transport.tokens import NewToken

from ... import graphs
from ...pictures import BLUE, GREEN, RED, plain
from ...serving import Served, served_by, settings
from ...test_app import Blocked
from ...transport.http.test_listener import Answered, ask, conversation
from .test_service import Stub, outputs, request_of, tensor_of

IMAGE = {"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES"}
RED_PICTURE = b64encode(plain(RED)).decode()
SIZE = "Inference-Header-Content-Length"
Json = dict[str, Any]


@pytest_asyncio.fixture
async def web(models: Path) -> AsyncIterator[Served]:
    async with served_by(App(settings(models, http="127.0.0.1:0"))) as served:
        yield served


def tensor(array: Any, **more: Any) -> Json:
    """Return an input with its numbers in JSON."""
    shape = list(np.shape(array))
    given = {"name": "images", "shape": shape, "datatype": "FP32"}
    return {**given, "data": np.asarray(array).tolist(), **more}


async def infer(served: Served, model: str, body: Json | bytes, **headers: str) -> Answered:
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    return await ask(served.app, f"/v2/models/{model}/infer", data, **headers)


async def error(served: Served, model: str, body: Json | bytes, **headers: str) -> str:
    """Return why a request is rejected with 400."""
    answered = await infer(served, model, body, **headers)
    assert answered.status == 400, answered.body[:500]
    assert list(answered.json) == ["error"]
    assert "internal" not in answered.json["error"]
    return str(answered.json["error"])


async def test_numbers_in_json_get_what_grpc_gets(web: Served) -> None:
    batch = np.concatenate([tensor_of(color) for color in (RED, GREEN, BLUE)])
    over_grpc = await Stub(web.channel).ModelInfer(request_of("colors", "images", batch))
    for data in (batch.tolist(), batch.ravel().tolist(), batch.reshape(3, -1).tolist()):
        asked = {"id": "mine", "inputs": [{**tensor(batch), "data": data}]}
        answered = await infer(web, "colors", asked)
        assert answered.headers["content-type"] == "application/json"
        (logits,) = answered.json["outputs"]
        assert answered.json["model_name"] == "colors"
        assert answered.json["model_version"] == "2"
        assert answered.json["id"] == "mine"
        assert (logits["name"], logits["datatype"], logits["shape"]) == ("logits", "FP32", [3, 3])
        np.testing.assert_array_equal(
            np.array(logits["data"], np.float32).reshape(3, 3), outputs(over_grpc)["logits"]
        )


async def test_a_version_in_the_path_answers(web: Served) -> None:
    asked = {"inputs": [tensor(tensor_of(RED))]}
    answered = await infer(web, "colors/versions/1", asked)
    assert answered.json["model_version"] == "1"
    np.testing.assert_allclose(answered.json["outputs"][0]["data"], [10, 0, 0], atol=1e-5)


async def test_binary_tensors_follow_the_json_in_both_directions(web: Served) -> None:
    batch = np.concatenate([tensor_of(RED), tensor_of(BLUE)])
    given = {"name": "images", "shape": list(batch.shape), "datatype": "FP32"}
    asked = json.dumps(
        {
            "inputs": [{**given, "parameters": {"binary_data_size": batch.nbytes}}],
            "outputs": [{"name": "logits", "parameters": {"binary_data": True}}],
        }
    ).encode()
    headers = {SIZE: str(len(asked))}
    answered = await infer(web, "colors", asked + batch.tobytes(), **headers)
    assert answered.status == 200, answered.body
    size = int(answered.headers[SIZE.lower()])
    (output,) = json.loads(answered.body[:size])["outputs"]
    assert output["parameters"] == {"binary_data_size": 24}
    assert "data" not in output
    logits = np.frombuffer(answered.body[size:], np.float32).reshape(output["shape"])
    np.testing.assert_allclose(logits, [[20, 0, 0], [0, 0, 20]], atol=1e-4)


async def test_all_outputs_are_binary_if_the_request_says_so(web: Served) -> None:
    asked = {
        "parameters": {"binary_data_output": True},
        "inputs": [{**IMAGE, "data": [RED_PICTURE]}],
        "outputs": [
            {"name": "labels"},
            {"name": "scores", "parameters": {"binary_data": False}},
        ],
    }
    answered = await infer(web, "colors_image", asked)
    size = int(answered.headers[SIZE.lower()])
    labels, scores = json.loads(answered.body[:size])["outputs"]
    assert scores["data"][0] == pytest.approx(1, abs=1e-3)
    raw = answered.body[size:]
    assert labels["parameters"]["binary_data_size"] == len(raw)
    (length,) = struct.unpack_from("<I", raw)
    assert raw[4 : 4 + length] == b"red"


async def test_pictures_in_base64_get_labels_and_boxes(web: Served) -> None:
    asked = {
        "inputs": [{**IMAGE, "shape": [2, 1], "data": [[RED_PICTURE], [RED_PICTURE]]}],
        "parameters": {"score_threshold": "0.85", "class_agnostic": False},
    }
    found = {o["name"]: o for o in (await infer(web, "boxes_image", asked)).json["outputs"]}
    assert found["labels"]["data"] == ["cat", "cat"]
    assert found["boxes"]["shape"] == [2, 1, 4]
    assert found["boxes"]["data"][:4] == pytest.approx([10, 10, 30, 30])
    assert found["counts"]["data"] == [1, 1]


async def test_a_large_picture_in_base64_is_read(web: Served) -> None:
    picture = plain(RED) + bytes(100_000)  # after the end of a PNG
    asked = {"inputs": [{**IMAGE, "data": [b64encode(picture).decode().replace("/", "\\/")]}]}
    body = json.dumps(asked).replace("\\\\/", "\\/").encode()
    answered = await infer(web, "colors_image", body)
    assert answered.status == 200, answered.body
    assert answered.json["outputs"][0]["data"][0] == "red"


async def test_a_body_that_is_one_picture_needs_no_json(web: Served) -> None:
    answered = await infer(web, "colors_image", plain(BLUE), **{SIZE: "0"})
    assert answered.json["outputs"][0]["data"][0] == "blue"
    numbers = await infer(web, "colors", tensor_of(BLUE).tobytes() * 2, **{SIZE: "0"})
    np.testing.assert_allclose(numbers.json["outputs"][0]["data"], [0, 0, 20] * 2, atol=1e-4)
    assert "takes 768 for each picture" in await error(web, "colors", b"abc", **{SIZE: "0"})


async def test_the_best_labels_come_as_triton_s_classification(web: Served) -> None:
    asked = {
        "inputs": [tensor(tensor_of(GREEN))],
        "outputs": [{"name": "logits", "parameters": {"classification": 2}}],
    }
    (output,) = (await infer(web, "colors", asked)).json["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, 2])
    assert output["data"][0].split(":")[1:] == ["1", "green"]


async def test_other_paths_say_what_grpc_says(web: Served) -> None:
    triton = Stub(web.channel)
    about = (await ask(web.app, "/v2")).json
    assert about == (await ask(web.app, "/v2/")).json
    assert about["name"] == "visavis" and "binary_tensor_data" in about["extensions"]
    for path in ("colors", "colors/versions/2"):
        metadata = (await ask(web.app, f"/v2/models/{path}")).json
        assert metadata["versions"] == ["1", "2"]
        wanted = [{"name": "images", "datatype": "FP32", "shape": [-1, 3, 8, 8]}]
        assert metadata["inputs"] == wanted
    config = (await ask(web.app, "/v2/models/boxes_image/config")).json
    over_grpc = (await triton.ModelConfig(pb.ModelConfigRequest(name="boxes_image"))).config
    assert config["max_batch_size"] == over_grpc.max_batch_size == 16
    wanted = {"name": "IMAGE", "data_type": "TYPE_STRING", "format": "FORMAT_NONE", "dims": [1]}
    assert config["input"] == [wanted]
    assert config["parameters"]["metadata"]["string_value"].startswith("{'task': 'detect'")
    index = (await ask(web.app, "/v2/repository/index", b"")).json
    over_grpc = await triton.RepositoryIndex(pb.RepositoryIndexRequest())
    assert index == [
        {"name": m.name, "version": m.version, "state": m.state, "reason": m.reason}
        for m in over_grpc.models
    ]
    await infer(web, "boxes", {"inputs": [tensor(np.zeros((1, 3, 64, 64)))]})
    for path in ("/v2/models/boxes/stats", "/v2/models/boxes/versions/1/stats", "/v2/models/stats"):
        stats = (await ask(web.app, path)).json["model_stats"]
        (of_boxes,) = [each for each in stats if each["name"] == "boxes"]
        assert of_boxes["inference_count"] == 1
        assert of_boxes["inference_stats"]["success"]["count"] == 1


async def test_health_and_readiness(web: Served) -> None:
    for path, body in (
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/colors/ready", {"name": "colors", "ready": True}),
        ("/v2/models/colors_image/versions/1/ready", {"name": "colors_image", "ready": True}),
    ):
        answered = await ask(web.app, path)
        assert (answered.status, answered.json) == (200, body)
    for path, status in (("nobody", 404), ("colors/versions/9", 404), ("colors/versions/x", 400)):
        answered = await ask(web.app, f"/v2/models/{path}/ready")
        assert answered.status == status
        assert answered.json["error"]
    web.app._models._repository = None
    for path in ("/v2/health/ready", "/v2/models/colors/ready"):
        assert (await ask(web.app, path)).status == 503


async def test_models_are_loaded_and_unloaded_only_with_admin(models: Path) -> None:
    unload, load = (f"/v2/repository/models/guess/{what}" for what in ("unload", "load"))
    async with served_by(App(settings(models, http="127.0.0.1:0"))) as served:
        answered = await ask(served.app, unload, b"{}")
        assert answered.status == 403
        assert "setting admin" in answered.json["error"]
    async with served_by(App(settings(models, http="127.0.0.1:0", admin=True))) as served:
        parameters = b'{"parameters":{"unload_dependents":false}}'
        assert (await ask(served.app, unload, parameters)).status == 200
        assert (await ask(served.app, "/v2/models/guess/ready")).status == 404
        config = await ask(served.app, load, b'{"parameters":{"config":"{}"}}')
        assert config.status == 400
        assert (await ask(served.app, load, b"")).status == 200
        assert (await ask(served.app, "/v2/models/guess/ready")).status == 200


UNSUPPORTED = [
    ("/v2/trace/setting", "trace settings are not supported; "),
    ("/v2/models/colors/trace/setting", "trace settings are not supported; "),
    ("/v2/logging", "log settings are not supported; "),
    ("/v2/systemsharedmemory/status", "shared memory is not supported: "),
    ("/v2/systemsharedmemory/region/a/register", "shared memory is not supported: "),
    ("/v2/cudasharedmemory/region/a/unregister", "shared memory is not supported: "),
]


async def test_what_is_not_supported_names_the_alternative(web: Served) -> None:
    for (path, words), body in product(UNSUPPORTED, (None, b"{}")):
        answered = await ask(web.app, path, body)
        assert answered.status == 501
        assert answered.json["error"].startswith(words)


FLAT = [0.0] * 192


# What is wrong with an input, and what is said of it.
INPUTS: list[tuple[Json, str]] = [
    ({"data": [0.0] * 191}, "the shape has 192 elements; data has 191"),
    ({"data": [0.0] * 193}, "the shape has 192 elements; data has more"),
    ({"data": []}, "data has fewer"),
    ({"data": [1e308] * 192}, "out of range for FP32"),
    ({"data": [10**400] * 192}, "out of range for FP32"),
    ({"data": [True] * 192}, "data has True, which is not FP32"),
    ({"data": [None] * 192}, "data has None, which is not FP32"),
    ({"data": [{}] * 192}, "data has {}, which is not FP32"),
    ({"data": ["1"] * 192}, "needs a list of numbers as data"),
    ({"data": [float("nan")] * 192}, "NaN is no number in JSON; send it as binary data"),
    ({"data": [float("inf")] * 192}, "Infinity is no number in JSON"),
    ({"data": 5}, "needs a list of numbers as data"),
    ({"data": None}, "or the parameter binary_data_size"),
    ({"data": [[0.0] * 96, 0.0]}, "must be a list of numbers, or of lists"),
    ({"data": [[[[[[[[[0]]]]]]]]]}, "nested deeper than 8 lists"),
    ({"datatype": "INT8", "data": [128] * 192}, "out of range for INT8"),
    ({"datatype": "UINT64", "data": [-1] * 192}, "out of range for UINT64"),
    ({"datatype": "INT64", "data": [1.0] * 192}, "data has 1.0, which is not INT64"),
    ({"datatype": "BOOL", "data": [1] * 192}, "data has 1, which is not BOOL"),
    ({"datatype": "INT64", "data": [0] * 192}, "images is INT64; colors takes FP32"),
    ({"datatype": "FP99"}, "the datatype is 'FP99'; choose one of"),
    ({"datatype": 7}, "inputs[0].datatype is 7; it must be a string"),
    ({"datatype": "BYTES", "data": ["*"], "shape": [1]}, "is not base64"),
    ({"datatype": "BYTES", "data": [[7]], "shape": [1]}, "BYTES need a list of strings"),
    ({"datatype": "BYTES", "data": "abc", "shape": [1]}, "BYTES need a list of strings"),
    ({"shape": [2**62] * 8}, "data has fewer"),
    ({"shape": [1] * 9}, "the shape has 9 dimensions; the limit is 8"),
    ({"shape": [-1, 3, 8, 8]}, "it must be integers from 0 on"),
    ({"shape": [2**64]}, "it must be integers from 0 on"),
    ({"shape": [1.0, 3, 8, 8]}, "it must be integers from 0 on"),
    ({"shape": [True, 3, 8, 8]}, "it must be integers from 0 on"),
    ({"shape": "1,3,8,8"}, "inputs[0].shape is 1,3,8,8; it must be a list"),
    ({"name": "other"}, "takes exactly one, images"),
    ({"name": None}, "inputs[0].name is missing; it must be a string"),
    ({"parameters": [1]}, "inputs[0].parameters is [1]; it must be an object"),
    ({"parameters": {"a": [1]}}, "a is [1]; it must be a boolean, number or string"),
    ({"parameters": {"a": 2**64}}, "it must be a boolean, number or string"),
    ({"parameters": {"binary_data_size": 8}}, "either data or binary_data_size, not both"),
    ({"parameters": {"shared_memory_region": "a"}, "data": None}, "shared memory is not supp"),
]


async def test_an_invalid_input_is_explained(web: Served) -> None:
    right = {"name": "images", "datatype": "FP32", "shape": [1, 3, 8, 8], "data": FLAT}
    for change, why in INPUTS:
        given = {k: v for k, v in {**right, **change}.items() if v is not None}
        assert why in await error(web, "colors", {"inputs": [given]})


INPUT = json.dumps({**tensor(np.zeros((1, 3, 8, 8)))})


# A request that is wrong, and what is said of it.
REQUESTS: list[tuple[bytes, str]] = [
    (b"", "must be an object"),
    (b"[]", "must be an object"),
    (b"{", "the request is not JSON: "),
    (b"\xff", "must be an object"),
    (b'{"inputs":' + b"[" * 2000, "the request is not JSON: "),
    (b'{"inputs":' + b'{"a":' * 2000, "the request is not JSON: "),
    (b'{"a":' + b"[" * 100_000, "bytes of brackets, commas and numbers"),
    (b'{"inputs":[{"data":' + b"[" * 100_000, "nested deeper than 8 lists"),
    (b'{"data":[' + b"[1]," * 100_000 + b"[1]]}", "more than 16384 lists; send it flat"),
    (b'{"inputs":[],"x":{"data":[1' + b" " * 100_000 + b"]}}", "only inputs may have an array"),
    (b'{"data":[[1],' + b" " * 2000 + b"[1]]}", "must be a list of numbers"),
    (b"{}", "inputs is missing; it must be a list"),
    (b'{"inputs":5}', "inputs is 5; it must be a list"),
    (b'{"inputs":[5]}', "inputs[0] is 5; it must be an object"),
    (b'{"inputs":[]}', "takes exactly one, images"),
    (b'{"id":5,"inputs":[]}', "id is 5; it must be a string"),
    (b'{"id":"\\ud800","inputs":[]}', "the request is not JSON: "),
    (f'{{"inputs":[{INPUT},{INPUT}]}}'.encode(), "the input 'images' is repeated"),
    (f'{{"inputs":[{INPUT}],"inputs":[]}}'.encode(), "repeats a name"),
    (f'{{"inputs":[{INPUT}],"outputs":[5]}}'.encode(), "outputs[0] is 5; it must be an obj"),
    (
        f'{{"inputs":[{INPUT}],"outputs":[{{"name":"x"}}]}}'.encode(),
        "no output is named 'x'; the outputs are logits",
    ),
    (
        f'{{"inputs":[{INPUT}],"parameters":{{"data":[1,2]}}}}'.encode(),
        "only inputs may have an array of numbers",
    ),
    (f'{{"inputs":[{INPUT}],"x":{{"data":[1]}}}}'.encode(), "only inputs may have an array"),
    (
        INPUT.replace("FP32", "F" * 100_000).join(('{"inputs":[', "]}")).encode(),
        "a string of 100000 bytes outside of an image",
    ),
    (
        f'{{"inputs":[{{"name":"images","shape":"{"1" * 100_000}"}}]}}'.encode(),
        "a string of 100000 bytes outside of an image",
    ),
    (
        f'{{"inputs":[{INPUT}],"outputs":[{{"name":{{"data":[1]}}}}]}}'.encode(),
        "only inputs may have an array",
    ),
    (
        f'{{"inputs":[{INPUT}],"outputs":[{{"name":"logits","parameters":'
        f'{{"binary_data":"maybe"}}}}]}}'.encode(),
        "binary_data is 'maybe'; it must be true or false",
    ),
    (INPUT.replace("0.0,", ",", 1).join(('{"inputs":[', "]}")).encode(), "not a list of numb"),
    (INPUT.replace("]]]]", ",]]]]").join(('{"inputs":[', "]}")).encode(), "not a list of num"),
    (INPUT.replace("0.0", "0x1", 1).join(('{"inputs":[', "]}")).encode(), "not a list of num"),
    (INPUT.replace("0.0", "01", 1).join(('{"inputs":[', "]}")).encode(), "not a list of num"),
    (
        INPUT.replace("0.0", "1" * 5000, 1).join(('{"inputs":[', "]}")).encode(),
        "not a list of numbers in JSON",
    ),
    (
        b'{"inputs":[{"name":"images","datatype":"FP32","shape":[1],"data":['
        + b"1" * 100_000
        + b"]}]}",
        "a number, or white space, of over 4096 bytes",
    ),
    (b'{"inputs":[' + b'{"name":""},' * 5000 + b"{}]}", "more than 16384 quotes"),
    (rb'{"inputs":"\ud800"}', r"inputs is \ud800; it must be a list"),
    (rb'{"inputs":[],"parameters":{"\ud800":1}}', "a name in the JSON has a lone surrogate"),
]


async def test_an_invalid_request_is_explained(web: Served) -> None:
    for body, why in REQUESTS:
        assert why in await error(web, "colors", body)


# A size in binary_data_size and in the header, and what is said of it.
SIZES: list[tuple[object, str | None, str]] = [
    (-1, None, "binary_data_size is -1; it must be an integer up to 768"),
    (769, None, "binary_data_size is 769; it must be an integer up to 768"),
    (2**64, None, "it must be a boolean, number or string"),
    (True, None, "binary_data_size is True"),
    ("768", None, "binary_data_size is 768; it must be an integer"),
    (1.5, None, "binary_data_size is 1.5"),
    (764, None, "the body has 4 bytes more than its JSON"),
    (0, None, "the body has 768 bytes more"),
    (768, "-1", "Inference-Header-Content-Length is -1; it must be one size"),
    (768, "+5", "it must be one size in bytes"),
    (768, "0x10", "it must be one size in bytes"),
    (768, "²", "it must be one size in bytes"),
    (768, "9" * 30, "it must be one size in bytes"),
    (768, "999999", "is 999999; the body has only"),
    (768, "10", "the request is not JSON"),
]


async def test_sizes_that_lie_are_explained(web: Served) -> None:
    given = {"name": "images", "datatype": "FP32", "shape": [1, 3, 8, 8]}
    for size, header, why in SIZES:
        of = {**given, "parameters": {"binary_data_size": size}}
        asked = json.dumps({"inputs": [of]}).encode()
        headers = {SIZE: (header or str(len(asked))).encode().decode("latin-1")}
        assert why in await error(web, "colors", asked + bytes(768), **headers)


async def test_compressed_requests_are_refused(web: Served) -> None:
    for encoding in ("gzip", "deflate", "br"):
        answered = await infer(web, "colors", b"\x1f\x8b", content_encoding=encoding)
        assert answered.status == 501
        assert "compressed" in answered.json["error"]


NO_PATHS = [
    "/v2/nothing",
    "/v2/models",
    "/v2/models//infer",
    "/v2/models/..%2f..%2fetc%2fpasswd/infer",
    "/v2/models/colors%2f1/infer",
    "/v2/health",
    "/v2/health/live/",
]


async def test_other_paths_are_not_found(web: Served) -> None:
    for path, body in product(NO_PATHS, (None, b"{}")):
        answered = await ask(web.app, path, body)
        assert answered.status == 404
        assert "docs/http.md" in answered.json["error"]


async def test_a_name_of_no_model_is_not_found(web: Served) -> None:
    for name in ("..", "%2e%2e", "..%5c..", "colors%00", "colors%0d%0ax:y", "%C3%A9"):
        answered = await infer(web, name, {"inputs": [tensor(tensor_of(RED))]})
        assert answered.status == 404
        assert "x" not in answered.headers
        assert answered.body.decode().isprintable()


async def test_other_methods_are_named(web: Served) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "GET", "HEAD"):
        answered = await conversation(
            web.app,
            f"{method} /v2/models/colors/infer HTTP/1.1\r\nhost: localhost\r\n"
            "connection: close\r\n\r\n".encode(),
        )
        assert answered.startswith(b"HTTP/1.1 405")
        assert b"allow: POST" in answered


async def test_chunked_bodies_are_received(web: Served) -> None:
    body = json.dumps({"inputs": [tensor(tensor_of(RED))]}).encode()

    def send() -> tuple[int, bytes]:
        assert web.app.http_address
        connection = HTTPConnection(web.app.http_address, timeout=10)
        pieces = (body[start : start + 100] for start in range(0, len(body), 100))
        connection.request("POST", "/v2/models/colors/infer", pieces)
        response = connection.getresponse()
        answered = response.status, response.read()
        connection.close()
        return answered

    status, answer = await asyncio.to_thread(send)
    assert status == 200
    assert json.loads(answer)["outputs"][0]["shape"] == [1, 3]


async def test_requests_need_a_token(models: Path, tokens: Path, token: NewToken) -> None:
    bearer = {"authorization": f"Bearer {token.token}"}
    for open_health, status in ((False, 401), (True, 200)):
        app = App(settings(models, http="127.0.0.1:0", tokens=tokens, open_health=open_health))
        async with served_by(app) as served:
            for path in ("/v2", "/v2/models/colors", "/v2/nothing"):
                answered = await ask(served.app, path)
                assert answered.status == 401
                assert "authentication required" in answered.json["error"]
                assert answered.headers["www-authenticate"] == "Bearer"
            assert (await ask(served.app, "/v2/health/ready")).status == status
            assert (await ask(served.app, "/v2/models/colors", **bearer)).status == 200
            rejected = await infer(served, "colors", {"inputs": []})
            assert rejected.status == 401


async def test_pages_of_other_origins_may_not_call(models: Path) -> None:
    """A browser sends such a request without asking: it has no content type that it asks for."""
    app = App(
        settings(models, http="127.0.0.1:0", admin=True, cors_origins=("https://good.example",))
    )
    unload = "/v2/repository/models/guess/unload"
    evil = {"origin": "https://evil.example"}
    async with served_by(app) as served:
        host = served.app.http_address
        for headers, status in (
            (evil, 403),
            ({"origin": "null"}, 403),
            ({**evil, "sec-fetch-site": "cross-site"}, 403),
            ({"sec-fetch-site": "same-site", "origin": f"http://{host}"}, 403),
            ({"origin": "https://good.example", "sec-fetch-site": "cross-site"}, 200),
            ({"origin": f"http://{host}"}, 200),
            ({"origin": "https://public.example", "sec-fetch-site": "same-origin"}, 200),
            ({}, 200),
        ):
            names = {name.replace("-", "_"): value for name, value in headers.items()}
            load = await ask(served.app, unload.replace("unload", "load"), b"")
            assert load.status == 200
            answered = await ask(served.app, unload, b"", **names)
            assert answered.status == status, headers
            ready = (await ask(served.app, "/v2/models/guess/ready")).status
            assert ready == (200 if status == 403 else 404)


async def test_names_that_resolve_to_this_machine_are_rejected(web: Served) -> None:
    answered = await ask(web.app, "/v2/models/colors", host="evil.example")
    assert answered.status == 403
    assert "http_hosts" in answered.json["error"]


async def test_an_answer_without_room_is_refused(tmp_path: Path) -> None:
    labels = LabelSet(name="many", labels=tuple(f"label {i}" for i in range(4000)))
    document = graphs.classifier_document(label_set=labels)
    many, _ = graphs.export(graphs.classifier_of(4000), document)
    graphs.put(tmp_path, "many", 1, many)
    asked = {"inputs": [tensor(np.zeros((16, 3, 8, 8)))]}
    async with served_by(App(settings(tmp_path, http="127.0.0.1:0"))) as served:
        answered = await infer(served, "many", asked)
        assert answered.status == 200
        # Room for the call and its request, but not for the answer and its copy.
        served.app._budget.resize(len(answered.body) + CALL_BYTES, 0)
        refused = await infer(served, "many", asked)
        assert refused.status == 429
        assert refused.json["error"].startswith("memory is short")
        assert refused.headers["retry-after"] == "1"


async def test_a_slow_body_is_given_up(models: Path) -> None:
    app = App(settings(models, http="127.0.0.1:0", message_timeout_s=0.3))
    async with served_by(app) as served:
        for path, kind in (
            ("/v2/models/colors/infer", "application/json"),
            ("/visavis.v1.VisionService/Detect", "multipart/form-data; boundary=b"),
        ):
            head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n"
            for more in (
                "content-length: 100\r\n\r\n{",
                "transfer-encoding: chunked\r\n\r\n1\r\n{",
            ):
                answered = await conversation(served.app, (head + more).encode())
                assert answered.startswith(b"HTTP/1.1 504")
                assert b"the request did not arrive within 0.3 s" in answered


async def test_the_deadline_ends_a_request(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served_by(App(settings(models, http="127.0.0.1:0", cores=1))) as served:
        blocked = Blocked(monkeypatch)
        asked = {"inputs": [tensor(tensor_of(RED))]}
        first = asyncio.create_task(infer(served, "colors", asked))
        assert await asyncio.to_thread(blocked.began.wait, 10)
        late = await infer(served, "colors", asked, connect_timeout_ms="50")
        assert late.status in (429, 504)
        blocked.may_end.set()
        assert (await first).status == 200


async def test_a_client_that_leaves_ends_its_request(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served_by(App(settings(models, http="127.0.0.1:0", cores=1))) as served:
        blocked = Blocked(monkeypatch)
        assert served.app.http_address
        host, _, port = served.app.http_address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps({"inputs": [tensor(tensor_of(RED))]}).encode()
        writer.write(
            b"POST /v2/models/colors/infer HTTP/1.1\r\nhost: localhost\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        assert await asyncio.to_thread(blocked.began.wait, 10)
        writer.close()
        counted = 'code="CANCELLED",door="http",method="/inference.GRPCInferenceService/ModelInfer"'
        async with asyncio.timeout(10):
            while counted not in (await ask(served.app, "/metrics")).body.decode():
                await asyncio.sleep(0.01)
        blocked.may_end.set()


def test_an_answer_too_large_for_json_is_offered_in_binary() -> None:
    response, outputs = pb.ModelInferResponse(), {"logits": np.zeros(10_000, np.float32)}
    asked = Asked(Request(pb.ModelInferRequest(), []))
    assert (
        json.loads(write(response, outputs, asked, 50_000).body)["outputs"][0]["data"][9_999] == 0
    )
    with pytest.raises(InvalidRequest, match="more than 20000 bytes in JSON; ask for the outputs"):
        write(response, outputs, asked, 20_000)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_json_has_not_are_offered_in_binary(number: float) -> None:
    response, outputs = pb.ModelInferResponse(), {"logits": np.full(3, number, np.float32)}
    request = Request(pb.ModelInferRequest(), [])
    with pytest.raises(InvalidRequest, match=r"logits has NaN or infinity, .*ask for it in binary"):
        write(response, outputs, Asked(request), 50_000)
    written = write(response, outputs, Asked(request, binary_by_default=True), 50_000)
    assert written.body.endswith(outputs["logits"].tobytes())
