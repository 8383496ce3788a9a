"""What a request that can't be answered is told, by `tritonclient.grpc`."""

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient import grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

from .tensors import given, noise, picture, pictures

Client = triton.InferenceServerClient
NOT_FOUND = "StatusCode.NOT_FOUND"
INVALID = "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("ask", "status", "told"),
    [
        (lambda c: c.infer("nobody", given(noise())), NOT_FOUND, "nobody"),
        (lambda c: c.infer("colors", given(noise()), model_version="3"), NOT_FOUND, "colors"),
        (lambda c: c.get_model_metadata("nobody"), NOT_FOUND, "nobody"),
        (lambda c: c.get_model_config("colors", "3"), NOT_FOUND, "colors"),
        (lambda c: c.get_inference_statistics("nobody"), NOT_FOUND, "nobody"),
        (lambda c: c.infer("colors", given(noise()), model_version="v2"), INVALID, "v2"),
        (lambda c: c.infer("colors", given(noise()[:, :, :4])), INVALID, "4"),
        (lambda c: c.infer("colors", given(noise()[0])), INVALID, "8"),
        (lambda c: c.infer("colors", given(noise().astype(np.float64))), INVALID, "FP64"),
        (lambda c: c.infer("colors", given(noise(), "pixels")), INVALID, "pixels"),
        (lambda c: c.infer("colors", [*given(noise()), *given(noise())]), INVALID, "images"),
        (lambda c: c.infer("colors", []), INVALID, "images"),
        (lambda c: c.infer("colors", given(noise(17))), INVALID, "16"),
        (
            lambda c: c.infer(
                "colors", given(noise()), outputs=[triton.InferRequestedOutput("scores")]
            ),
            INVALID,
            "scores",
        ),
        (lambda c: c.infer("colors_image", pictures(b"no picture")), INVALID, "image"),
        (lambda c: c.infer("colors_image", given(noise(), "IMAGE")), INVALID, "FP32"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    ask: Callable[[Client], Any], status: str, told: str, client: Client
) -> None:
    with pytest.raises(triton.InferenceServerException) as refused:
        ask(client)
    assert refused.value.status() == status
    assert told in refused.value.message()


def request() -> service_pb2.ModelInferRequest:
    message = service_pb2.ModelInferRequest(model_name="colors")
    message.inputs.add(name="images", datatype="FP32", shape=[1, 3, 8, 8])
    return message


def test_bytes_that_do_not_fill_the_shape_are_refused(address: str) -> None:
    short = request()
    short.raw_input_contents.append(noise().tobytes()[:-4])
    huge = request()
    huge.inputs[0].shape[0] = 2**62
    huge.raw_input_contents.append(noise().tobytes())
    negative = request()
    negative.inputs[0].shape[0] = -1
    negative.raw_input_contents.append(noise().tobytes())
    for message in (short, huge, negative):
        assert refusal(address, message) == grpc.StatusCode.INVALID_ARGUMENT


def test_contents_are_raw_or_typed_and_not_both_and_not_neither(address: str) -> None:
    both = request()
    both.inputs[0].contents.fp32_contents.extend(noise().ravel().tolist())
    both.raw_input_contents.append(noise().tobytes())
    other_type = request()
    other_type.inputs[0].contents.int_contents.extend([0] * 192)
    for message in (both, request(), other_type):
        assert refusal(address, message) == grpc.StatusCode.INVALID_ARGUMENT


def test_bytes_whose_lengths_lie_are_refused(address: str) -> None:
    message = service_pb2.ModelInferRequest(model_name="colors_image")
    message.inputs.add(name="IMAGE", datatype="BYTES", shape=[1, 1])
    message.raw_input_contents.append(b"\xff\xff\xff\xffshort")
    assert refusal(address, message) == grpc.StatusCode.INVALID_ARGUMENT


def refusal(address: str, message: service_pb2.ModelInferRequest) -> grpc.StatusCode:
    """Return the status that a request is refused with."""
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(message)
    return refused.value.code()


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda c: c.get_system_shared_memory_status(), "shared memory is not supported"),
        (
            lambda c: c.register_system_shared_memory("region", "/key", 64),
            "send tensors in the request",
        ),
        (lambda c: c.unregister_system_shared_memory(), "shared memory is not supported"),
        (lambda c: c.get_cuda_shared_memory_status(), "shared memory is not supported"),
        (lambda c: c.unregister_cuda_shared_memory(), "shared memory is not supported"),
        (lambda c: c.get_trace_settings("colors"), "start the server with --trace"),
        (lambda c: c.update_trace_settings(settings={"trace_rate": "1"}), "--trace"),
        (lambda c: c.get_log_settings(), "--log-level and --log-format"),
        (lambda c: c.update_log_settings({"log_verbose_level": 1}), "--log-level"),
        # What is compressed can be far larger than it looks.
        (
            lambda c: c.infer("colors", given(noise()), compression_algorithm="gzip"),
            "Compression algorithm 'gzip' is disabled",
        ),
    ],
)
def test_what_is_not_served_is_not_implemented(
    ask: Callable[[Client], Any], told: str, client: Client
) -> None:
    with pytest.raises(triton.InferenceServerException) as refused:
        ask(client)
    assert refused.value.status() == "StatusCode.UNIMPLEMENTED"
    assert told in refused.value.message()


def test_classification_of_boxes_is_refused_and_not_ignored(client: Client) -> None:
    wanted = [triton.InferRequestedOutput("labels", class_count=2)]
    with pytest.raises(triton.InferenceServerException) as refused:
        client.infer("colors_image", pictures(picture("red")), outputs=wanted)
    assert refused.value.status() == INVALID
