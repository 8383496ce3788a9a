"""The same picture gives the same numbers through every door.

Through Triton's own clients: tests/triton; in a browser: tests/web; in each language:
tests/test_clients.py.
"""

import json
import shutil
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format
from visavis import Client, Comparison
from visavis.v1 import vision_pb2 as pb

from tests.faults.process import ServerProcess
from tests.samples import Samples
from tests.server.transport.http.test_listener import framed, frames, without_timings
from tests.surroundings import Surroundings

COMPARE = "/visavis.v1.VisionService/Compare"


@pytest.fixture(scope="module")
def server(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("doors")
    with ServerProcess(samples.models, folder, "--http", "127.0.0.1:0") as server:
        yield server


@pytest.fixture(scope="module")
def url(server: ServerProcess) -> str:
    entries = map(json.loads, server.log.splitlines())
    return f"http://{next(e['http'] for e in entries if e['event'] == 'ready')}"


@pytest.fixture(scope="module")
def picture(samples: Samples) -> bytes:
    return samples.bus.read_bytes()


@pytest.fixture(scope="module")
def expected(server: ServerProcess, picture: bytes) -> pb.CompareResponse:
    """Return what gRPC answers to Compare."""
    with Client(server.address) as client:
        compared = client.compare(picture)
        assert isinstance(compared, Comparison)
        return compared.message


def curl(url: str, content_type: str, body: bytes) -> bytes:
    command = ["curl", "--silent", "--fail", "--data-binary", "@-", url]
    command += ["--header", f"content-type: {content_type}"]
    with Surroundings.temporary() as found:  # without a ~/.curlrc
        return subprocess.run(
            command,
            input=body,
            cwd=found.elsewhere,
            env=found.environment(),
            capture_output=True,
            check=True,
        ).stdout


def same(answer: pb.CompareResponse, expected: pb.CompareResponse) -> None:
    """Hold one comparison against another; a run that was alone rounds otherwise in the end."""
    for ours, theirs in zip(answer.comparisons, expected.comparisons, strict=True):
        for one, other in zip(ours.answers, theirs.answers, strict=True):
            assert one.served_by == other.served_by
            for field in ("classifications", "detections"):
                found, wanted = getattr(one, field), getattr(other, field)
                assert [f.label for f in found] == [w.label for w in wanted]
                assert [f.score for f in found] == pytest.approx(
                    [w.score for w in wanted], abs=1e-5
                )
            for found, wanted in zip(one.detections, other.detections, strict=True):
                for edge in ("x_min", "y_min", "x_max", "y_max"):
                    assert getattr(found.box, edge) == pytest.approx(
                        getattr(wanted.box, edge), abs=0.05
                    )


pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


def test_curl_with_json(url: str, picture: bytes, expected: pb.CompareResponse) -> None:
    body = json.dumps({"image": {"encoded": b64encode(picture).decode()}}).encode()
    answer = curl(url + COMPARE, "application/json", body)
    same(json_format.Parse(answer, pb.CompareResponse()), expected)


def test_connect_in_binary(url: str, picture: bytes, expected: pb.CompareResponse) -> None:
    request = pb.CompareRequest(image=pb.Image(encoded=picture))
    answer = curl(url + COMPARE, "application/proto", request.SerializeToString())
    same(pb.CompareResponse.FromString(answer), expected)


def test_grpc_web(url: str, picture: bytes, expected: pb.CompareResponse) -> None:
    request = pb.CompareRequest(image=pb.Image(encoded=picture))
    framed_request = framed(request.SerializeToString())
    answer = curl(url + COMPARE, "application/grpc-web+proto", framed_request)
    (_, message), _trailers = frames(answer)
    same(pb.CompareResponse.FromString(message), expected)


def test_grpc_web_in_text(url: str, picture: bytes, expected: pb.CompareResponse) -> None:
    request = pb.CompareRequest(image=pb.Image(encoded=picture))
    text = b64encode(framed(request.SerializeToString()))
    answer = curl(url + COMPARE, "application/grpc-web-text", text)
    fours = (answer[at : at + 4] for at in range(0, len(answer), 4))
    (_, message), _trailers = frames(b"".join(map(b64decode, fours)))
    same(pb.CompareResponse.FromString(message), expected)


def test_curl_with_a_form(
    url: str, samples: Samples, expected: pb.CompareResponse, tmp_path: Path
) -> None:
    found = Surroundings.under(tmp_path)
    command = ["curl", "--silent", "--fail", "-F", f"image=@{samples.bus}", url + COMPARE]
    ran = subprocess.run(
        command,
        cwd=found.elsewhere,
        env=found.environment(),
        capture_output=True,
        check=True,
    )
    same(json_format.Parse(ran.stdout, pb.CompareResponse()), expected)


def test_the_open_inference_protocol(
    server: ServerProcess, url: str, picture: bytes, samples: Samples
) -> None:
    with Client(server.address) as client:
        detections = client.detect(samples.bus, model="yolov5n").detections
    image = {"name": "IMAGE", "datatype": "BYTES", "shape": [1, 1]}
    asked = {"inputs": [{**image, "data": [b64encode(picture).decode()]}]}
    path = f"{url}/v2/models/yolov5n_image/infer"
    answer = json.loads(curl(path, "application/json", json.dumps(asked).encode()))
    found = {output["name"]: output["data"] for output in answer["outputs"]}
    assert found["labels"] == [detection.label for detection in detections]
    assert found["scores"] == pytest.approx([d.score for d in detections], abs=1e-5)
    boxes = [edge for d in detections for edge in d.box.xyxy]
    assert found["boxes"] == pytest.approx(boxes, abs=0.05)


def test_a_comparison_s_stream_ends_with_the_same(
    server: ServerProcess, picture: bytes, expected: pb.CompareResponse
) -> None:
    with Client(server.address) as client:
        *_, last = client.compare_stream(picture)
    assert isinstance(last, Comparison)
    same(last.message, expected)
    cards = [without_timings(model) for model in last.message.models]
    assert cards == [without_timings(model) for model in expected.models]
