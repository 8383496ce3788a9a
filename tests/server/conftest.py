"""A repository of tiny models, and a server for it behind a real channel."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import cv2
import hypothesis
import pytest
import pytest_asyncio
import structlog
import uvloop

from visavis_server.app import App
from visavis_server.card import LabelSet, ModelDocument, Provenance
from visavis_server.transport.tokens import NewToken, new_token

from . import graphs, nvidia_driver
from .authority import Authority
from .serving import Served, served_by, settings

# No deadline: the cores may be shared. No database: a failure prints what reproduces it.
hypothesis.settings.register_profile("server", deadline=None, database=None)
hypothesis.settings.load_profile("server")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Try everything on both loops that a server may run on."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def default_logs() -> Iterator[None]:
    """Leave no configuration of the logs behind."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def quick() -> Iterator[None]:
    """Fail a test that takes more than 2 s of CPU where it was 9 or more."""
    began = time.thread_time()
    yield
    assert time.thread_time() - began < 2


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if anything is decoded."""

    def decoded(*args: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(cv2, "imdecode", decoded)


@pytest.fixture(scope="session")
def libcuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake of NVIDIA's driver."""
    return nvidia_driver.build(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def driver(libcuda: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[nvidia_driver.FakeDriver]:
    """A machine with two GPUs: a whole one, and a part of one."""
    with nvidia_driver.in_place(libcuda, monkeypatch) as fake:
        yield fake


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classifiers, one of them in two versions, and two detectors."""
    folder = tmp_path_factory.mktemp("models")

    def add(name: str, version: int, graph: bytes, document: ModelDocument) -> None:
        graphs.put(folder, name, version, graphs.export(graph, document)[0])

    add("colors", 1, graphs.classifier(gain=10), graphs.classifier_document())
    add("colors", 2, graphs.classifier(gain=20), graphs.classifier_document())
    random = Provenance(weights_source="random", random_weights=True, exporter="the tests")
    add("guess", 1, graphs.classifier(gain=-10), graphs.classifier_document(provenance=random))
    add("fragile", 1, graphs.nan_on_black(), graphs.classifier_document())
    add("boxes", 1, graphs.constant(graphs.ROWS), graphs.detector_document())
    fewer = graphs.constant(graphs.ROWS[:, 1:])
    pets = LabelSet(name="pets", labels=("dog", "cat"))
    add("pets", 1, fewer, graphs.detector_document(label_set=pets))
    return folder


@pytest_asyncio.fixture
async def served(models: Path) -> AsyncIterator[Served]:
    async with served_by(App(settings(models))) as served:
        yield served


@pytest.fixture
def token() -> NewToken:
    return new_token("the tests")


@pytest.fixture
def tokens(tmp_path: Path, token: NewToken) -> Path:
    file = tmp_path / "tokens"
    file.write_text(token.line + "\n")
    return file


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "certificates"
    folder.mkdir()
    return Authority(folder)
