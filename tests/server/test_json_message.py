"""Messages in JSON: long base64 is read and written as protobuf's own code does."""

import json
import re
from base64 import b64encode, urlsafe_b64encode

import numpy as np
import pytest
from google.protobuf import json_format
from visavis.v1 import vision_pb2 as pb

from server import json_message
from server.errors import InvalidRequest
from server.settings import MessageLimits

LIMITS = MessageLimits()
NOISE = np.random.default_rng(0).bytes(2_500_001)


def with_picture(base64: str) -> bytes:
    return b'{"model": "a \\"name\\"", "image": {"encoded": "' + base64.encode() + b'"}, "topK": 3}'


@pytest.mark.parametrize(
    "base64",
    [
        b64encode(NOISE).decode(),
        b64encode(NOISE).decode().rstrip("="),
        urlsafe_b64encode(NOISE).decode(),
        b64encode(NOISE).decode().replace("/", r"\/"),
        r"\r\n".join(re.findall(".{1,76}", b64encode(NOISE).decode())),
    ],
    ids=["standard", "without padding", "for URLs", "slashes escaped", "in lines"],
)
def test_a_long_picture_is_read_whichever_base64_it_is_in(base64: str) -> None:
    request = json_message.read(with_picture(base64), pb.ClassifyRequest, LIMITS)
    expected = pb.ClassifyRequest(model='a "name"', top_k=3, image=pb.Image(encoded=NOISE))
    assert request == expected


def test_a_short_picture_is_read_likewise() -> None:
    text = with_picture(b64encode(b"short").decode())
    expected = json_format.Parse(text, pb.ClassifyRequest())
    assert json_message.read(text, pb.ClassifyRequest, LIMITS) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"model": "' + b"a" * 100_000 + b'"}', "a text of 100000 bytes where no image belongs"),
        (b'{"labels": [' + b'"", ' * 20_000 + b'""]}', "more than 16384 quotes"),
        (b'{"labels": ["' + b'a", "' * 4000 + rb"\"" * 20_000 + b'"]}', "more than 16384 quotes"),
        (b'{"tasks": [' + b"1," * 40_000 + b"1]}", "brackets, commas and numbers"),
        (b" " * 100_000 + b"{}", "brackets, commas and numbers"),
        (json.dumps({"labels": ["a" * 60_000] * 20}).encode(), "bytes of names and other texts"),
    ],
)
def test_more_than_the_limits_allow_is_refused(text: bytes, words: str) -> None:
    with pytest.raises((InvalidRequest, json_format.ParseError)) as error:
        json_message.read(text, pb.DetectRequest, LIMITS)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        b'{"model": "' + b"a" * 100_000,
        b'{"model": "' + b"\\" * 100_000 + b'"}',
        b'{"image": {"encoded": "' + rb"\u0041" * 20_000 + b'"}}',
        b'{"image": {"encoded": "' + b"A" * 100_001 + b'"}}',
    ],
)
def test_what_is_no_json_and_no_base64_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  whatever says so
        json_message.read(text, pb.DetectRequest, LIMITS)


@pytest.mark.parametrize("size", [0, 10, 100_000, 2_500_001])
def test_an_answer_is_written_as_protobuf_writes_it(size: int) -> None:
    answer = pb.ClassifyResponse(
        classifications=[pb.Classification(class_id=1, label="ü", score=0.5)],
        annotated_image=pb.AnnotatedImage(encoded=NOISE[:size], media_type="image/jpeg"),
    )
    expected = json_format.MessageToJson(
        answer, always_print_fields_with_no_presence=True, indent=None, ensure_ascii=False
    )
    assert json_message.write(answer).decode() == expected
