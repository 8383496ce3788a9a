"""visavis on Ray Serve, on a local cluster of three nodes, beside the plain server."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from visavis.v1 import vision_pb2 as pb
from visavis.v1 import vision_pb2_grpc

from tests.faults.process import ServerProcess
from tests.scenario import assert_same, expected_lines
from tests.server.pictures import encoded, smooth
from tests.server.serving import details
from tests.test_clients import built, run
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


def test_the_clients_scenario_passes_as_against_the_plain_server(
    cluster: RayCluster, plain: ServerProcess, channels: list[grpc.Channel], tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(PICTURE)
    done = run(built("python"), cluster.address, picture)
    assert done.returncode == 0, done.stderr
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


def test_the_open_inference_protocol_gives_the_same_tensors(channels: list[grpc.Channel]) -> None:
    tensor = oip.ModelInferRequest.InferInputTensor(name="images", datatype="FP32")
    tensor.shape.extend((2, 3, 8, 8))
    values = [number / 400 for number in range(2 * 3 * 8 * 8)]
    tensor.contents.fp32_contents.extend(values)
    request = oip.ModelInferRequest(model_name="resnet50", inputs=[tensor])
    picture = oip.ModelInferRequest.InferInputTensor(name="IMAGE", datatype="BYTES", shape=(2, 1))
    picture.contents.bytes_contents.extend((PICTURE, LARGE_PICTURE))
    pictures = oip.ModelInferRequest(model_name="yolov5n_image", inputs=[picture])
    for each in (request, pictures):
        path = "/inference.GRPCInferenceService/ModelInfer"
        ours, plain = (
            channel.unary_unary(
                path,
                oip.ModelInferRequest.SerializeToString,
                oip.ModelInferResponse.FromString,
            )(each)
            for channel in channels
        )
        assert ours == plain


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


def test_a_rolling_update_loses_no_call(cluster: RayCluster) -> None:
    before = {each["pid"] for each in cluster.ask("replicas")}
    with _under_load(cluster.address) as load:
        cluster.ask("deploy", "2")
    after = {each["pid"] for each in cluster.ask("replicas")}
    assert not before & after
    assert not load.retried


def test_nothing_is_lost_when_a_node_is_killed(cluster: RayCluster) -> None:
    with _under_load(cluster.address):
        assert cluster.ask("kill_node") > 0
