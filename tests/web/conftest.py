"""A playground with tiny models, and a browser that looks at it."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from visavis import Client

from tests import npm
from tests.faults.conftest import slow
from tests.faults.process import ServerProcess, until
from tests.server import graphs
from visavis_server.card import DetectionDefaults, Provenance

from .page import Browser, Page

FOLDER = Path(__file__).parent
# Debian's name comes first.
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
READY = '"event": "ready"'
# One object that `boxes` sees too, and two that it doesn't; its dog is missed.
OTHER_ROWS = graphs.yolov5_rows(
    (21, 20, 20, 20, 1.0, 0.85, 0.1),
    (50, 15, 12, 12, 0.9, 0.1, 0.7),
    (15, 52, 16, 12, 0.5, 0.9, 0.1),
)
RANDOM = Provenance(weights_source="random", exporter="the tests", random_weights=True)

Open = Callable[..., Page]


class Playground(ServerProcess):
    """A server with a page."""

    def __init__(self, models: Path, folder: Path, *options: str, **environment: str) -> None:
        super().__init__(models, folder, "--http", "127.0.0.1:0", *options, **environment)
        self._scheme = "https" if "--tls-certificate" in options else "http"

    def wait_until_ready(self) -> None:
        """Wait until it says so in its log, where health is not for everybody."""
        until(lambda: READY in self.log, f"the server is not ready: {self.log[-2000:]}")

    @property
    def url(self) -> str:
        """Where the page is."""
        (ready,) = [json.loads(line) for line in self.log.splitlines() if READY in line]
        return f"{self._scheme}://{ready['http']}/"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository: classifiers that name colours, one of which can't when it is dark,
    and detectors that see the same in every picture."""
    folder = tmp_path_factory.mktemp("web-models")
    tiny = {
        "boxes": (graphs.constant(graphs.ROWS), graphs.detector_document()),
        "boxes-other": (graphs.constant(OTHER_ROWS), graphs.detector_document()),
        "colors": (graphs.classifier(), graphs.classifier_document()),
        "colors-fragile": (graphs.nan_on_black(), graphs.classifier_document()),
        "colors-soft": (graphs.classifier(3.0), graphs.classifier_document()),
    }
    for name, (graph, document) in tiny.items():
        graphs.put(folder, name, 1, graphs.export(graph, document)[0])
    return folder


@pytest.fixture(scope="session")
def odd_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository: a classifier that takes its time and one that doesn't; and a single
    detector, with random weights and a threshold of its own."""
    folder = tmp_path_factory.mktemp("odd-models")
    document = graphs.detector_document(
        provenance=RANDOM,
        detection_defaults=DetectionDefaults(score_threshold=0.5, iou_threshold=0.45),
    )
    colors, _ = graphs.export(graphs.classifier(), graphs.classifier_document())
    boxes, _ = graphs.export(graphs.constant(graphs.ROWS), document)
    for name, contents in {"boxes": boxes, "colors": colors, "slow": slow()}.items():
        graphs.put(folder, name, 1, contents)
    return folder


@pytest.fixture(scope="session")
def playground(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    with Playground(models, tmp_path_factory.mktemp("web")) as server:
        yield server


@pytest.fixture(scope="session")
def odd_playground(
    odd_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Playground]:
    with Playground(odd_models, tmp_path_factory.mktemp("odd-web")) as server:
        yield server


@pytest.fixture(scope="session")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """A playground with a classifier and a detector that can be explained, and one that can't."""
    folder = tmp_path_factory.mktemp("explained-models")
    random = np.random.default_rng(5)
    maps = [random.normal(size=(1, 14, 64 // s, 64 // s)) for s in graphs.STRIDES]
    heads = graphs.constant(*graphs.split_heads(maps))
    tiny = {
        "explained": (graphs.explained_classifier(), graphs.explained_document()),
        "heads": (heads, graphs.detector_document(output=graphs.yolov5_heads())),
        "old": (graphs.classifier(), graphs.classifier_document()),
    }
    for name, (graph, document) in tiny.items():
        graphs.put(folder, name, 1, graphs.export(graph, document)[0])
    with Playground(folder, tmp_path_factory.mktemp("explained-web")) as server:
        yield server


@pytest.fixture(scope="session")
def client(playground: Playground) -> Iterator[Client]:
    """The same server, asked over gRPC: what the page shows is held against it."""
    with Client(playground.address) as client:
        yield client


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = [path for name in CHROMIUM if (path := shutil.which(name))]
    node = shutil.which("node")
    if not found or not node:
        npm.missing("needs Chromium and Node")
    npm.installed(FOLDER, "playwright-core")
    browser = Browser(node, found[0])
    yield browser
    browser.close()


@pytest.fixture
def open_page(browser: Browser, playground: Playground) -> Iterator[Open]:
    """Return a function that opens the page; nothing may be wrong with it when it is closed."""
    pages: list[Page] = []

    def open_page(url: str = playground.url, **options: object) -> Page:
        assert not pages, "one at a time"
        pages.append(Page(browser, url, **options))
        return pages[0]

    yield open_page
    for page in pages:
        assert page.close() == page.expected_troubles


@pytest.fixture
def page(open_page: Open) -> Page:
    return open_page()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture, wider than high, of one warm colour."""
    return painted(tmp_path / "warm.png", (640, 480), (200, 120, 90))


def painted(path: Path, size: tuple[int, int], color: tuple[int, int, int]) -> Path:
    """Write a picture of one colour; return its path."""
    Image.new("RGB", size, color).save(path)
    return path


def switch_heat_maps(page: Page) -> Any:
    """Click the switch; return what is seen once all models have answered again."""
    before = len(page.asked)
    page.do("click", selector="#explain")
    for _ in range(200):
        if len(page.asked) > before:
            break
        page.do("evaluate", script="() => new Promise(done => setTimeout(done, 20))", given=None)
    assert len(page.asked) == before + 1
    return page.answered()
