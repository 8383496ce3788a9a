"""What Triton's perf_analyzer asks, in its order, and what it does with the answers.

It reads metadata and configuration as JSON with every field spelt out (its model_parser.cc),
sends its inputs raw and names every output (infer_context.cc), and takes the difference of two
readings of the statistics (inference_profiler.cc).
"""

import json
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from tritonclient import grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.utils import triton_to_np_dtype

from .tensors import Tensor, picture

STAGES = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True)
class Model:
    """What it learns about a model: shapes without the batch, by name."""

    name: str
    max_batch_size: int
    inputs: dict[str, tuple[str, list[int]]]
    outputs: dict[str, list[int]]

    def batch(self, size: int) -> list[triton.InferInput]:
        """Return inputs of random numbers, or pictures for what takes files."""
        inputs = []
        for name, (datatype, shape) in self.inputs.items():
            tensor = triton.InferInput(name, [size, *shape], datatype)
            inputs.append(tensor.set_data_from_numpy(_content(datatype, [size, *shape])))
        return inputs

    def wanted(self) -> list[triton.InferRequestedOutput]:
        return [triton.InferRequestedOutput(name) for name in self.outputs]


def _content(datatype: str, shape: list[int]) -> Tensor:
    if datatype == "BYTES":
        return np.full(shape, picture("red"), np.object_)
    return np.random.default_rng(0).random(shape).astype(triton_to_np_dtype(datatype))


def learn(client: triton.InferenceServerClient, name: str) -> Model:
    """Ask for metadata and configuration, and hold one against the other."""
    metadata = as_json(client.get_model_metadata(name))
    config = as_json(client.get_model_config(name))["config"]
    assert config["platform"] != "ensemble"
    assert "sequence_batching" not in config
    assert "dynamic_batching" in config
    assert not config.get("model_transaction_policy", {}).get("decoupled")
    assert all(version == str(int(version)) for version in metadata["versions"])
    model = Model(
        metadata["name"],
        config["max_batch_size"],
        {t["name"]: (t["datatype"], dims(t)) for t in metadata["inputs"]},
        {t["name"]: dims(t) for t in metadata["outputs"]},
    )
    # It can't make up sizes: it would ask for --shape.
    assert all(-1 not in shape for _, shape in model.inputs.values())
    assert [t["name"] for t in config["input"]] == list(model.inputs)
    assert [t["name"] for t in config["output"]] == list(model.outputs)
    return model


def as_json(message: Message) -> dict[str, Any]:
    text = MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    read: dict[str, Any] = json.loads(text)
    return read


def dims(tensor: dict[str, Any]) -> list[int]:
    """Return a shape without the batch, which comes first where there is one."""
    batch, *shape = map(int, tensor["shape"])
    assert batch == -1
    return shape


class Window:
    """The statistics of one window: what rose while it was open."""

    def __init__(self, client: triton.InferenceServerClient, model: Model) -> None:
        self._client, self._model = client, model
        self._start = self._read()

    def _read(self) -> dict[tuple[str, str], service_pb2.ModelStatistics]:
        statistics = self._client.get_inference_statistics(self._model.name)
        return {(one.name, one.version): one for one in statistics.model_stats}

    def close(self) -> dict[str, int]:
        """Return how far the figures of the version that answered rose."""
        end = self._read()
        risen = [
            int(version)
            for name, version in end
            if name == self._model.name
            and queued(end[name, version]) > queued(self._start[name, version])
        ]
        assert risen, "failed to find the requested model version"
        answered = self._model.name, str(max(risen))
        now, was = figures(end[answered]), figures(self._start[answered])
        return {name: now[name] - was[name] for name in now}


def queued(statistics: service_pb2.ModelStatistics) -> int:
    return statistics.inference_stats.queue.count


def figures(statistics: service_pb2.ModelStatistics) -> dict[str, int]:
    """Return what it reads of a version's statistics: counts, and times in ns."""
    read = {name: getattr(statistics, name) for name in ("inference_count", "execution_count")}
    for stage in ("success", *STAGES, "cache_hit", "cache_miss"):
        duration = getattr(statistics.inference_stats, stage)
        read |= {f"{stage}.count": duration.count, f"{stage}.ns": duration.ns}
    return read


def check(risen: dict[str, int], requests: int, batch: int) -> None:
    """Hold what rose against what was asked."""
    inputs = requests * batch
    assert risen["inference_count"] == inputs
    assert risen["success.count"] == requests
    assert 0 < risen["execution_count"] <= inputs
    assert all(risen[f"{stage}.count"] > 0 for stage in STAGES)
    # What is left of a request's time after its stages is reported as overhead.
    assert risen["success.ns"] >= sum(risen[f"{stage}.ns"] for stage in STAGES) > 0
    assert risen["cache_hit.count"] == risen["cache_miss.count"] == 0


@pytest.mark.parametrize("name", ["colors", "boxes", "colors_image", "boxes_image"])
@pytest.mark.parametrize("batch", [1, 2])
def test_each_window_counts_its_requests(
    name: str, batch: int, client: triton.InferenceServerClient
) -> None:
    model = learn(client, name)
    assert model.max_batch_size >= batch
    assert "statistics" in client.get_server_metadata().extensions
    inputs, outputs = model.batch(batch), model.wanted()
    for concurrency in (1, 4):
        window = Window(client, model)
        with ThreadPoolExecutor(concurrency) as threads:
            answers = [
                threads.submit(client.infer, model.name, inputs, outputs=outputs) for _ in range(8)
            ]
        for answer in answers:
            response = answer.result().get_response()
            assert [output.name for output in response.outputs] == list(model.outputs)
            assert len(response.raw_output_contents) == len(model.outputs)
            assert all(output.shape[0] == batch for output in response.outputs)
        check(window.close(), requests=8, batch=batch)


@pytest.fixture
def stream(client: triton.InferenceServerClient) -> Iterator["queue.Queue[Any]"]:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error or result))
    yield answers
    client.stop_stream()


def test_requests_of_a_stream_are_answered_once_and_finally(
    client: triton.InferenceServerClient, stream: "queue.Queue[Any]"
) -> None:
    model = learn(client, "colors")
    window = Window(client, model)
    for number in range(8):
        client.async_stream_infer(
            model.name,
            model.batch(2),
            outputs=model.wanted(),
            request_id=str(number),
            enable_empty_final_response=True,
        )
    ids = set()
    for _ in range(8):
        answer = stream.get(timeout=60)
        assert isinstance(answer, triton.InferResult), answer
        response = answer.get_response()
        assert response.parameters["triton_final_response"].bool_param
        assert response.outputs
        ids.add(response.id)
    assert ids == {str(number) for number in range(8)}
    check(window.close(), requests=8, batch=2)
