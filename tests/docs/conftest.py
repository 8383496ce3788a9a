"""A workspace for all tests of the documentation."""

from collections.abc import Iterator

import pytest

from .workspace import Workspace, workspace


@pytest.fixture(scope="package")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with workspace(tmp_path_factory.mktemp("docs")) as found:
        yield found
