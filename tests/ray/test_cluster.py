"""visavis on Ray Serve, on a local cluster of three nodes, beside the plain server."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from visavis.v1 import vision_pb2 as pb
from visavis.v1 import vision_pb2_grpc

from tests.scenario import assert_same, expected_lines
from tests.server.api.inference.test_service import Stub as OpenInference
from tests.server.pictures import encoded, smooth
from tests.server.serving import details
from tests.test_clients import TOOLS, built, require_tools, run
from visavis_server.api.inference import grpc_service_pb2 as oip

from .conftest import RayCluster

CODES = grpc.StatusCode
PICTURE = encoded(smooth(48, 64))
LARGE_PICTURE = encoded(smooth(700, 900), "JPEG")
# As the SDK does: these, at most three times after the first.
_RETRIED = (CODES.UNAVAILABLE, CODES.CANCELLED)
_PAUSES_S = (0.1, 0.2, 0.4)
_CALLERS = 4
_TIMEOUT_S = 30.0


def _stub(channel: grpc.Channel) -> Any:
    return vision_pb2_grpc.VisionServiceStub(channel)  # type: ignore[no-untyped-call]


def _without_timings(message: Any) -> Any:
    """Return a message with all of its timings cleared."""
    for field, value in message.ListFields():
        if field.name == "timings":
            message.ClearField(field.name)
        elif field.message_type is not None:
            for each in value if field.is_repeated else (value,):
                _without_timings(each)
    return message


def _on_both(channels: list[grpc.Channel], ask: Callable[[Any], Any]) -> tuple[Any, Any]:
    return tuple(ask(_stub(channel)) for channel in channels)  # type: ignore[return-value]


def _error(call: Callable[[], Any]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("language", TOOLS)
def test_the_clients_scenario_passes_as_against_the_plain_server(
    cluster: RayCluster, channels: list[grpc.Channel], tmp_path: Path, language: str
) -> None:
    require_tools(language)
    picture = tmp_path / "picture.png"
    picture.write_bytes(PICTURE)
    done = run(built(language), cluster.address, picture)
    assert (done.returncode, done.stderr) == (0, "")
    # All steps but the last: Ray's proxies have no TLS.
    expected = expected_lines(_stub(channels[1]), PICTURE)
    assert_same(done.stdout.splitlines(), expected[:-1])


@pytest.mark.parametrize("picture", [PICTURE, LARGE_PICTURE], ids=["small", "large"])
@pytest.mark.parametrize(
    "ask",
    [
        lambda stub, image: stub.ListModels(pb.ListModelsRequest()),
        lambda stub, image: stub.GetModel(pb.GetModelRequest(model="resnet50")),
        lambda stub, image: stub.Classify(
            pb.ClassifyRequest(image=image, model="resnet50", explain=pb.Explain())
        ),
        lambda stub, image: stub.Classify(
            pb.ClassifyRequest(image=image, model="resnet18", annotate=True)
        ),
        lambda stub, image: stub.Detect(
            pb.DetectRequest(image=image, model="yolov5n", score_threshold=0.1, version=1)
        ),
        lambda stub, image: stub.Compare(pb.CompareRequest(image=image)),
    ],
    ids=["list", "get", "classify", "annotate", "detect", "compare"],
)
def test_answers_are_those_of_the_plain_server(
    channels: list[grpc.Channel], ask: Callable[[Any, pb.Image], Any], picture: bytes
) -> None:
    ours, plain = _on_both(channels, lambda stub: ask(stub, pb.Image(encoded=picture)))
    assert _without_timings(ours) == _without_timings(plain)


def test_raw_pixels_get_the_same_answer(channels: list[grpc.Channel]) -> None:
    pixels = smooth(48, 64)
    raw = pb.RawImage(width=64, height=48, format=pb.PIXEL_FORMAT_BGR, data=pixels.tobytes())
    request = pb.ClassifyRequest(image=pb.Image(raw=raw), model="resnet50")
    ours, plain = _on_both(channels, lambda stub: stub.Classify(request))
    assert _without_timings(ours) == _without_timings(plain)


def test_a_streamed_comparison_ends_with_its_summary(channels: list[grpc.Channel]) -> None:
    request = pb.CompareStreamRequest(image=pb.Image(encoded=PICTURE))
    ours, plain = _on_both(channels, lambda stub: list(stub.CompareStream(request)))
    kinds = [event.WhichOneof("event") for event in ours]
    assert kinds == ["answer"] * 3 + ["summary"]
    assert _without_timings(ours[-1]) == _without_timings(plain[-1])


def _tensors() -> oip.ModelInferRequest:
    tensor = oip.ModelInferRequest.InferInputTensor(name="images", datatype="FP32")
    tensor.shape.extend((2, 3, 8, 8))
    values = [number / 400 for number in range(2 * 3 * 8 * 8)]
    tensor.contents.fp32_contents.extend(values)
    return oip.ModelInferRequest(model_name="resnet50", inputs=[tensor])


def _picture_tensors() -> oip.ModelInferRequest:
    picture = oip.ModelInferRequest.InferInputTensor(name="IMAGE", datatype="BYTES", shape=(2, 1))
    picture.contents.bytes_contents.extend((PICTURE, LARGE_PICTURE))
    return oip.ModelInferRequest(model_name="yolov5n_image", inputs=[picture])


@pytest.mark.parametrize("request_", [_tensors(), _picture_tensors()], ids=["tensors", "pictures"])
def test_the_open_inference_protocol_gives_the_same_tensors(
    channels: list[grpc.Channel], request_: oip.ModelInferRequest
) -> None:
    ours, plain = (OpenInference(channel).ModelInfer(request_) for channel in channels)
    assert ours == plain


def test_a_stream_of_inferences_gives_the_plain_servers_answers_in_order(
    channels: list[grpc.Channel],
) -> None:
    requests = [make() for make in (_tensors, _picture_tensors) * 20]
    requests[7] = oip.ModelInferRequest(model_name="nothing")
    requests[9].parameters["triton_enable_empty_final_response"].bool_param = True
    for number, request in enumerate(requests):
        request.id = str(number)
    ours, plain = (
        list(OpenInference(channel).ModelStreamInfer(iter(requests))) for channel in channels
    )
    assert [each.infer_response.id for each in ours] == [str(n) for n in range(len(requests))]
    assert "there is no model 'nothing'" in ours[7].error_message
    assert ours == plain


def test_a_message_that_is_none_ends_a_stream_as_on_the_plain_server(
    channels: list[grpc.Channel],
) -> None:
    def call(channel: grpc.Channel) -> grpc.RpcError:
        method = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        return _error(lambda: list(method(iter([b"\xff\xff\xff"]))))

    ours, plain = map(call, channels)
    assert (ours.code(), ours.details()) == (plain.code(), plain.details())


def test_statistics_count_what_all_replicas_did(channels: list[grpc.Channel]) -> None:
    def asked(channel: grpc.Channel, name: str) -> list[oip.ModelStatistics]:
        request = oip.ModelStatisticsRequest(name=name)
        return list(OpenInference(channel).ModelStatistics(request).model_stats)

    # On Ray Serve, each input of a request is a request to a replica.
    for channel, requests in zip(channels, (24, 12), strict=True):
        (before,) = asked(channel, "resnet50")
        for _ in range(12):
            OpenInference(channel).ModelInfer(_tensors())
        (after,) = asked(channel, "resnet50")
        assert after.inference_count == before.inference_count + 24
        assert before.execution_count < after.execution_count <= before.execution_count + 24
        for of in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
            since = getattr(before.inference_stats, of)
            assert getattr(after.inference_stats, of).count == since.count + requests
        assert sum(b.batch_size * b.compute_infer.count for b in after.batch_stats) == (
            after.inference_count
        )
        (view,) = asked(channel, "resnet50_image")
        assert (view.name, view.inference_count) == ("resnet50_image", after.inference_count)
    names = [{(each.name, each.version) for each in asked(channel, "")} for channel in channels]
    assert names[0] == names[1] == {(name, "1") for name in ("resnet18", "resnet50", "yolov5n")}
    request = oip.ModelStatisticsRequest(name="nothing")
    errors = [_error(lambda c=c: OpenInference(c).ModelStatistics(request)) for c in channels]
    assert errors[0].code() is errors[1].code() is CODES.NOT_FOUND


@pytest.mark.parametrize(
    "request_",
    [
        pb.ClassifyRequest(image=pb.Image(encoded=PICTURE), model="resnet50", top_k=0),
        pb.ClassifyRequest(image=pb.Image(encoded=PICTURE), model="resnet5"),
        pb.ClassifyRequest(image=pb.Image(encoded=PICTURE), model="resnet50", version=7),
        pb.ClassifyRequest(image=pb.Image(encoded=PICTURE), model="yolov5n"),
        pb.ClassifyRequest(image=pb.Image(encoded=PICTURE[:-200]), model="resnet50"),
        pb.ClassifyRequest(image=pb.Image(encoded=b"GIF89a"), model="resnet50"),
        pb.ClassifyRequest(model="resnet50"),
        pb.CompareRequest(image=pb.Image(encoded=PICTURE), baseline="nothing"),
        pb.CompareStreamRequest(image=pb.Image(encoded=b"GIF89a")),
        pb.DetectRequest(image=pb.Image(encoded=PICTURE), model="yolov5n", labels=["cow"]),
    ],
    ids=lambda request: type(request).__name__,
)
def test_errors_have_the_plain_servers_codes_and_details(
    channels: list[grpc.Channel], request_: Any
) -> None:
    method = type(request_).__name__.removesuffix("Request")
    metadata = (("x-request-id", "tests"),)

    def failing(stub: Any) -> grpc.RpcError:
        call = getattr(stub, method)
        if method == "CompareStream":
            return _error(lambda: list(call(request_, metadata=metadata)))
        return _error(lambda: call(request_, metadata=metadata))

    ours, plain = _on_both(channels, failing)
    assert ours.code() is plain.code() is not CODES.UNAVAILABLE
    assert ours.details() == plain.details()
    # x-request-id and google.rpc.Status, and nothing of Ray's.
    assert sorted(map(tuple, ours.trailing_metadata())) == sorted(
        map(tuple, plain.trailing_metadata())
    )
    assert details(ours, error_details_pb2.RequestInfo)[0].request_id == "tests"


def test_a_message_that_is_none_is_an_error_of_the_client(channels: list[grpc.Channel]) -> None:
    def call(channel: grpc.Channel) -> grpc.RpcError:
        method = channel.unary_unary("/visavis.v1.VisionService/Classify")
        return _error(lambda: method(b"\xff\xff\xff"))

    ours, plain = map(call, channels)
    assert (ours.code(), ours.details()) == (plain.code(), plain.details())


def test_health_reports_each_model(channels: list[grpc.Channel]) -> None:
    stub = health_pb2_grpc.HealthStub(channels[0])
    for name in ("", "visavis.v1.VisionService", "resnet50"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    unknown = _error(lambda: stub.Check(health_pb2.HealthCheckRequest(service="nothing")))
    assert unknown.code() is CODES.NOT_FOUND


def test_health_lists_the_same_statuses_as_the_plain_server(channels: list[grpc.Channel]) -> None:
    stubs = [health_pb2_grpc.HealthStub(channel) for channel in channels]
    ours, plain = (stub.List(health_pb2.HealthListRequest()) for stub in stubs)
    assert len(ours.statuses) == 5
    assert ours == plain


@pytest.mark.parametrize("name", ["", "visavis.v1.VisionService", "resnet50", "nothing"])
def test_health_is_watched_as_on_the_plain_server(channels: list[grpc.Channel], name: str) -> None:
    request = health_pb2.HealthCheckRequest(service=name)
    stubs = [health_pb2_grpc.HealthStub(channel) for channel in channels]
    watches = [stub.Watch(request, timeout=_TIMEOUT_S) for stub in stubs]
    ours, plain = map(next, watches)
    assert ours == plain
    for watch in watches:
        watch.cancel()


_CROWD = 48  # more than a replica takes at once: the rest waits in the ingress
_LARGEST_BATCH = 4


def _executed(channel: grpc.Channel, model: str) -> int:
    """Return how many pictures the replicas of a model have run so far."""
    request = oip.ModelStatisticsRequest(name=model)
    (found,) = OpenInference(channel).ModelStatistics(request).model_stats
    return int(found.inference_count)


@pytest.mark.parametrize("how", ["cancelled", "too late", "a stream"])
def test_work_that_clients_leave_never_reaches_a_core(
    channels: list[grpc.Channel], how: str
) -> None:
    channel, _ = channels
    stub, request = _stub(channel), pb.ClassifyRequest(image=pb.Image(encoded=PICTURE))
    request.model = "resnet18"  # slow, on one replica of one core
    before, answered = _executed(channel, "resnet18"), 0
    if how == "a stream":
        inference = _picture_tensors()
        inference.model_name = "resnet18_image"
        stream = OpenInference(channel).ModelStreamInfer(iter([inference] * _CROWD))
        assert not next(stream).error_message
        answered = 2
        stream.cancel()
    else:
        timeout_s = 1.0 if how == "too late" else None
        calls = [stub.Classify.future(request, timeout=timeout_s) for _ in range(_CROWD)]
        if how == "cancelled":
            while _executed(channel, "resnet18") == before:
                time.sleep(0.05)
            for call in calls:
                call.cancel()
        codes = Counter(call.code() for call in calls)
        answered = codes[CODES.OK]
        assert answered < _CROWD / 2
    # Without a deadline, it is answered after all work that arrived before it.
    stub.Classify(request)
    ran = _executed(channel, "resnet18") - before - 1
    assert answered <= ran <= answered + 2 * _LARGEST_BATCH


class Load:
    """Callers that repeat failed calls as the SDK does, and count them."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.answered = 0
        self.retried: Counter[CODES] = Counter()
        self.lost: list[str] = []
        self.longest_s = 0.0

    def run(self) -> None:
        """Call until the load is stopped."""
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
        with grpc.insecure_channel(self._address, options) as channel:
            stub = _stub(channel)
            while not self._stopping.is_set():
                began = time.monotonic()
                self._call(stub)
                self.longest_s = max(self.longest_s, time.monotonic() - began)

    def stop(self) -> None:
        """Let the callers finish their calls."""
        self._stopping.set()

    def _call(self, stub: Any) -> None:
        request = pb.ClassifyRequest(image=pb.Image(encoded=PICTURE), model="resnet50")
        for pause_s in (*_PAUSES_S, None):
            try:
                answer = stub.Classify(request, timeout=_TIMEOUT_S)
            except grpc.RpcError as error:
                with self._lock:
                    if error.code() in _RETRIED and pause_s is not None:
                        self.retried[error.code()] += 1
                    else:
                        self.lost.append(f"{error.code()}: {error.details()}")
                        return
                time.sleep(pause_s)
            else:
                with self._lock:
                    self.answered += 1
                assert answer.classifications[0].label == "blue"
                return


@contextmanager
def _under_load(address: str) -> Iterator[Load]:
    """Let callers call while the context is open, and assert that they lost nothing."""
    load = Load(address)
    threads = [threading.Thread(target=load.run) for _ in range(_CALLERS)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    try:
        yield load
        time.sleep(1)
    finally:
        load.stop()
        for thread in threads:
            thread.join()
    print(f"answered {load.answered}, retried {dict(load.retried)}, longest {load.longest_s:.2f} s")
    assert load.lost == []
    assert load.answered > 50


@pytest.mark.parametrize("deployment", ["resnet50", "ingress"])
def test_nothing_is_lost_when_a_replica_is_killed(cluster: RayCluster, deployment: str) -> None:
    with _under_load(cluster.address) as load:
        cluster.ask("kill_replica", deployment)
    # The ingress repeats the calls of a model's replica; those of an ingress, the client does.
    assert sum(load.retried.values()) <= (_CALLERS if deployment == "ingress" else 0)


def test_a_rolling_update_loses_no_call_and_ends_no_stream(
    cluster: RayCluster, channels: list[grpc.Channel]
) -> None:
    updated = threading.Event()

    def requests() -> Iterator[oip.ModelInferRequest]:
        while not updated.wait(0.05):
            yield _tensors()

    before = {each["pid"] for each in cluster.ask("replicas")}
    with _under_load(cluster.address) as load, ThreadPoolExecutor() as executor:
        answers = executor.submit(list, OpenInference(channels[0]).ModelStreamInfer(requests()))
        cluster.ask("deploy", "2")
        updated.set()
        assert {each.error_message for each in answers.result()} == {""}
    after = {each["pid"] for each in cluster.ask("replicas")}
    assert not before & after
    assert not load.retried


def test_nothing_is_lost_when_a_node_is_killed(cluster: RayCluster) -> None:
    with _under_load(cluster.address):
        assert cluster.ask("kill_node") > 0
