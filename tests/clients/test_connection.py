from pathlib import Path

import pytest
from visavis import TLS, Client, InvalidSettings
from visavis.connection import call_metadata, channel_credentials, endpoint

from .fakes import FakeServer


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:8001", True),
        ("localhost:8001", True),
        ("[::1]:8001", True),
        ("unix:/run/visavis.sock", True),
        ("192.168.1.7:8001", False),
        ("vision.example.org:443", False),
        ("localhost.example.org:443", False),
        ("dns:///vision:8001", False),
    ],
)
def test_only_this_machine_counts_as_local(address: str, local: bool):
    assert endpoint(address).local is local


@pytest.mark.parametrize(
    "address", ["", "localhost", "localhost:", "localhost:0", "localhost:99999", "http://a:1", ":1"]
)
def test_invalid_address_is_rejected_with_an_example(address: str):
    with pytest.raises(InvalidSettings, match="write HOST:PORT"):
        Client(address)


def test_token_is_never_sent_in_the_clear():
    with pytest.raises(InvalidSettings, match="in the clear"):
        Client("vision.example.org:8001", token="secret")


def test_token_goes_to_this_machine_and_over_tls():
    expected = [("authorization", "Bearer secret")]
    assert call_metadata(endpoint("127.0.0.1:1"), None, "secret") == expected
    assert call_metadata(endpoint("vision.example.org:1"), TLS(), "secret") == expected


@pytest.mark.parametrize("token", ["", " ", "two\nlines", "schlüssel"])
def test_token_with_characters_not_allowed_in_a_header_is_rejected(token: str):
    with pytest.raises(InvalidSettings, match="token") as caught:
        Client(token=token)
    assert not token.strip() or token not in caught.value.message


def test_certificate_without_its_key_is_rejected(tmp_path: Path):
    with pytest.raises(InvalidSettings, match="private key"):
        channel_credentials(TLS(certificate=tmp_path / "client.pem"))


def test_missing_certificate_file_is_named():
    with pytest.raises(InvalidSettings, match=r"no/roots\.pem"):
        Client(tls=TLS(root_certificates="no/roots.pem"))


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_timeout_must_be_above_zero(timeout: float):
    with pytest.raises(InvalidSettings, match="above 0"):
        Client(timeout=timeout)


def test_headers_are_sent_with_every_call_and_those_of_a_call_replace_them(fake: FakeServer):
    with Client(fake.address, headers={"X-Team": "vision", "x-stage": "test"}) as client:
        client.list_models()
        assert fake.metadata["x-team"] == "vision"
        client.list_models(headers={"x-team": "audio", "x-trace-bin": b"\x00\xff"})
        assert fake.metadata["x-team"] == "audio"
        assert fake.metadata["x-stage"] == "test"
        assert fake.metadata["x-trace-bin"] == b"\x00\xff"
        client.wait_until_ready()
        assert fake.metadata["x-team"] == "vision"


def test_headers_of_a_call_reach_the_server_with_every_method(client: Client, fake: FakeServer):
    headers = {"x-request-id": "mine"}
    for call in (
        lambda: client.classify(b"jpeg", model="resnet50", headers=headers),
        lambda: client.detect(b"jpeg", model="yolov5n", headers=headers),
        lambda: client.compare(b"jpeg", headers=headers),
        lambda: list(client.compare_stream(b"jpeg", headers=headers)),
        lambda: client.get_model("resnet50", headers=headers),
        lambda: list(client.classify_many([b"jpeg"], model="resnet50", headers=headers)),
        lambda: list(client.detect_many([b"jpeg"], model="yolov5n", headers=headers)),
        lambda: list(client.compare_many([b"jpeg"], headers=headers)),
    ):
        fake.metadata.clear()
        call()
        assert fake.metadata["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"authorization": "Bearer secret"}, "set by the option `token`"),
        ({"two words": "x"}, "invalid header name 'two words'"),
        ({"grpc-timeout": "1S"}, "not gRPC's own names"),
        ({"x-team": "bäh"}, "printable ASCII"),
        ({"x-team": "a\nb"}, "printable ASCII"),
        ({"x-team": b"bytes"}, "printable ASCII"),
        ({"x-trace-bin": "text"}, "must be bytes"),
    ],
)
def test_unusable_header_is_rejected_with_the_reason(
    headers: dict[str, str | bytes], text: str, client: Client
):
    with pytest.raises(InvalidSettings, match=text):
        Client(headers=headers)
    with pytest.raises(InvalidSettings, match=text):
        client.list_models(headers=headers)
