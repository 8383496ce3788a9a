from pathlib import Path

import grpc
import pytest
import visavis
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2
from visavis import errors

from .fakes import FakeServer, bad_field, refusal


def test_bad_request_names_the_field(client: visavis.Client, fake: FakeServer):
    fake.answers["Classify"] = refusal(
        code_pb2.INVALID_ARGUMENT,
        "top_k is 0; it starts at 1",
        bad_field("top_k", "starts at 1"),
        error_details_pb2.RequestInfo(request_id="3f2a"),
    )
    with pytest.raises(visavis.InvalidRequest) as caught:
        client.classify(b"jpeg", model="resnet50", top_k=0)
    error = caught.value
    assert str(error) == "top_k is 0; it starts at 1"
    assert (error.code, error.field, error.request_id) == ("INVALID_ARGUMENT", "top_k", "3f2a")
    assert error.violations == (errors.FieldViolation("top_k", "starts at 1"),)
    assert isinstance(error.__cause__, grpc.RpcError)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (code_pb2.NOT_FOUND, errors.ModelNotFound),
        (code_pb2.UNAUTHENTICATED, errors.AccessDenied),
        (code_pb2.PERMISSION_DENIED, errors.AccessDenied),
        (code_pb2.UNIMPLEMENTED, errors.Unsupported),
        (code_pb2.RESOURCE_EXHAUSTED, errors.Overloaded),
        (code_pb2.CANCELLED, errors.Cancelled),
        (code_pb2.UNKNOWN, errors.ServerFailed),
        (code_pb2.DATA_LOSS, errors.ServerFailed),
    ],
)
def test_every_status_has_its_error(
    client: visavis.Client, fake: FakeServer, code: int, kind: type[visavis.VisavisError]
):
    fake.answers["ListModels"] = refusal(code, "because")
    with pytest.raises(kind, match="because") as caught:
        client.list_models()
    assert caught.value.code == code_pb2.Code.Name(code)


def test_overload_has_a_retry_time_and_is_not_retried(client: visavis.Client, fake: FakeServer):
    fake.answers["Detect"] = refusal(
        code_pb2.RESOURCE_EXHAUSTED,
        "64 requests are waiting",
        error_details_pb2.RetryInfo(retry_delay=Duration(nanos=250_000_000)),
    )
    with pytest.raises(visavis.Overloaded) as caught:
        client.detect(b"jpeg", model="yolov5n")
    assert caught.value.retry_after_s == 0.25
    assert fake.calls["Detect"] == 1


@pytest.mark.parametrize(
    ("side", "text_part"),
    [
        ("SERVER", r"the request is 50 bytes; the server's limit \(max_message_bytes\) is 40"),
        ("CLIENT", "the response is 50 bytes; this client's limit is 40"),
    ],
)
def test_a_message_too_large_for_grpc_is_an_invalid_request(
    client: visavis.Client, fake: FakeServer, side: str, text_part: str
):
    def refuse(request: object, context: grpc.ServicerContext) -> None:
        text = f"{side}: Received message larger than max (50 vs. 40)"
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)

    fake.answers["Detect"] = refuse
    with pytest.raises(visavis.InvalidRequest, match=text_part) as caught:
        client.detect(b"jpeg", model="yolov5n")
    assert caught.value.code == "RESOURCE_EXHAUSTED"


def test_a_call_cut_off_by_a_proxy_is_reported_as_such(client: visavis.Client, fake: FakeServer):
    def cut_off(request: object, context: grpc.ServicerContext) -> None:
        text = "Stream removed (RST_STREAM (Received RST_STREAM with error code 8))"
        context.abort(grpc.StatusCode.CANCELLED, text)

    fake.answers["Detect"] = cut_off
    with pytest.raises(
        errors.Cancelled, match=r"a proxy or a stopping server cut off.*HAProxy before 3\.0"
    ):
        client.detect(b"jpeg", model="yolov5n")
    assert fake.calls["Detect"] == 4


def test_server_failure_has_the_request_id_of_the_log(client: visavis.Client, fake: FakeServer):
    info = error_details_pb2.RequestInfo(request_id="3f2a")
    fake.answers["Detect"] = refusal(code_pb2.INTERNAL, "internal error", info)
    with pytest.raises(visavis.ServerFailed, match=r"internal error \(request id 3f2a"):
        client.detect(b"jpeg", model="yolov5n")


def test_missing_server_is_named(nobody: str):
    with visavis.Client(nobody) as client, pytest.raises(visavis.Unavailable) as caught:
        client.list_models()
    assert str(caught.value).startswith(f"no answer from {nobody}: ")


def test_only_the_systems_own_message_is_kept(tmp_path: Path):
    socket = f"unix:{tmp_path}/none"
    with visavis.Client(socket) as client, pytest.raises(visavis.Unavailable) as caught:
        client.list_models()
    assert str(caught.value).startswith(f"no answer from {socket}: No such file or directory")


def test_details_that_contradict_their_status_are_ignored(client: visavis.Client, fake: FakeServer):
    def contradict(request: object, context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata([("grpc-status-details-bin", b"\x08\x05")])
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no image")

    fake.answers["Classify"] = contradict
    with pytest.raises(visavis.InvalidRequest, match="no image"):
        client.classify(b"jpeg", model="resnet50")
