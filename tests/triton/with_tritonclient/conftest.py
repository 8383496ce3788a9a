"""Where the server is, and what calls it.

The models: `colors` gives the means of red, green and blue, 20 times in version 2 and 10
times in version 1; `boxes` finds the same two cats that overlap and a dog in any picture.
"""

import os
from collections.abc import Iterator

import pytest
from tritonclient import grpc as triton


@pytest.fixture(scope="session")
def address() -> str:
    return os.environ["ADDRESS"]


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as client:
        yield client
