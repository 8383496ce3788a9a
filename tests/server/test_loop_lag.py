"""The event loop: no request blocks it for longer than a copy of as many bytes."""

import http.client
import json
import socket
import struct
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from visavis.v1 import vision_pb2 as pb

from tests.surroundings import Surroundings
from visavis_server.api.inference import grpc_service_pb2 as oip
from visavis_server.card import LabelSet

from . import graphs
from .pictures import RED, plain
from .stuffed import Stuffed, delimited, stuffed

PICTURE = plain(RED)
CLASSES = 1000
# Over every limit; the limit of all strings; 4,000 of the smallest fields.
SIZES = (2 << 20, 1_000_000, 8_000)
# The limit. Shared machines are slower, but never as slow as the faults tested here.
PROMISED_S = 0.020
WALL_S = 0.5
TRIES = 4
VISION = pb.DESCRIPTOR.services_by_name["VisionService"]
INFERENCE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICES = (
    VISION,
    INFERENCE,
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
)
METHODS = [method for service in SERVICES for method in service.methods]
# Fields with which a request reaches its model.
BASES = {
    "ClassifyRequest": pb.ClassifyRequest(image=pb.Image(encoded=PICTURE), model="colors"),
    "DetectRequest": pb.DetectRequest(image=pb.Image(encoded=PICTURE), model="crowd"),
    "CompareRequest": pb.CompareRequest(image=pb.Image(encoded=PICTURE)),
    "CompareStreamRequest": pb.CompareStreamRequest(image=pb.Image(encoded=PICTURE)),
    "ModelInferRequest": oip.ModelInferRequest(model_name="colors"),
}


@dataclass(frozen=True)
class Lag:
    """How long the loop was blocked: by the clock, and in CPU time of its thread."""

    wall_s: float
    cpu_s: float


class Watched:
    """A server that measures the lag of its event loop."""

    def __init__(self, models: Path) -> None:
        found = Surroundings.under(models.with_name("lag-server"))
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "lag_server.py"), str(models)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=found.elsewhere,
            # As `visavis serve` sets it.
            env=found.environment({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}),
        )
        where = self._heard()
        self.http: str = where["http"]
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self.channel = grpc.insecure_channel(where["grpc"], options)

    def close(self) -> None:
        self.channel.close()
        self._process.kill()
        self._process.communicate()

    def lag(self) -> Lag:
        """Return the longest lag since the last call."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Lag(**self._heard())

    def under(self, send: Callable[[], object]) -> Lag:
        """Return the least lag of several tries to send something."""
        lags = []
        for _ in range(TRIES):
            self.lag()
            with suppress(grpc.RpcError):
                send()
            lags.append(self.lag())
            if lags[-1].cpu_s < PROMISED_S and lags[-1].wall_s < WALL_S / 2:
                break
        return Lag(min(lag.wall_s for lag in lags), min(lag.cpu_s for lag in lags))

    def call(self, method: MethodDescriptor, data: bytes) -> list[bytes]:
        """Send a message unchanged; return the responses, or the first one of an endless stream."""
        path = f"/{method.containing_service.full_name}/{method.name}"
        if method.client_streaming:
            return list(self.channel.stream_stream(path)(iter([data]), timeout=60))
        if method.name == "Watch":
            call = self.channel.unary_stream(path)(data, timeout=60)
            first = next(call)
            call.cancel()
            return [first]
        if method.server_streaming:
            return list(self.channel.unary_stream(path)(data, timeout=60))
        return [self.channel.unary_unary(path)(data, timeout=60)]

    def post(self, path: str, body: bytes, kind: str, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.http, timeout=60)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", path, body, {"content-type": kind, **sent})
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        return answer

    def _heard(self) -> Any:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self._process.communicate()
        raise AssertionError("the server has ended")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Serve two detectors that return 1,000 overlapping boxes, and two classifiers."""
    folder = tmp_path_factory.mktemp("models")
    colors, _ = graphs.export(graphs.classifier(), graphs.classifier_document())
    graphs.put(folder, "colors", 1, colors)
    labels = LabelSet(name="many", labels=tuple(f"label {i}" for i in range(CLASSES)))
    scores = np.linspace(0, 1, CLASSES, dtype=np.float32)[None]
    document = graphs.classifier_document(label_set=labels)
    document = document.model_copy(
        update={"output": document.output.model_copy(update={"tensor": "output0"})}
    )
    many, _ = graphs.export(graphs.constant(scores, height=8, width=8), document)
    graphs.put(folder, "many", 1, many)
    rows = graphs.yolov5_rows(*((30, 30, 40, 40, 1.0, 0.9 + i / 1e5, 0.1) for i in range(1000)))
    crowd, _ = graphs.export(graphs.constant(rows), graphs.detector_document())
    graphs.put(folder, "crowd", 1, crowd)
    graphs.put(folder, "mass", 1, crowd)
    server = Watched(folder)
    yield server
    server.close()


def require_no_lag(lag: Lag, copying: Lag, what: str) -> None:
    """Fail if the loop was blocked for longer than copying as many bytes explains.

    A message is copied by gRPC and, unless it is rejected first, when it is parsed.
    """
    assert lag.cpu_s < 2 * copying.cpu_s + PROMISED_S, (what, lag, copying)
    assert lag.wall_s < WALL_S, (what, lag, copying)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.full_name)
def test_a_message_full_of_any_field_blocks_the_loop_no_longer_than_one_field(
    watched: Watched, method: MethodDescriptor, size: int
) -> None:
    base = BASES.get(method.input_type.name)
    prefix = base.SerializeToString() if base else b""
    one = delimited(1000, bytes(size))
    copying = watched.under(lambda: watched.call(method, prefix + one))
    for full in stuffed(method.input_type, size):
        data = prefix + full.data
        require_no_lag(watched.under(lambda: watched.call(method, data)), copying, full.what)  # noqa: B023


def inference(*, name: str = "images", model: str = "colors", **fields: Any) -> Stuffed:
    raw = fields.pop("raw", None)
    contents = fields.pop("contents", b"")
    parameters = fields.pop("parameters", {})
    request = oip.ModelInferRequest(model_name=model)
    tensor = oip.ModelInferRequest.InferInputTensor(name=name, **fields)
    for key, value in parameters.items():
        request.parameters[key].int64_param = value
    data = request.SerializeToString() + delimited(
        5, tensor.SerializeToString() + (delimited(5, contents) if contents else b"")
    )
    if raw is not None:
        data += delimited(7, raw)
    what = f"{model} {tensor.datatype} {list(tensor.shape)[:3]} {parameters}"
    return Stuffed(what, data)


def picture_elements(number: int) -> bytes:
    return (len(PICTURE).to_bytes(4, "little") + PICTURE) * number


MANY_BYTES = 8 << 20
TENSORS = [
    *(inference(datatype="FP32", shape=[2**62] * rank, raw=b"") for rank in (8, 9, 400, 100_000)),
    inference(datatype="FP32", shape=[-1] * 100_000, raw=b""),
    inference(datatype="FP32", shape=[MANY_BYTES // 4], raw=bytes(MANY_BYTES)),
    inference(datatype="FP32", shape=[MANY_BYTES // 4], contents=delimited(6, bytes(MANY_BYTES))),
    inference(datatype="FP64", shape=[MANY_BYTES // 8], contents=delimited(7, bytes(MANY_BYTES))),
    inference(datatype="UINT8", shape=[4000], contents=delimited(4, bytes(4000))),
    inference(datatype="BOOL", shape=[4000], contents=delimited(1, bytes(4000))),
    inference(datatype="BYTES", shape=[MANY_BYTES // 4, 1], raw=bytes(MANY_BYTES)),
    inference(datatype="BYTES", shape=[4000], contents=delimited(8, b"") * 4000),
    inference(
        model="crowd_image",
        name="IMAGE",
        datatype="BYTES",
        shape=[16, 1],
        raw=picture_elements(16),
        parameters={"max_detections": 1000, "iou_threshold": 1, "score_threshold": 0},
    ),
    inference(
        model="many_image",
        name="IMAGE",
        datatype="BYTES",
        shape=[16, 1],
        raw=picture_elements(16),
        parameters={"top_k": 2**62},
    ),
]


@pytest.mark.parametrize("tensor", TENSORS, ids=lambda t: t.what)
@pytest.mark.parametrize("name", ["ModelInfer", "ModelStreamInfer"])
def test_no_tensor_blocks_the_loop(watched: Watched, tensor: Stuffed, name: str) -> None:
    method = INFERENCE.methods_by_name[name]
    one = delimited(1000, bytes(len(tensor.data)))
    copying = watched.under(lambda: watched.call(method, one))
    require_no_lag(watched.under(lambda: watched.call(method, tensor.data)), copying, tensor.what)


def test_the_most_best_labels_do_not_block_the_loop(watched: Watched) -> None:
    request = oip.ModelInferRequest(model_name="many")
    pixels = np.zeros((16, 3, 8, 8), np.float32)
    request.inputs.add(name="images", datatype="FP32", shape=pixels.shape)
    request.raw_input_contents.append(pixels.tobytes())
    request.outputs.add(name="output0").parameters["classification"].int64_param = 2**62
    method = INFERENCE.methods_by_name["ModelInfer"]
    data = request.SerializeToString()
    (answer,) = watched.call(method, data)
    (output,) = oip.ModelInferResponse.FromString(answer).outputs
    assert list(output.shape) == [16, CLASSES]
    require_no_lag(watched.under(lambda: watched.call(method, data)), Lag(0, 0), "classification")


@pytest.mark.parametrize("kind", ["grpc", "application/json", "application/proto"])
@pytest.mark.parametrize("name", ["Detect", "Compare"])
def test_no_answer_blocks_the_loop(watched: Watched, name: str, kind: str) -> None:
    fields = {"score_threshold": 0.0, "iou_threshold": 1.0, "max_detections": 1000}
    method = VISION.methods_by_name[name]
    request = (
        pb.DetectRequest(model="crowd", **fields)
        if name == "Detect"
        else pb.CompareRequest(models=["crowd", "mass"], **fields)
    )
    request.image.encoded = PICTURE
    written = {**fields, "image": {"encoded": b64encode(PICTURE).decode()}}
    written |= {"model": "crowd"} if name == "Detect" else {"models": ["crowd", "mass"]}

    def send() -> object:
        if kind == "grpc":
            return watched.call(method, request.SerializeToString())
        body = (
            json.dumps(written).encode()
            if kind == "application/json"
            else request.SerializeToString()
        )
        status, answer = watched.post(f"/{VISION.full_name}/{name}", body, kind)
        assert status == 200, answer[:500]
        return answer

    require_no_lag(watched.under(send), Lag(0, 0), f"{name} {kind}")


MEGABYTES = 8 << 20
TEXTS = {
    "labels": b'{"labels":[' + b'"",' * (MEGABYTES // 3) + b'""]}',
    "tasks": b'{"tasks":[' + b"1," * (MEGABYTES // 2) + b"1]}",
    "lists": b"[" + b"[]," * (MEGABYTES // 3) + b"[]]",
    "nested lists": b"[" * MEGABYTES,
    "nested objects": b'{"image":' * (MEGABYTES // 9),
    "keys": b"{" + b'"":0,' * (MEGABYTES // 5) + b'"":0}',
    "digits": b'{"version":' + b"1" * MEGABYTES + b"}",
    "decimals": b'{"scoreThreshold":0.' + b"1" * MEGABYTES + b"}",
    "white space": b" " * MEGABYTES + b"{}",
    "a name": b'{"model":"' + b"a" * MEGABYTES + b'"}',
    "escapes": b'{"model":"' + rb"\u0041" * (MEGABYTES // 6) + b'"}',
    "quotes": b'{"model":"' + rb"\"" * (MEGABYTES // 2) + b'"}',
    "backslashes": b'{"model":"' + b"\\" * MEGABYTES + b'"}',
    "a picture": b'{"image":{"encoded":"' + b"QUJD" * (MEGABYTES // 4) + b'"}}',
    "a picture with slashes": b'{"image":{"encoded":"' + rb"\/\/" * (MEGABYTES // 4) + b'"}}',
    "a text without end": b'{"model":"' + b"a" * MEGABYTES,
    "no JSON": b"\xff" * MEGABYTES,
}


@pytest.mark.parametrize("what", TEXTS)
@pytest.mark.parametrize("kind", ["application/json", "application/connect+json"])
def test_no_json_blocks_the_loop(watched: Watched, what: str, kind: str) -> None:
    name = "Detect" if kind == "application/json" else "CompareStream"
    path = f"/{VISION.full_name}/{name}"
    framed = kind != "application/json"

    def send(text: bytes) -> tuple[int, bytes]:
        return watched.post(path, struct.pack(">BI", 0, len(text)) * framed + text, kind)

    copying = watched.under(lambda: send(b'{"image":{"encoded":"' + b"A" * MEGABYTES + b'"}}'))
    status, answer = send(TEXTS[what])
    assert (status == 400) is not framed and b"internal" not in answer
    require_no_lag(watched.under(lambda: send(TEXTS[what])), copying, what)


def numbers(text: bytes, shape: int = MEGABYTES // 4, datatype: str = "FP32") -> bytes:
    """Return a request for inference with the text of an array."""
    given = {"name": "images", "datatype": datatype, "shape": [shape]}
    return b'{"inputs":[' + json.dumps(given).encode()[:-1] + b',"data":' + text + b"}]}"


REST = {
    "numbers": numbers(b"[" + b"0.5," * (MEGABYTES // 4 - 1) + b"0.5]"),
    "short numbers": numbers(b"[" + b"1," * (MEGABYTES // 2 - 1) + b"1]", MEGABYTES // 2, "UINT8"),
    "long numbers": numbers(b"[" + (b"0." + b"1" * 4000 + b",") * (MEGABYTES // 4000) + b"1]"),
    "more numbers than the shape has": numbers(b"[" + b"0.5," * (MEGABYTES // 4) + b"1]", 192),
    "fewer numbers than the shape has": numbers(b"[1]"),
    "digits": numbers(b"[" + b"1" * MEGABYTES + b"]"),
    "white space": numbers(b"[1" + b" " * MEGABYTES + b"]"),
    "white space between lists": numbers(b"[[1]," + b" " * MEGABYTES + b"[1]]"),
    "white space before the numbers": numbers(b" " * MEGABYTES + b"[1]"),
    "commas": numbers(b"[" + b"," * MEGABYTES + b"]"),
    "lists of one number": numbers(b"[" + b"[1]," * (MEGABYTES // 4) + b"[1]]"),
    "nested lists": numbers(b"[" * MEGABYTES),
    "empty lists": numbers(b"[" + b"[]," * (MEGABYTES // 3) + b"[]]"),
    "closing brackets": numbers(b"[" + b"]" * MEGABYTES),
    "objects": numbers(b"[" + b"{}," * (MEGABYTES // 3) + b"{}]"),
    "many arrays": b'{"inputs":[' + b'{"data":[1]},' * (MEGABYTES // 13) + b"{}]}",
    "an array without end": numbers(b"[" + b"1," * (MEGABYTES // 2)),
    "inputs": b'{"inputs":[' + b"{}," * (MEGABYTES // 3) + b"{}]}",
    "shapes": b'{"inputs":[{"shape":[' + b"1," * (MEGABYTES // 2) + b"1]}]}",
    "parameters": b'{"parameters":{' + b'"":0,' * (MEGABYTES // 5) + b'"a":0}}',
    "a picture": b'{"inputs":[{"name":"images","datatype":"BYTES","shape":[1],"data":["'
    + b"QUJD" * (MEGABYTES // 4)
    + b'"]}]}',
    "pictures": b'{"inputs":[{"name":"images","datatype":"BYTES","shape":[1],"data":['
    + b'"",' * (MEGABYTES // 3)
    + b'""]}]}',
    "a picture as numbers": numbers(b'["' + b"1" * MEGABYTES + b'"]'),
}


@pytest.mark.parametrize("what", REST)
def test_no_json_of_the_open_inference_protocol_blocks_the_loop(
    watched: Watched, what: str
) -> None:
    path, kind = "/v2/models/colors/infer", "application/json"
    unread = b'{"inputs":"' + b"A" * MEGABYTES + b'"}'
    copying = watched.under(lambda: watched.post(path, unread, kind))
    status, answer = watched.post(path, REST[what], kind)
    assert status == 400 and b"internal" not in answer, answer[:500]
    require_no_lag(watched.under(lambda: watched.post(path, REST[what], kind)), copying, what)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("model", ["colors", "many", "crowd", "crowd_image", "many_image"])
def test_no_answer_of_the_open_inference_protocol_blocks_the_loop(
    watched: Watched, model: str, binary: bool
) -> None:
    if model.endswith("_image"):
        given = {"name": "IMAGE", "datatype": "BYTES", "shape": [16, 1]}
        contents = picture_elements(16)
    else:
        size = 64 if model == "crowd" else 8
        pixels = np.zeros((16, 3, size, size), np.float32)
        given = {"name": "images", "datatype": "FP32", "shape": list(pixels.shape)}
        contents = pixels.tobytes()
    most = {"max_detections": 1000, "iou_threshold": 1, "score_threshold": 0, "top_k": 1000}
    text = json.dumps(
        {
            "parameters": {"binary_data_output": binary, **most},
            "inputs": [{**given, "parameters": {"binary_data_size": len(contents)}}],
        }
    ).encode()

    def send() -> bytes:
        path, size = f"/v2/models/{model}/infer", str(len(text))
        status, answer = watched.post(
            path, text + contents, "", inference_header_content_length=size
        )
        assert status == 200, answer[:500]
        return answer

    require_no_lag(watched.under(send), Lag(0, 0), model)


HEAD = b'--b\r\nContent-Disposition: form-data; name="%b"; filename="a"\r\n\r\n'
FORMS = {
    "a picture": HEAD % b"image" + b"A" * MEGABYTES + b"\r\n--b--\r\n",
    "almost boundaries": HEAD % b"image" + b"\r\n--" * (MEGABYTES // 4) + b"\r\n--b--\r\n",
    "parts": (HEAD % b"labels" + b"\r\n") * (MEGABYTES // 60) + b"--b--\r\n",
    "boundaries": b"--b\r\n" * (MEGABYTES // 5),
    "a header": b"--b\r\nContent-Disposition: " + b"a" * MEGABYTES,
    "headers": b"--b\r\n" + b"a: b\r\n" * (MEGABYTES // 6),
    "backslashes": HEAD.replace(b"%b", b"\\" * 900) + b"A" * MEGABYTES,
    "no boundary": b"A" * MEGABYTES,
    "line breaks": b"\r\n" * (MEGABYTES // 2),
    "a field": HEAD % b"model" + b"A" * MEGABYTES + b"\r\n--b--\r\n",
    "a number": HEAD % b"maxDetections" + b"1" * MEGABYTES + b"\r\n--b--\r\n",
}


@pytest.mark.parametrize("what", FORMS)
def test_no_form_blocks_the_loop(watched: Watched, what: str) -> None:
    path, kind = f"/{VISION.full_name}/Detect", "multipart/form-data; boundary=b"
    unread = "multipart/form-data"
    copying = watched.under(lambda: watched.post(path, b"A" * MEGABYTES, unread))
    status, answer = watched.post(path, FORMS[what], kind)
    assert status == 400 and b"internal" not in answer, answer[:500]
    require_no_lag(watched.under(lambda: watched.post(path, FORMS[what], kind)), copying, what)


BASE64 = {
    "a picture": b64encode(struct.pack(">BI", 0, MEGABYTES) + bytes(MEGABYTES)),
    "parts": b"AA==" * (MEGABYTES // 4),
    "padding": b"=" * MEGABYTES,
    "no base64": b"\xff" * MEGABYTES,
}


@pytest.mark.parametrize("what", BASE64)
def test_no_text_of_grpc_web_blocks_the_loop(watched: Watched, what: str) -> None:
    path, kind = f"/{VISION.full_name}/Detect", "application/grpc-web-text"
    copying = watched.under(lambda: watched.post(path, BASE64[what], "application/proto"))
    status, answer = watched.post(path, BASE64[what], kind)
    assert status == (200 if what == "a picture" else 400), answer[:500]
    require_no_lag(watched.under(lambda: watched.post(path, BASE64[what], kind)), copying, what)


CHUNKS = {
    "of one byte": b"1\r\nx\r\n",
    "with extensions": b"1;a=b\r\nx\r\n",
    "with long sizes": b"0000000000000001\r\nx\r\n",
}


@pytest.mark.parametrize("what", CHUNKS)
@pytest.mark.parametrize("path", [f"/{VISION.full_name}/Detect", "/livez"])
def test_no_chunks_block_the_loop(watched: Watched, path: str, what: str) -> None:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        "content-type: application/proto\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    request = head.encode() + CHUNKS[what] * (MEGABYTES // 64) + b"0\r\n\r\n"
    host, _, port = watched.http.rpartition(":")

    def send() -> None:
        with socket.create_connection((host, int(port)), 60) as connection:
            with suppress(ConnectionError):  # the answer may come first
                connection.sendall(request)
            with suppress(ConnectionError):
                while connection.recv(1 << 16):
                    pass

    require_no_lag(watched.under(send), Lag(0, 0), what)
