"""Runs through kept memory: with the CPU as the device, they give what plain runs give."""

import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from structlog.testing import capture_logs

from visavis_server.errors import ModelFailed, Overloaded
from visavis_server.runtime import bindings
from visavis_server.runtime.fixed_batches import padded, sizes
from visavis_server.runtime.providers import CPU, SessionConfig
from visavis_server.runtime.scheduling.work import Stop
from visavis_server.runtime.session import Session

from .. import graphs
from ..nvidia_driver import FakeDriver

# The CPU, as if it were a device.
DEVICE = replace(CPU, on_device=True)


def put(tmp_path: Path, graph: bytes) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(graph)
    return path


def images(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)


class Shapes:
    """Records the inputs' shapes of runs that are bound."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: Counter[int] = Counter()
        run = onnxruntime.InferenceSession.run_with_iobinding

        def watched(session: Any, binding: Any, options: Any = None) -> None:
            (bound,) = binding._bound_inputs.values()
            self.batches[bound.shape()[0]] += 1
            run(session, binding, options)

        monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", watched)


def test_batches_have_few_sizes() -> None:
    assert [padded(images) for images in (1, 2, 3, 4, 5, 8, 9, 16, 17)] == [
        *(1, 2, 4, 4, 8, 8, 16, 16, 32),
    ]
    assert sizes(16) == (1, 2, 4, 8, 16)
    assert sizes(12) == (1, 2, 4, 8, 16)
    assert sizes(1) == (1,)


@pytest.mark.parametrize("graphs_", [False, True])
@pytest.mark.parametrize("as_list", [False, True])
def test_the_answers_are_those_of_plain_runs_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graphs_: bool, as_list: bool
) -> None:
    path = put(tmp_path, graphs.classifier(gain=3))
    plain = Session(path, CPU, SessionConfig(tmp_path))
    bound = Session(path, DEVICE, SessionConfig(tmp_path, cuda_graphs=graphs_))
    shapes = Shapes(monkeypatch)
    kept = []
    for count in (16, 1, 3, 7, 8, 13, 2, 3):
        batch = images(count, seed=count)
        (actual,) = bound.run(list(batch) if as_list else batch)
        (expected,) = plain.run(batch)
        assert actual.shape == (count, 3)
        np.testing.assert_array_equal(actual, expected)
        kept.append((actual, expected))
    # Later runs leave earlier outputs alone, though the memory is reused.
    for actual, expected in kept:
        np.testing.assert_array_equal(actual, expected)
    assert shapes.batches == {16: 2, 8: 2, 4: 2, 2: 1, 1: 1}


def test_the_memory_of_outputs_is_reused_once_they_are_gone(tmp_path: Path) -> None:
    session = Session(put(tmp_path, graphs.classifier()), DEVICE, SessionConfig(tmp_path))
    places = set()
    for seed in range(20):
        (logits,) = session.run(images(4, seed))
        places.add(logits.ctypes.data)
        del logits
    assert len(places) == 1


def test_outputs_have_the_requested_order(tmp_path: Path) -> None:
    first, second = np.ones((1, 2)), np.full((1, 3), 2.0)
    graph = graphs.constant(first, second, height=8, width=8)
    for graphs_ in (False, True):
        session = Session(
            put(tmp_path, graph), DEVICE, SessionConfig(tmp_path, cuda_graphs=graphs_)
        )
        for names in (["output1", "output0"], ["output0", "output1"], ["output1"]):
            outputs = session.run(images(1), names)
            expected = {"output0": [[1, 1]], "output1": [[2, 2, 2]]}
            assert [output.tolist() for output in outputs] == [expected[name] for name in names]


def test_half_precision_is_written_straight_into_the_batch(tmp_path: Path) -> None:
    path = put(tmp_path, graphs.classifier(elem_type=TensorProto.FLOAT16))
    batch = images(3)
    (expected,) = Session(path, CPU, SessionConfig(tmp_path)).run(batch)
    (actual,) = Session(path, DEVICE, SessionConfig(tmp_path)).run(batch)
    assert actual.dtype == np.float16
    np.testing.assert_array_equal(actual, expected)


def unknown_shape() -> bytes:
    """A graph whose output is [batch, ?]."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ["batch", 3, 8, 8]), ("rows", ["batch", "unknown"]))
    ]
    flatten = helper.make_node("Flatten", ["images"], ["rows"])
    graph = helper.make_graph([flatten], "flat", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


@pytest.mark.parametrize("graphs_", [False, True])
def test_outputs_of_unknown_shape_are_left_to_onnx_runtime(tmp_path: Path, graphs_: bool) -> None:
    session = Session(
        put(tmp_path, unknown_shape()), DEVICE, SessionConfig(tmp_path, cuda_graphs=graphs_)
    )
    kept = [(images(count, count), session.run(images(count, count))[0]) for count in (3, 4, 3, 1)]
    for batch, rows in kept:
        np.testing.assert_array_equal(rows, batch.reshape(len(batch), -1))


def test_concurrent_runs_never_share_memory(tmp_path: Path) -> None:
    session = Session(
        put(tmp_path, graphs.classifier(gain=10)), DEVICE, SessionConfig(tmp_path, runs=4)
    )
    mixed = []

    def use(number: int) -> None:
        for count in (1, 3, 4, 7) * 50:
            (logits,) = session.run(np.full((count, 3, 8, 8), number, np.float32))
            if not np.allclose(logits, 10 * number):
                mixed.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not mixed


class Broken:
    """Makes the next bound runs fail with ONNX Runtime's words."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.why = ""
        run = onnxruntime.InferenceSession.run_with_iobinding

        def broken(session: Any, binding: Any, options: Any = None) -> None:
            if self.why:
                raise RuntimeError(self.why)
            run(session, binding, options)

        monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", broken)


# As ONNX Runtime 1.2x, CUDA and TensorRT write them.
OUT_OF_MEMORY = (
    "Error in execution: Non-zero status code returned while running Conv node. Name:'Conv_3' "
    "Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* "
    "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*, bool, "
    "onnxruntime::WaitNotificationFn) Failed to allocate memory for requested buffer of size 4096",
    "BFCArena::AllocateRawInternal Available memory of 34699008 is smaller than requested bytes of "
    "945041920",
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=box ; file=cuda_allocator.cc ; line=48 ; "
    "expr=cudaMalloc((void**)&p, size);",
    "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
    "IExecutionContext::enqueueV3: Error Code 2: OutOfMemory (Requested size was 1 bytes.)",
    "std::bad_alloc",
)


@pytest.mark.parametrize("why", OUT_OF_MEMORY)
def test_short_memory_is_overload_and_the_next_run_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    session = Session(put(tmp_path, graphs.classifier(gain=10)), DEVICE, SessionConfig(tmp_path))
    broken = Broken(monkeypatch)
    broken.why = why
    with pytest.raises(Overloaded, match="out of memory; try again later") as refused:
        session.run(images(2))
    assert refused.value.retry_after_s > 0
    broken.why = ""
    (logits,) = session.run(np.ones((2, 3, 8, 8), np.float32))
    np.testing.assert_allclose(logits, 10)


@pytest.mark.parametrize(
    "why", ["CUDA failure 700: an illegal memory access", "Got invalid dimensions for input"]
)
def test_other_errors_are_no_overload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    session = Session(put(tmp_path, graphs.classifier()), DEVICE, SessionConfig(tmp_path))
    Broken(monkeypatch).why = why
    with pytest.raises(ModelFailed):
        session.run(images(2))


def test_a_bound_run_is_stopped_once_its_callers_have_left(tmp_path: Path) -> None:
    session = Session(put(tmp_path, graphs.classifier()), DEVICE, SessionConfig(tmp_path))
    stop = Stop(1)
    stop.leave()
    with pytest.raises(ModelFailed, match="all its callers have left"):
        session.run(images(2), stop=stop)
    assert session.run(images(2))[0].shape == (2, 3)


def test_each_thread_captures_its_own_graph_once_and_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    for name in ("run", "capture"):
        turn = getattr(bindings.CAPTURES, name)
        monkeypatch.setattr(
            bindings.CAPTURES, name, lambda name=name, turn=turn: (taken.append(name), turn())[1]
        )
    session = Session(
        put(tmp_path, graphs.classifier()), DEVICE, SessionConfig(tmp_path, cuda_graphs=True)
    )
    assert taken == ["run"]  # the load

    def runs() -> None:
        for count in (4, 3, 4, 1, 1):
            session.run(images(count))

    for _ in range(2):
        thread = threading.Thread(target=runs)
        thread.start()
        thread.join()
    each = ["capture", "run", "run", "capture", "run"]
    assert taken[1:] == [*each, *each]
    taken.clear()
    session.run(images(4), give_back=True)  # the check at load, on a thread that serves no calls
    assert taken == ["run"]


def test_graph_ids_are_not_used_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph remembers addresses: after an error, new memory needs new graphs."""
    used: list[str] = []
    add = onnxruntime.RunOptions.add_run_config_entry

    def watched(options: Any, name: str, value: str) -> None:
        used.append(value)
        add(options, name, value)

    monkeypatch.setattr(onnxruntime.RunOptions, "add_run_config_entry", watched)
    session = Session(
        put(tmp_path, graphs.classifier()), DEVICE, SessionConfig(tmp_path, cuda_graphs=True)
    )
    for count in (1, 2, 1):
        session.run(images(count))
    assert used == ["0", "1", "0"]
    broken = Broken(monkeypatch)
    broken.why = OUT_OF_MEMORY[0]
    with pytest.raises(Overloaded):
        session.run(images(1))
    broken.why = ""
    session.run(images(1))
    session.run(images(1), give_back=True)
    assert used[3:] == ["0", "2", "-1", "cpu:0"] or used[3:] == ["0", "2", "cpu:0", "-1"]


def test_the_driver_copies_to_the_device_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: FakeDriver
) -> None:
    """The device's memory is the machine's here; everything else is as on a GPU."""
    empty = bindings.Target.empty
    monkeypatch.setattr(
        bindings.Target, "empty", lambda target, *how: empty(replace(target, memory="cpu"), *how)
    )
    copied = Counter[str]()
    for name in ("copy_in", "copy_out"):
        copy = getattr(bindings.nvidia, name)
        monkeypatch.setattr(
            bindings.nvidia,
            name,
            lambda *how, name=name, copy=copy: (copied.update([name]), copy(*how)),
        )
    path, batch = put(tmp_path, graphs.classifier(gain=3)), images(5)
    (expected,) = Session(path, CPU, SessionConfig(tmp_path)).run(batch)
    gpu = replace(DEVICE, memory="cuda")
    before = driver.pinned
    for graphs_, copies in ((False, {"copy_in": 1}), (True, {"copy_in": 2, "copy_out": 1})):
        session = Session(path, gpu, SessionConfig(tmp_path, gpu=1, cuda_graphs=graphs_))
        (actual,) = session.run(batch)
        np.testing.assert_array_equal(actual, expected)
        assert copied == copies
    assert driver.pinned == before + 2  # an input and an output of the session that is left


def test_a_model_that_cannot_be_captured_runs_without_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = onnxruntime.InferenceSession
    asked: list[str] = []

    def refuses(path: str, options: Any, providers: list[Any], **kwargs: Any) -> Any:
        asked.append(providers[0][1]["graphs"])
        if asked[-1] == "True":
            raise RuntimeError(
                "This session cannot use the graph capture feature as requested by the user as "
                "all compute graph nodes have not been partitioned to the CUDAExecutionProvider"
            )
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuses)
    device = replace(DEVICE, options=lambda config: {"graphs": str(config.cuda_graphs)})
    path = put(tmp_path, graphs.classifier())
    with capture_logs() as logs:
        session = Session(path, device, SessionConfig(tmp_path, cuda_graphs=True))
    assert asked == ["True", "False"]
    assert logs[0]["event"] == "no CUDA graphs for this model"
    assert session.run(images(3))[0].shape == (3, 3)
