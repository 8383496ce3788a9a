"""Sources that tests in this process pull from."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pull.command import Puller
from tests.pull.servers import Registry, WebFolder
from tests.pull.stores import S3, Azure, azurite, moto


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return the folder to pull into; it does not exist."""
    return tmp_path / "models"


@pytest.fixture
def command(tmp_path: Path) -> Puller:
    """Return the command, without any variables."""
    return Puller.under(tmp_path / "client")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """Return a bucket that all tests share: each has a folder of its own in it."""
    with moto(tmp_path_factory.mktemp("s3")) as store:
        yield store


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azure]:
    """Return a container that all tests share, as they do the bucket."""
    with azurite(tmp_path_factory.mktemp("azure")) as store:
        yield store


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as found:
        yield found


@pytest.fixture
def web() -> Iterator[WebFolder]:
    with WebFolder({}) as found:
        yield found
