"""What all tests share: real weights and pictures, models exported from them, a server.

Without real data, clients are tried with small models and pictures made here.
"""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image
from visavis import Client

from tests import npm
from tests.samples import Samples, small
from tests.surroundings import Surroundings
from visavis_server.app import App
from visavis_server.settings import Settings

# Settings of the developer's own shell must not leak into tests; these two say where data is.
_DATA = ("VISAVIS_WEIGHTS", "VISAVIS_IMAGES")
_GIVEN = {name: Path(value) for name in _DATA if (value := os.environ.get(name))}
for _name in [name for name in os.environ if name.startswith("VISAVIS_")]:
    del os.environ[_name]

# A process takes whole files. These take minutes, and would keep one core busy after the others.
_FIRST = {
    f"test_{name}.py"
    for name in (
        *("torchvision_detectors", "variants", "faithfulness", "exporter", "clients"),
        *("ultralytics_files", "gate_of_real_models", "process"),
    )
}

_OPEN = Image.open

# Tests that run side by side divide the cores. Libraries read this when they are imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of pytest-xdist where the data is: it inherits an environment without."""
    node.workerinput["data"] = {name: str(path) for name, path in _GIVEN.items()}


def pytest_configure(config: pytest.Config) -> None:
    """Take what pytest_configure_node told."""
    told: dict[str, str] = getattr(config, "workerinput", {}).get("data", {})
    _GIVEN.update({name: Path(path) for name, path in told.items()})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first; the order within a file stays."""
    items.sort(key=lambda item: item.path.name not in _FIRST)


def _folder(variable: str) -> Path:
    """Return a folder of real data; where the variable is set, it must be there."""
    if variable not in _GIVEN:
        pytest.skip(f"needs real data: set {variable}")
    assert _GIVEN[variable].is_dir(), f"{variable} names no folder: {_GIVEN[variable]}"
    return _GIVEN[variable].resolve()


@pytest.fixture(autouse=True)
def untouched_pillow() -> None:
    """Undo what ultralytics does to Pillow in a process that has imported it for another test."""
    Image.open = _OPEN


@pytest.fixture
def minimal_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    """Give the processes that a test starts PATH, HOME and an empty working directory."""
    found = Surroundings.under(tmp_path / "surroundings")
    environment = found.environment()
    for name in set(os.environ) - set(environment):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(found.elsewhere)
    return found


@pytest.fixture(scope="session")
def weights() -> Path:
    """Return the folder with resnet50.pth, resnet18.pth and yolov5n.pt."""
    return _folder("VISAVIS_WEIGHTS")


@pytest.fixture(scope="session")
def images() -> Path:
    """Return the folder with bus.jpg, zidane.jpg, imagenet/ and coco/."""
    return _folder("VISAVIS_IMAGES")


@pytest.fixture(scope="session")
def real_models(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with models exported from real weights, and a random -cls one.

    Processes of pytest-xdist share it: the first that asks for a model exports it.
    """
    from rich.progress import Progress

    from visavis_export.exporter import Request, export

    own, worker = tmp_path_factory.getbasetemp(), os.environ.get("PYTEST_XDIST_WORKER", "")
    models = (own.parent if worker else own) / "real-models"
    models.mkdir(exist_ok=True)
    given = dict.fromkeys(("resnet50", "yolov5n", "resnet18"), str(weights))
    requests = [*given.items(), ("yolov5n-cls", "random")]
    # Two processes begin at different ends, so that neither waits long for the other.
    if int(worker.removeprefix("gw") or 0) % 2:
        requests.reverse()
    for name, source in requests:
        with FileLock(f"{models}-{name}.lock"):
            if not (models / name).exists():
                out = tmp_path_factory.mktemp("models")
                export(Request(name, out, weights=source), Progress(disable=True))
                (out / name).rename(models / name)
    return models


@pytest.fixture(scope="session")
def real_client(real_models: Path) -> Iterator[Client]:
    """Return a client of a server with the real models, in this process, over a real channel."""
    with serving(Settings(models=real_models, grpc="127.0.0.1:0", device="cpu")) as client:
        yield client


@pytest.fixture(scope="session")
def npm_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty project of npm with the TypeScript library."""
    return npm.project(tmp_path_factory.mktemp("npm"))


@pytest.fixture(scope="session")
def samples(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Return what clients are tried with: real models and pictures if they are given, else small.

    For tests whose expected values come from the server itself, or from both kinds of models.
    """
    if not _GIVEN:
        return small(tmp_path_factory.mktemp("samples"))
    return _published(
        request.getfixturevalue("weights"),
        request.getfixturevalue("images"),
        request.getfixturevalue("real_models"),
    )


@pytest.fixture(scope="session")
def sample_pictures(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ...]:
    """Return the samples' 200 pictures, for tests that need no model of theirs."""
    if not _GIVEN:
        return small(tmp_path_factory.mktemp("samples")).pictures
    return _photographs(request.getfixturevalue("images"))


def _photographs(images: Path) -> tuple[Path, ...]:
    return tuple(sorted((images / "imagenet").glob("*.JPEG"))[:200])


def _published(weights: Path, images: Path, models: Path) -> Samples:
    from rich.progress import Progress

    from visavis_export.exporter import Request, export

    def put_smaller(out: Path) -> None:
        request = Request("yolov5n", out, weights=str(weights), name="yolov5n-320", size=320)
        export(request, Progress(disable=True))

    return Samples(
        real=True,
        models=models,
        put_smaller=put_smaller,
        bus=images / "bus.jpg",
        best="minibus",
        zidane=images / "zidane.jpg",
        pictures=_photographs(images),
    )


@pytest.fixture(scope="session")
def sample_client(samples: Samples, request: pytest.FixtureRequest) -> Iterator[Client]:
    """Return a client of a server with the samples' models."""
    if samples.real:
        yield request.getfixturevalue("real_client")
        return
    with serving(Settings(models=samples.models, grpc="127.0.0.1:0", device="cpu")) as client:
        yield client


class serving:  # noqa: N801  a context manager, read as a verb
    """Run a server on a thread of its own; gives a client of it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Client:
        self._thread.start()

        async def start() -> App:
            app = App(self._settings)
            await app.start()
            return app

        self._app = asyncio.run_coroutine_threadsafe(start(), self._loop).result(120)
        self._client = Client(self._app.address, timeout=120)
        return self._client

    def __exit__(self, *exception: object) -> None:
        self._client.close()
        asyncio.run_coroutine_threadsafe(self._app.stop(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
