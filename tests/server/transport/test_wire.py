"""Counting a message's fields before it is parsed, and removing a field."""

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st
from visavis.v1 import vision_pb2 as pb

from visavis_server.api.inference import grpc_service_pb2 as oip
from visavis_server.errors import InvalidRequest
from visavis_server.settings import MessageLimits
from visavis_server.transport.wire import delimited, require_few_fields, without

LIMITS = MessageLimits(fields=100, text_bytes=1000)
PADDING = pb.DetectRequest(image=pb.Image(encoded=bytes(2000)))


def refused(message: Message) -> str:
    with pytest.raises(InvalidRequest) as error:
        require_few_fields(message.SerializeToString(), type(message), LIMITS)
    assert error.value.field == "request"
    return str(error.value)


def accept(message: Message) -> None:
    require_few_fields(message.SerializeToString(), type(message), LIMITS)


def test_fields_count_at_every_level() -> None:
    # The image and its encoded picture are two fields.
    accept(pb.DetectRequest(image=PADDING.image, labels=["a"] * 98))
    assert "more than 100 fields" in refused(
        pb.DetectRequest(image=PADDING.image, labels=["a"] * 99)
    )
    parameters = {f"{i}": oip.InferParameter(int64_param=i) for i in range(30)}
    message = oip.ModelInferRequest(raw_input_contents=[bytes(2000)])
    message.inputs.add()
    accept(message)
    for name, value in parameters.items():  # An entry, its key, its value, the number in it.
        message.inputs[0].parameters[name].CopyFrom(value)
    assert "more than 100 fields" in refused(message)


def test_packed_integers_count_one_by_one_and_floats_do_not() -> None:
    message = oip.ModelInferRequest(raw_input_contents=[bytes(2000)])
    tensor = message.inputs.add(shape=[1] * 101)
    assert "more than 100 fields" in refused(message)
    del tensor.shape[:]
    tensor.contents.fp32_contents.extend([1.0] * 1000)
    accept(message)
    assert "more than 100 fields" in refused(
        pb.CompareRequest(image=PADDING.image, tasks=[pb.TASK_CLASSIFICATION] * 101)
    )


def test_strings_count_together_and_pictures_do_not() -> None:
    accept(pb.DetectRequest(image=PADDING.image, model="a" * 500, labels=["b" * 500]))
    assert "more than 1000 bytes of names" in refused(
        pb.DetectRequest(image=PADDING.image, model="a" * 500, labels=["b" * 501])
    )


def test_unknown_fields_count() -> None:
    unknown = b"\x82\x7d\x00" * 101  # number 2000, empty
    with pytest.raises(InvalidRequest, match="more than 100 fields"):
        require_few_fields(unknown, pb.ListModelsRequest, LIMITS)


@pytest.mark.parametrize(
    "end",
    [b"\x80", b"\x80" * 11, b"\x0a", b"\x0a\x05abc", b"\x09abc", b"\x0d", b"\x0b\x0c", b"\x0f"],
)
def test_invalid_bytes_are_rejected_and_never_read_past_their_end(end: bytes) -> None:
    data = PADDING.SerializeToString() + end
    with pytest.raises(InvalidRequest, match="not a message"):
        require_few_fields(data, pb.DetectRequest, LIMITS)
    with pytest.raises(InvalidRequest, match="not a message"):
        without(data, 1000)


@given(st.binary(max_size=200), st.sampled_from([pb.CompareRequest, oip.ModelInferRequest]))
def test_messages_that_protobuf_parses_are_accepted_or_over_a_limit(
    data: bytes, kind: type[Message]
) -> None:
    data += PADDING.SerializeToString()
    try:
        kind.FromString(data)
    except DecodeError:
        return
    try:
        require_few_fields(data, kind, LIMITS)
    except InvalidRequest as error:
        # Groups are legal, and no client sends them.
        assert "more than" in str(error) or any(byte & 7 in (3, 4) for byte in data)  # noqa: PT017


@given(st.lists(st.binary(max_size=9)), st.text(max_size=9), st.integers(0, 3))
def test_a_field_is_removed_at_any_position(contents: list[bytes], name: str, at: int) -> None:
    message = oip.ModelInferRequest(model_name=name, id="x")
    message.inputs.add(name="y", shape=[1, 2])
    raw = b"".join(piece for each in contents for piece in delimited(7, [each]))
    plain = message.SerializeToString()
    for data in (raw + plain, plain + raw):
        left, found = without(data, 7)
        assert oip.ModelInferRequest.FromString(left) == message
        assert [bytes(each) for each in found] == contents


def test_fields_are_written_as_by_protobuf() -> None:
    for size in (0, 1, 127, 128, 16384):
        response = oip.ModelInferResponse(raw_output_contents=[b"a" * size])
        assert b"".join(delimited(6, [b"a" * size])) == response.SerializeToString()
