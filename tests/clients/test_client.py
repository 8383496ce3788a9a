import asyncio
import shutil
import subprocess
import threading
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import pytest
import visavis
from google.rpc import code_pb2
from grpc_health.v1 import health_pb2
from visavis import AsyncClient, Client
from visavis.results import ClassificationAgreement, DetectionAgreement
from visavis.v1 import vision_pb2 as pb
from visavis.v1 import vision_pb2_grpc

from . import canned, fakes
from .fakes import FakeServer, refusal


def test_detect_sends_its_arguments_and_reads_the_boxes(client: Client, fake: FakeServer):
    result = client.detect(
        b"jpeg", model="yolov5n", version=2, score_threshold=0.5, labels=["bus"], annotate=True
    )
    assert fake.requests == [
        pb.DetectRequest(
            image=pb.Image(encoded=b"jpeg"),
            model="yolov5n",
            version=2,
            score_threshold=0.5,
            labels=["bus"],
            annotate=True,
        )
    ]
    best = result.detections[0]
    assert (best.label, best.class_id) == ("person", 0)
    assert best.score == pytest.approx(0.803)
    assert best.box.xyxy == pytest.approx((220.1, 407.2, 345.6, 861.0), abs=1e-4)
    assert best.box.width == pytest.approx(125.5, abs=1e-4)
    assert result.served_by.execution_provider == "CPUExecutionProvider"
    assert result.timings.inference_ms == 41.3
    assert result.annotated_image and result.annotated_image.media_type == "image/jpeg"
    assert result.message.detections[0].label == "person"


def test_omitted_options_are_left_to_the_server(client: Client, fake: FakeServer):
    client.classify(b"jpeg", model="resnet50")
    client.detect(b"jpeg", model="yolov5n")
    client.compare(b"jpeg")
    image = pb.Image(encoded=b"jpeg")
    assert fake.requests == [
        pb.ClassifyRequest(image=image, model="resnet50"),
        pb.DetectRequest(image=image, model="yolov5n"),
        pb.CompareRequest(image=image),
    ]


def test_threshold_of_zero_is_not_an_absent_one(client: Client, fake: FakeServer):
    client.detect(b"jpeg", model="yolov5n", score_threshold=0.0)
    assert fake.requests[0].HasField("score_threshold")


def test_compare_reads_answers_agreements_and_failures(client: Client, fake: FakeServer):
    result = client.compare(b"jpeg", tasks=["classification", visavis.Task.DETECTION])
    assert list(fake.requests[0].tasks) == [pb.TASK_CLASSIFICATION, pb.TASK_OBJECT_DETECTION]
    classification, detection = result.comparisons
    assert classification.task == "classification"
    agreement = classification.answers[1].agreement
    assert isinstance(agreement, ClassificationAgreement)
    assert agreement.jensen_shannon_divergence == 0.118
    assert classification.answers[0].agreement is None
    assert classification.answers[2].served_by.random_weights
    pairs = detection.answers[1].agreement
    assert isinstance(pairs, DetectionAgreement)
    assert (pairs.matched, pairs.only_here, pairs.only_in_baseline) == (3, 1, 2)
    failed = detection.answers[2]
    assert (failed.status.ok, failed.status.code, failed.timings) == (False, "INTERNAL", None)
    assert result.left_out[0].model == "yolov5m"
    assert [card.name for card in result.models] == [card.name for card in canned.CARDS]


def test_compare_stream_yields_each_answer_then_the_whole_comparison(client: Client):
    *answers, summary = client.compare_stream(b"jpeg")
    assert [answer.answer.served_by.model for answer in answers] == [
        "resnet50",
        "resnet18",
        "yolov5n-cls",
        "yolov5n",
        "yolov5s",
        "yolov5x",
    ]
    assert isinstance(summary, visavis.Comparison)


def test_closing_a_stream_early_cancels_it_on_the_server(client: Client, fake: FakeServer):
    cancelled = threading.Event()

    def endless(request, context):
        context.add_callback(cancelled.set)
        answer = pb.StreamedAnswer(task=pb.TASK_CLASSIFICATION)
        yield pb.CompareStreamResponse(answer=answer)
        cancelled.wait(20)

    fake.answers["CompareStream"] = endless
    stream = client.compare_stream(b"jpeg")
    next(stream)
    stream.close()
    assert cancelled.wait(20)


def test_card_has_facts_and_receipt(client: Client):
    card = client.get_model("yolov5n")
    assert card.facts.parameter_count == 1_872_157
    assert card.facts.real_time is True
    assert card.facts.context_window is None
    assert card.detection_defaults and card.detection_defaults.max_detections == 300
    assert card.receipt and card.receipt.rows and card.receipt.rows.count == 151_200


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_brief_outage_is_retried_even_with_a_large_picture(
    client: Client, fake: FakeServer, status: grpc.StatusCode
):
    def once_starting(request, context):
        if fake.calls["Detect"] == 1:
            context.abort(status, "starting")
        return canned.DETECTED

    fake.answers["Detect"] = once_starting
    assert client.detect(bytes(3_000_000), model="yolov5n").detections
    assert fake.calls["Detect"] == 2


def test_unavailable_server_is_tried_four_times(client: Client, fake: FakeServer):
    fake.answers["ListModels"] = refusal(code_pb2.UNAVAILABLE, "stopping")
    with pytest.raises(visavis.Unavailable, match="stopping"):
        client.list_models()
    assert fake.calls["ListModels"] == 4


def test_call_ends_when_its_timeout_runs_out(client: Client, fake: FakeServer):
    answered = threading.Event()
    fake.answers["Classify"] = lambda request, context: answered.wait(20)
    with pytest.raises(visavis.DeadlineExceeded, match=r"within 0\.05 s"):
        client.classify(b"jpeg", model="resnet50", timeout=0.05)
    answered.set()


def test_every_call_has_a_deadline(client: Client, fake: FakeServer):
    remaining = []

    def note(request, context):
        remaining.append(context.time_remaining())
        return canned.CLASSIFIED

    fake.answers["Classify"] = note
    client.classify(b"jpeg", model="resnet50")
    assert 0 < remaining[0] < 21  # gRPC rounds a little up.


def test_wait_until_ready_returns_once_the_server_serves(client: Client, fake: FakeServer):
    def second_time(request, context):
        ready = fake.calls["Check"] > 1
        status = health_pb2.HealthCheckResponse
        return status(status=status.SERVING if ready else status.NOT_SERVING)

    fake.answers["Check"] = second_time
    client.wait_until_ready(20)
    assert fake.calls["Check"] == 2


def test_wait_until_ready_gives_up(nobody: str):
    with Client(nobody) as client, pytest.raises(visavis.DeadlineExceeded):
        client.wait_until_ready(0.05)


def test_token_is_sent_with_every_call(fake: FakeServer):
    with Client(fake.address, token="secret") as client:
        client.list_models()
    assert fake.metadata["authorization"] == "Bearer secret"


def test_unix_socket_is_an_address(tmp_path: Path):
    fake = FakeServer()
    server = fakes.started(fake, f"unix:{tmp_path}/socket")
    with Client(fake.address) as client:
        assert client.list_models()
    server.stop(None).wait()


@pytest.mark.parametrize("name", ["labels", "models"])
def test_string_instead_of_a_list_is_rejected(client: Client, name: str):
    with pytest.raises(visavis.InvalidRequest, match="takes a list") as caught:
        client.compare(b"jpeg", **{name: "person"})
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"treshold": 0.4}, "treshold"),
        ({"max_detections": 1 << 40}, "out of range"),
        ({"score_threshold": "high"}, "score_threshold"),
    ],
)
def test_invalid_option_is_rejected(client: Client, options: dict, text: str):
    with pytest.raises(visavis.InvalidRequest, match=text):
        client.detect(b"jpeg", model="yolov5n", **options)


def test_unknown_task_is_rejected_with_the_known_ones(client: Client):
    with pytest.raises(visavis.InvalidRequest, match="classification, detection"):
        client.compare(b"jpeg", tasks=["segmentation"])


async def test_async_client_returns_the_same_results(client: Client, fake: FakeServer):
    async with AsyncClient(fake.address) as other:
        await other.wait_until_ready()
        assert await other.classify(b"jpeg", model="resnet50") == client.classify(
            b"jpeg", model="resnet50"
        )
        assert await other.detect(b"jpeg", model="yolov5n") == client.detect(
            b"jpeg", model="yolov5n"
        )
        assert await other.compare(b"jpeg") == client.compare(b"jpeg")
        assert await other.list_models() == client.list_models()
        assert await other.get_model("yolov5n") == client.get_model("yolov5n")
        streamed = [event async for event in other.compare_stream(b"jpeg")]
        assert streamed == list(client.compare_stream(b"jpeg"))


async def test_async_client_translates_errors_in_calls_and_in_streams(fake: FakeServer):
    fake.answers["Classify"] = fake.answers["CompareStream"] = refusal(
        code_pb2.INVALID_ARGUMENT, "no image", fakes.bad_field("image", "is missing")
    )
    async with AsyncClient(fake.address) as client:
        with pytest.raises(visavis.InvalidRequest) as caught:
            await client.classify(b"jpeg", model="resnet50")
        assert caught.value.field == "image"
        with pytest.raises(visavis.InvalidRequest):
            async for _ in client.compare_stream(b"jpeg"):
                pass


def test_tls_with_own_authority_carries_a_token(tmp_path: Path):
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 2 "
        "-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1",
        shell=True,
        check=True,
        capture_output=True,
    )
    fake = FakeServer()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    vision_pb2_grpc.add_VisionServiceServicer_to_server(fake, server)
    pair = (key.read_bytes(), certificate.read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    tls = visavis.TLS(root_certificates=certificate)
    with Client(f"localhost:{port}", tls=tls, token="secret") as client:
        assert client.list_models()
    assert fake.metadata["authorization"] == "Bearer secret"
    server.stop(None).wait()


def test_async_client_created_before_any_loop_works_in_every_loop(fake: FakeServer):
    client = AsyncClient(fake.address, timeout=20)

    async def names() -> list[str]:
        found = [card.name for card in await client.list_models()]
        await client.close()
        return found

    expected = [card.name for card in canned.CARDS]
    assert asyncio.run(names()) == asyncio.run(names()) == expected


def test_async_client_keeps_the_connections_of_two_loops_apart(fake: FakeServer):
    client = AsyncClient(fake.address, timeout=20)
    both_called = threading.Barrier(2)

    async def call() -> int:
        await client.list_models()
        await asyncio.to_thread(both_called.wait, 20)
        await client.list_models()
        await client.close()
        return fake.calls["ListModels"]

    with futures.ThreadPoolExecutor(2) as threads:
        done = [threads.submit(asyncio.run, call()) for _ in range(2)]
        assert max(each.result(20) for each in done) == 4


@pytest.mark.parametrize("method", ["classify", "detect", "compare"])
def test_every_call_accepts_opencv_arrays(method: str, client: Client, fake: FakeServer):
    model = {} if method == "compare" else {"model": "resnet50"}
    getattr(client, method)(np.zeros((4, 7, 3), np.uint8), channels="BGR", **model)
    assert fake.requests[0].image.raw.format == pb.PIXEL_FORMAT_BGR
