"""A server to talk to, and a terminal of known width."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from visavis import Client
from visavis.commands import main

from . import fakes


@pytest.fixture
def fake() -> Iterator[fakes.FakeServer]:
    fake = fakes.FakeServer()
    server = fakes.started(fake)
    yield fake
    server.stop(None).wait()


@pytest.fixture
def client(fake: fakes.FakeServer) -> Iterator[Client]:
    with Client(fake.address, timeout=20) as client:
        yield client


@pytest.fixture
def nobody() -> str:
    """An address without a listener: its port was just released."""
    fake = fakes.FakeServer()
    fakes.started(fake).stop(None).wait()
    return fake.address


@pytest.fixture
def visavis(fake: fakes.FakeServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command, talking to the fake server, 80 columns wide."""
    monkeypatch.setenv("VISAVIS_SERVER", fake.address)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return lambda *args: main([str(arg) for arg in args])


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Files that contain their own names, which is enough for the fake server."""
    paths = [tmp_path / f"{name}.jpg" for name in "abcdef"]
    for path in paths:
        path.write_bytes(path.stem.encode())
    return paths
