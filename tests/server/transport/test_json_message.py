"""Messages in JSON: long base64 is read and written as by protobuf."""

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable

import numpy as np
import pytest
from google.protobuf import json_format
from visavis.v1 import vision_pb2 as pb

from visavis_server.errors import InvalidRequest
from visavis_server.settings import MessageLimits
from visavis_server.transport import json_message

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
        b64encode(NOISE).decode().replace("+", r"\u002B").replace("=", r"\u003d"),
    ],
    ids=["standard", "without padding", "for URLs", "slashes escaped", "as .NET and Java escape"],
)
def test_a_long_picture_is_read_in_every_variant_of_base64(base64: str) -> None:
    request = json_message.read(with_picture(base64), pb.ClassifyRequest, LIMITS)
    expected = pb.ClassifyRequest(model='a "name"', top_k=3, image=pb.Image(encoded=NOISE))
    assert request == expected


def test_a_short_picture_is_read_the_same_way() -> None:
    text = with_picture(b64encode(b"short").decode())
    expected = json_format.Parse(text, pb.ClassifyRequest())
    assert json_message.read(text, pb.ClassifyRequest, LIMITS) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"model": "' + b"a" * 100_000 + b'"}', "a string of 100000 bytes outside of an image"),
        (b'{"labels": [' + b'"", ' * 20_000 + b'""]}', "more than 16384 quotes"),
        (b'{"labels": ["' + b'a", "' * 4000 + rb"\"" * 20_000 + b'"]}', "more than 16384 quotes"),
        (b'{"tasks": [' + b"1," * 40_000 + b"1]}", "brackets, commas and numbers"),
        (b" " * 100_000 + b"{}", "brackets, commas and numbers"),
        (json.dumps({"labels": ["a" * 60_000] * 20}).encode(), "bytes of names and other strings"),
    ],
)
def test_requests_over_the_limits_are_rejected(text: bytes, words: str) -> None:
    with pytest.raises((InvalidRequest, json_format.ParseError)) as error:
        json_message.read(text, pb.DetectRequest, LIMITS)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        b'{"model": "' + b"a" * 100_000,
        b'{"model": "' + b"\\" * 100_000 + b'"}',
        b'{"model": "a", "model": "b"}',
        b'{"image": {"encoded": "QUFB", "encoded": "QUFB"}}',
    ],
)
def test_invalid_json_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  json's error or ours
        json_message.read(text, pb.DetectRequest, LIMITS)


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (
            lambda text: text.replace("U", " ", 1),
            "the character ' ', which form encoding makes of +",
        ),
        (lambda text: text.replace("U", "*", 1), "the character '*'"),
        (lambda text: text.replace("U", "é", 1), "the character 'é'"),
        (lambda text: text.replace("U", "=", 1), "its length or padding"),
        (lambda text: text[:-1] + "\u00a0", "the character '\\xa0'"),
        (lambda text: text + "\n", r"the character '\n'"),
        (lambda text: text + "\\", "the character"),
        (lambda text: text + "A", "its length or padding"),
        (lambda text: text + "=", "its length or padding"),
        (lambda text: text + "==", "its length or padding"),
        (lambda text: text + "====", "its length or padding"),
        (lambda text: text + "AA==AA==", "its length or padding"),
        (lambda text: "data:image/jpeg;base64," + text, "begins with 'data:'"),
        (lambda text: "https://example.org/" + text, "begins with 'https:'"),
    ],
)
def test_invalid_base64_is_rejected_by_its_field(
    spoil: Callable[[str], str], why: str, long: bool
) -> None:
    text = "QUFB" * (500_000 if long else 10)
    for kind, field, name in (
        (pb.ClassifyRequest, "image.encoded", "encoded"),
        (pb.CompareRequest, "image.raw.data", "data"),
    ):
        value = {name: spoil(text)} if name == "encoded" else {"raw": {name: spoil(text)}}
        request = json.dumps({"image": value}, ensure_ascii=False)
        with pytest.raises(InvalidRequest) as refused:
            json_message.read(request.encode(), kind, LIMITS)
        assert refused.value.field == field
        assert str(refused.value).startswith(f"{field} ")
        assert why in str(refused.value)


def test_padding_ends_the_base64_even_at_the_end_of_a_piece() -> None:
    piece = "A" * ((3 << 18) - 2) + "=="
    with pytest.raises(InvalidRequest, match="its length or padding"):
        json_message.read(with_picture(piece + "AAAA"), pb.ClassifyRequest, LIMITS)


def test_both_names_of_a_bytes_field_are_checked() -> None:
    response = b'{"annotated_image": {"encoded": "?"}}'
    for text in (response, response.replace(b"annotated_image", b"annotatedImage")):
        with pytest.raises(InvalidRequest, match=r"annotated_image\.encoded is not base64"):
            json_message.read(text, pb.ClassifyResponse, LIMITS)


@pytest.mark.parametrize("size", [0, 10, 100_000, 2_500_001])
def test_a_response_is_written_as_by_protobuf(size: int) -> None:
    answer = pb.ClassifyResponse(
        classifications=[pb.Classification(class_id=1, label="ü", score=0.5)],
        annotated_image=pb.AnnotatedImage(encoded=NOISE[:size], media_type="image/jpeg"),
    )
    expected = json_format.MessageToJson(
        answer, always_print_fields_with_no_presence=True, indent=None, ensure_ascii=False
    )
    assert json_message.write(answer).decode() == expected
