"""Tensors on the wire: round trips, and errors that name their field."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from visavis_server.api.inference import grpc_service_pb2 as pb
from visavis_server.api.inference import tensors
from visavis_server.api.inference.tensors import write_response
from visavis_server.errors import InvalidRequest

KINDS = ("?", "u1", "<u2", "<u4", "<u8", "i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8")
NUMBERS = st.sampled_from(KINDS).flatmap(
    lambda kind: arrays.arrays(np.dtype(kind), arrays.array_shapes(min_side=0, max_side=4))
)


def read_inputs(request: pb.ModelInferRequest) -> dict[str, Any]:
    return tensors.read_inputs(tensors.Request.FromString(request.SerializeToString()))


def written(outputs: dict[str, Any], raw: bool) -> pb.ModelInferResponse:
    return pb.ModelInferResponse.FromString(write_response(pb.ModelInferResponse(), outputs, raw))


def sent(response: pb.ModelInferResponse) -> pb.ModelInferRequest:
    """Return a request whose inputs are a response's outputs."""
    request = pb.ModelInferRequest(raw_input_contents=response.raw_output_contents)
    for output in response.outputs:
        request.inputs.add().ParseFromString(output.SerializeToString())
    return request


def one(datatype: str, shape: list[int], raw: bytes | None = None, **typed: Any) -> Any:
    request = pb.ModelInferRequest()
    tensor = request.inputs.add(name="x", datatype=datatype, shape=shape)
    if raw is not None:
        request.raw_input_contents.append(raw)
    for field, values in typed.items():
        getattr(tensor.contents, field).extend(values)
    return request


@given(NUMBERS, st.booleans())
def test_numbers_survive_the_round_trip(array: np.ndarray[Any, Any], raw: bool) -> None:
    raw = raw or array.dtype == np.float16
    (read,) = read_inputs(sent(written({"x": array}, raw))).values()
    assert read.dtype == array.dtype and read.shape == array.shape
    np.testing.assert_array_equal(read, array)


@given(st.lists(st.binary(max_size=9), min_size=1), st.booleans())
def test_bytes_survive_the_round_trip(elements: list[bytes], raw: bool) -> None:
    array = np.empty((len(elements), 1), object)
    array[:, 0] = elements
    (read,) = read_inputs(sent(written({"x": array}, raw))).values()
    assert read.shape == array.shape and list(read.ravel()) == elements


def test_raw_is_little_endian_with_lengths_in_front_of_bytes() -> None:
    words = np.array(["ab", ""], object)
    response = written({"n": np.array([1, -2], np.int64), "w": words}, raw=True)
    assert [output.datatype for output in response.outputs] == ["INT64", "BYTES"]
    assert response.raw_output_contents == [
        struct.pack("<2q", 1, -2),
        struct.pack("<I2sI", 2, b"ab", 0),
    ]
    assert not response.outputs[0].HasField("contents")


def test_typed_outputs_have_one_field_each_and_nothing_raw() -> None:
    response = written({"x": np.array([[0.5]], np.float32)}, raw=False)
    assert response.outputs[0].contents.fp32_contents == [0.5]
    assert list(response.outputs[0].shape) == [1, 1] and not response.raw_output_contents


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        (
            one("FP32", [2], b"1234"),
            "inputs[0].shape",
            "has 2 elements of FP32; the contents have 1",
        ),
        (one("FP32", [1], b"123"), "inputs[0].shape", "not a multiple of the size of FP32"),
        (one("FP32", [-1], b""), "inputs[0].shape", "dimensions must be at least 0"),
        (one("FP32", [2**40, 2**40], b""), "inputs[0].shape", "the contents have 0"),
        (one("FP32", [2**62] * 9, b""), "inputs[0].shape", "has 9 dimensions; the limit is 8"),
        (one("BYTES", [5000], bytes(20_000)), "inputs[0].contents", "more than 4096 elements"),
        (one("FP99", [1], b""), "inputs[0].datatype", "choose one of BOOL, UINT8"),
        (one("FP16", [1], fp32_contents=[1]), "inputs[0].contents", "no typed contents"),
        (one("UINT8", [1], uint_contents=[256]), "inputs[0].contents", "out of range for UINT8"),
        (one("INT64", [1], fp32_contents=[1]), "inputs[0].shape", "the contents have 0"),
        (
            one("BYTES", [1], b"\xff\xff\xff\xff"),
            "inputs[0].contents",
            "more than the contents have left",
        ),
        (one("BYTES", [1], b"\x01"), "inputs[0].contents", "more than the contents have left"),
        (pb.ModelInferRequest(raw_input_contents=[b""]), "raw_input_contents", "1 raw contents"),
    ],
)
def test_an_invalid_tensor_is_rejected_by_its_field(request_: Any, field: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        read_inputs(request_)
    assert error.value.field == field and words in str(error.value)


def test_repeated_inputs_and_shared_memory_are_rejected() -> None:
    request = one("FP32", [1], fp32_contents=[1])
    request.inputs.append(request.inputs[0])
    with pytest.raises(InvalidRequest, match="is repeated"):
        read_inputs(request)
    request = one("FP32", [1], b"1234", fp32_contents=[1])
    with pytest.raises(InvalidRequest, match="both raw and typed contents"):
        read_inputs(request)
    request = one("FP32", [1])
    request.inputs[0].parameters["shared_memory_region"].string_param = "secret"
    with pytest.raises(InvalidRequest, match="shared memory is not supported"):
        read_inputs(request)


@pytest.mark.parametrize("begins", [b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xdb", b"\x89PNG", b"RIFF"])
def test_a_single_picture_needs_no_length(begins: bytes) -> None:
    picture = begins + bytes(100)
    (read,) = read_inputs(one("BYTES", [1, 1], raw=picture)).values()
    assert read.tolist() == [[picture]]
    with pytest.raises(InvalidRequest, match="has 2 elements of BYTES; the contents have 1"):
        read_inputs(one("BYTES", [2, 1], raw=picture))


@pytest.mark.parametrize("data", [b"RIF", b"GIF89a", b"\x08\x00\x00\x00RIFF", b"RIF\x00"])
def test_other_bytes_need_their_length(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="preceded by its length in 4 bytes, little-endian"):
        read_inputs(one("BYTES", [1], raw=data))


def test_empty_raw_contents_beside_typed_ones_are_ignored() -> None:
    number = np.float32(7).tobytes()
    request = one("FP32", [1], raw=number)
    request.inputs[0].contents.SetInParent()
    (read,) = read_inputs(request).values()
    assert read.tolist() == [7]
    request = one("FP32", [1], raw=b"", fp32_contents=[7])
    assert not tensors.Request.FromString(request.SerializeToString()).raw
    (read,) = read_inputs(request).values()
    assert read.tolist() == [7]


def test_raw_and_typed_contents_together_are_rejected() -> None:
    request = one("FP32", [1], raw=np.float32(7).tobytes(), fp32_contents=[7])
    with pytest.raises(InvalidRequest, match="both raw and typed contents"):
        read_inputs(request)
