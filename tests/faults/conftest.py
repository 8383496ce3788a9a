"""Models that are quick to load, one that takes its time, and servers for them."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.server import graphs
from visavis_server.card import METADATA_KEY

from .process import ServerProcess

Serve = Callable[..., ServerProcess]
# What the slow model takes for each picture, about.
SLOW_S = 0.1


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """colors, which says at once what colour a picture has; boxes; fragile, which can't be dark;
    slow, which is colors and takes a tenth of a second."""
    folder = tmp_path_factory.mktemp("fault-models")
    colors, _ = graphs.export(graphs.classifier(), graphs.classifier_document())
    graphs.put(folder, "colors", 1, colors)
    fragile, _ = graphs.export(graphs.nan_on_black(), graphs.classifier_document())
    graphs.put(folder, "fragile", 1, fragile)
    boxes, _ = graphs.export(graphs.constant(graphs.ROWS), graphs.detector_document())
    graphs.put(folder, "boxes", 1, boxes)
    graphs.put(folder, "slow", 1, slow())
    return folder


@pytest.fixture
def serve(models: Path, tmp_path: Path) -> Iterator[Serve]:
    """Return a function that starts servers, which are ended with the test."""
    started: list[ServerProcess] = []

    def start(*options: str, models: Path = models, **environment: str) -> ServerProcess:
        started.append(ServerProcess(models, tmp_path, *options, **environment))
        return started[-1].__enter__()

    yield start
    for server in started:
        server.__exit__(None, None, None)


def slow(gain: float = 10.0, times: int | None = None, seconds: float = SLOW_S) -> bytes:
    """Return colors, behind that many multiplications of a matrix.

    times: None: as many as take so many seconds on one core here.
    """
    if times is not None:
        return _slow(times, gain)
    few = 20
    path = _slow(few, gain)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    picture = np.zeros((1, 3, 8, 8), np.float32)
    took = []
    for _ in range(10):  # the first ones are slower than those that follow
        began = time.perf_counter()
        session.run(None, {"images": picture})
        took.append(time.perf_counter() - began)
    return _slow(max(1, round(seconds * few / min(took))), gain)


def _slow(times: int, gain: float) -> bytes:
    size = 384
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still"]),
            helper.make_node("MatMul", ["carried", "rotation"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, ["batch", size, size]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["batch", size, size]),
        ],
        [numpy_helper.from_array(np.eye(size, dtype=np.float32), "rotation")],
    )
    _, document = graphs.export(graphs.classifier(gain), graphs.classifier_document())
    model = onnx.load_from_string(graphs.classifier(gain))
    constants = {
        "times": np.array(times),
        "true": np.array(True),
        "start": np.eye(size, dtype=np.float32),
        "zero": np.float32(0),
        "row": np.array([1]),
        "rows": np.array([1, 2]),
        "pixels": np.array([1, 2, 3]),
    }
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    # Every picture has a matrix of its own, so that two in a run take twice as long; it comes
    # from the picture, or ONNX Runtime would fold all of it away.
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["images", "pixels"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "zero"], ["none"]),
            helper.make_node("Unsqueeze", ["none", "rows"], ["nothing"]),
            helper.make_node("Add", ["start", "nothing"], ["carried"]),
            helper.make_node("Loop", ["times", "true", "carried"], ["turned"], body=body),
            helper.make_node("ReduceMean", ["turned", "rows"], ["average"], keepdims=0),
            helper.make_node("Mul", ["average", "zero"], ["delay"]),
            helper.make_node("Unsqueeze", ["delay", "row"], ["column"]),
            helper.make_node("Add", ["logits", "column"], ["delayed"]),
        ]
    )
    model.graph.output[0].name = "delayed"
    text = document.model_copy(update={"digest": None}).model_dump_json()
    text = text.replace('"tensor":"logits"', '"tensor":"delayed"')
    return graphs.with_metadata(model.SerializeToString(), {METADATA_KEY: text})
