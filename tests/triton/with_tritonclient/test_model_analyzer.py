"""Triton's Model Analyzer in remote mode: what its own clients ask before and while it profiles.

The measurements themselves are perf_analyzer's (test_perf_analyzer.py).
"""

import os
from typing import Any

import pytest
from google.protobuf import json_format
from model_analyzer.triton.client.client import TritonClient
from model_analyzer.triton.client.client_factory import TritonClientFactory
from tritonclient.grpc import model_config_pb2


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, address: str) -> TritonClient:
    if request.param == "grpc":
        return TritonClientFactory.create_grpc_client(address)
    return TritonClientFactory.create_http_client(f"http://{os.environ['HTTP_ADDRESS']}")


def test_it_waits_for_the_server_and_finds_the_models(client: Any) -> None:
    client.wait_for_server_ready(num_retries=3, sleep_time=0)
    names = {model["name"] for model in client.get_model_repository_index()}
    assert {"colors", "boxes"} <= names
    # It warns of other models than the one that it profiles.
    assert client.is_model_ready("boxes")


def test_it_takes_the_default_configuration_from_the_server(client: Any) -> None:
    config = client.get_model_config("colors", num_retries=3)
    # As its ModelConfig.create_from_dictionary reads it.
    parsed = json_format.ParseDict(config, model_config_pb2.ModelConfig())
    assert parsed.name == "colors"
    assert parsed.max_batch_size > 0
    assert [tensor.name for tensor in parsed.input]


def test_it_is_told_that_it_may_not_load_models(client: Any) -> None:
    # Hence --reload-model-disable: without it, it gives up here.
    assert client.load_model("colors") == -1
    assert client.unload_model("colors") == -1
    assert client.is_model_ready("colors")
