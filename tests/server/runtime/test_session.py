"""Sessions of ONNX Runtime: their description of the graph, and their failures."""

import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from visavis_server.errors import ModelFailed, ModelFileError, ProviderUnavailable
from visavis_server.models.verified_file import VerifiedFile
from visavis_server.runtime.plan import Plan
from visavis_server.runtime.providers import CPU, CUDA, Provider, SessionConfig
from visavis_server.runtime.session import Session, Sessions

from .. import graphs
from ..pictures import noise


def session(tmp_path: Path, graph: bytes, provider: Provider = CPU) -> Session:
    path = tmp_path / "model.onnx"
    path.write_bytes(graph)
    return Session(path, provider, SessionConfig(tmp_path))


def picture(value: float = 0.5, batch: int = 1) -> np.ndarray[Any, Any]:
    return np.full((batch, 3, 8, 8), value, np.float32)


def test_a_session_describes_its_graph(tmp_path: Path) -> None:
    opened = session(tmp_path, graphs.classifier())
    assert opened.provider == "CPUExecutionProvider"
    assert opened.input_name == "images"
    assert opened.input_shape == [None, 3, 8, 8]
    assert opened.input_dtype == "float32"
    assert opened.output_shapes == {"logits": [None, 3]}


def test_a_session_computes_what_the_graph_says(tmp_path: Path) -> None:
    images = noise(8, 8, 3).transpose(2, 0, 1)[None].astype(np.float32) / 255
    (logits,) = session(tmp_path, graphs.classifier(gain=10)).run(images)
    np.testing.assert_allclose(logits, 10 * images.mean(axis=(2, 3)), rtol=1e-5)


def test_a_session_takes_any_batch(tmp_path: Path) -> None:
    (logits,) = session(tmp_path, graphs.classifier()).run(picture(batch=5))
    assert logits.shape == (5, 3)


def test_outputs_have_the_requested_order(tmp_path: Path) -> None:
    first, second = np.ones((1, 2)), np.full((1, 3), 2.0)
    opened = session(tmp_path, graphs.constant(first, second, height=8, width=8))
    outputs = opened.run(picture(), ["output1", "output0"])
    assert [output.tolist() for output in outputs] == [[[2, 2, 2]], [[1, 1]]]


def test_sessions_share_the_memory_of_their_runs(tmp_path: Path) -> None:
    size = 64 << 20
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Expand", ["mean", "shape"], ["large"]),
        helper.make_node("Exp", ["large"], ["larger"]),
        helper.make_node("ReduceMean", ["larger"], ["average"], keepdims=0),
        helper.make_node("Reshape", ["average", "row"], ["logits"]),
    ]
    numbers = {"shape": [size // 4], "row": [1, 1]}
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1])],
        [numpy_helper.from_array(np.array(value), name) for name, value in numbers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    one, other = (session(tmp_path, model.SerializeToString()) for _ in range(2))
    one.run(picture())
    before = psutil.Process().memory_info().rss
    other.run(picture())
    assert psutil.Process().memory_info().rss - before < size // 2


def test_input_is_converted_to_half_precision(tmp_path: Path) -> None:
    opened = session(tmp_path, graphs.classifier(elem_type=TensorProto.FLOAT16))
    assert opened.input_dtype == "float16"
    (logits,) = opened.run(picture(0.5))
    assert logits.dtype == np.float16
    assert logits.tolist() == [[5, 5, 5]]


def test_an_error_in_the_graph_is_kept_for_the_log_and_hidden_from_the_client(
    tmp_path: Path,
) -> None:
    opened = session(tmp_path, graphs.classifier())
    with pytest.raises(ModelFailed) as failed:
        opened.run(np.zeros((1, 3, 9, 9), np.float32))
    assert "dimension" not in str(failed.value)
    # The model writes it to the log.
    assert "index: 2 Got: 9 Expected: 8" in str(failed.value.__cause__)


def test_a_failing_run_writes_nothing_past_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ["batch", 3, 8, 8]), ("logits", [5]))
    ]
    five = numpy_helper.from_array(np.array([5]), "five")
    reshape = helper.make_node("Reshape", ["images", "five"], ["logits"])
    graph = helper.make_graph([reshape], "breaks", values[:1], values[1:], [five])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    opened = session(tmp_path, model.SerializeToString())
    with pytest.raises(ModelFailed) as failed:
        opened.run(picture())
    assert "Reshape" in str(failed.value.__cause__)
    assert tuple(capfd.readouterr()) == ("", "")


@pytest.mark.parametrize("contents", [b"", b"<html></html>", b"\x08\x09" * 50])
def test_a_file_that_onnx_runtime_cannot_load_is_refused_with_its_path(
    tmp_path: Path, contents: bytes
) -> None:
    with pytest.raises(ModelFileError, match=r"model\.onnx: ONNX Runtime can't load the file"):
        session(tmp_path, contents)


def test_a_graph_with_two_inputs_is_refused(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("a", "b", "c")]
    add = helper.make_node("Add", ["a", "b"], ["c"])
    graph = helper.make_graph([add], "two", values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    with pytest.raises(ModelFileError, match="the model has 2 inputs"):
        session(tmp_path, model.SerializeToString())


def test_a_silent_fallback_to_the_cpu_is_detected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, requested = onnxruntime.InferenceSession, []

    def falls_back(path: str, options: Any, providers: list[Any], **kwargs: Any) -> Any:
        requested.extend(name for name, _ in providers)
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", falls_back)
    with pytest.raises(
        ProviderUnavailable, match=r"CUDA\w+ was requested, but ONNX Runtime uses CPU"
    ):
        session(tmp_path, graphs.classifier(), CUDA)
    assert requested == ["CUDAExecutionProvider", "CPUExecutionProvider"]


def sessions(tmp_path: Path, **plan: Any) -> Sessions:
    path = tmp_path / "model.onnx"
    path.write_bytes(graphs.classifier(gain=10))
    return Sessions(VerifiedFile(path), CPU, Plan(**plan), SessionConfig(tmp_path))


class Watched:
    """Records the sessions that run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[Session] = []
        run = Session.run

        def watched(session: Session, *args: Any, **options: Any) -> Any:
            self.ran.append(session)
            return run(session, *args, **options)

        monkeypatch.setattr(Session, "run", watched)


def test_runs_on_one_thread_each_share_a_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, watched = sessions(tmp_path, instances=4), Watched(monkeypatch)
    for _ in range(3):
        opened.run(picture(), ["logits"])
    assert set(watched.ran) == {opened.first}


def test_runs_on_several_threads_have_separate_sessions(tmp_path: Path) -> None:
    opened = sessions(tmp_path, instances=2, threads=2)
    both = threading.Barrier(2)
    ran: list[Session] = []

    class Meeting:
        """A fake session that returns once two run concurrently."""

        def __init__(self, session: Session) -> None:
            self.session = session

        def run(self, *args: Any, **options: Any) -> list[Any]:
            ran.append(self.session)
            both.wait(10)
            return []

    for _ in range(2):
        opened._idle.put(Meeting(opened._idle.get()))  # type: ignore[arg-type]
    threads = [threading.Thread(target=opened.run, args=(picture(), ["logits"])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ran)) == 2


def test_the_exclusive_session_is_created_at_the_first_exclusive_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, watched = sessions(tmp_path, instances=2, exclusive_threads=2), Watched(monkeypatch)
    checked: list[tuple[Session, int]] = []
    opened.check(lambda *arguments: checked.append(arguments), 4)
    assert checked == [(opened.first, 4)]
    opened.run(picture(), ["logits"])
    assert opened._make_exclusive is not None  # no run was exclusive
    opened.run(picture(), ["logits"], exclusive=True)
    for thread in threading.enumerate():
        if thread.name == "exclusive session":
            thread.join(10)
    (expected,) = opened.run(picture(0.3), ["logits"])
    (actual,) = opened.run(picture(0.3), ["logits"], exclusive=True)
    exclusive = watched.ran[-1]
    assert exclusive is not opened.first
    assert checked == [(opened.first, 4), (exclusive, 1)]
    np.testing.assert_array_equal(actual, expected)


def test_the_process_waits_for_a_session_that_is_being_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = sessions(tmp_path, instances=2, exclusive_threads=2)
    may_go_on = threading.Event()
    monkeypatch.setattr(opened, "make_exclusive", lambda: may_go_on.wait(10))
    # The scheduler's threads are daemons, and threads inherit that by default.
    run = partial(opened.run, picture(), ["logits"], exclusive=True)
    core = threading.Thread(target=run, daemon=True)
    core.start()
    core.join(10)
    (making,) = (t for t in threading.enumerate() if t.name == "exclusive session")
    assert not making.daemon
    may_go_on.set()
    making.join(10)


def test_an_exclusive_session_with_wrong_results_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened, watched = sessions(tmp_path, instances=2, exclusive_threads=2), Watched(monkeypatch)

    def check(session: Session, images: int) -> None:
        if session is not opened.first:
            raise ModelFileError("its golden sample differs")

    opened.check(check, 1)
    opened.make_exclusive()
    opened.make_exclusive()  # no second attempt
    opened.run(picture(), ["logits"], exclusive=True)
    assert set(watched.ran) == {opened.first}
    assert "its golden sample differs" in "".join(capsys.readouterr())


def test_a_run_that_returns_its_memory_computes_the_same(tmp_path: Path) -> None:
    opened = session(tmp_path, graphs.classifier())
    kept, given_back = opened.run(picture()), opened.run(picture(), give_back=True)
    np.testing.assert_array_equal(kept[0], given_back[0])
