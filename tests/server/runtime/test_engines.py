"""TensorRT's engines: their shapes, their folder, and what is logged about them."""

import threading
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from onnx import TensorProto, helper
from structlog.testing import capture_logs

from visavis_server.runtime import engines, providers
from visavis_server.runtime.providers import TENSORRT, SessionConfig

from .. import graphs


def relu(*shape: int | str) -> bytes:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "y")]
    node = helper.make_node("Relu", ["x"], ["y"])
    graph = helper.make_graph([node], "relu", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


def test_one_engine_serves_every_size_of_batches() -> None:
    assert engines.profiles(graphs.classifier(), 16) == {
        "trt_profile_min_shapes": "images:1x3x8x8",
        "trt_profile_opt_shapes": "images:16x3x8x8",
        "trt_profile_max_shapes": "images:16x3x8x8",
    }
    # Runs of 12 are padded to 16.
    assert engines.profiles(relu("n", 4), 12)["trt_profile_max_shapes"] == "x:16x4"


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), ("n", 3, "height", "width")])
def test_other_shapes_have_no_profile(shape: tuple[int | str, ...]) -> None:
    assert engines.profiles(relu(*shape), 16) == {}


def test_a_build_is_logged_from_its_begin_to_its_end(tmp_path: Path) -> None:
    with capture_logs() as logs, engines.progress(tmp_path, every_s=0.01):
        while len(logs) < 3:
            threading.Event().wait(0.001)
    first, *more, last = logs
    assert first["event"].startswith("TensorRT engine begun")
    assert {each["event"] for each in more} == {"building the TensorRT engine"}
    assert last["event"] == "TensorRT engine built" and last["seconds"] >= 0.0


def test_a_failed_build_is_logged(tmp_path: Path) -> None:
    with (
        capture_logs() as logs,
        pytest.raises(ValueError, match="no"),
        engines.progress(tmp_path),
    ):
        raise ValueError("no")
    assert [each["event"] for each in logs][1:] == ["TensorRT engine not built"]


def test_an_engine_that_is_there_is_not_announced(tmp_path: Path) -> None:
    (tmp_path / "TensorrtExecutionProvider_1_0_sm90.engine").touch()
    with capture_logs() as logs, engines.progress(tmp_path):
        pass
    assert logs == []


def test_a_session_keeps_its_engine_apart_from_those_of_other_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, given = onnxruntime.InferenceSession, []

    def noted(model: Any, options: Any, providers: list[Any], **kwargs: Any) -> Any:
        given.append(providers)
        return real(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(engines, "versions", lambda: "onnxruntime-1-tensorrt-2")
    model = tmp_path / "model.onnx"
    model.write_bytes(graphs.classifier())
    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    config = SessionConfig(tmp_path / "cache" / "digest", batch=16, gpu=1, cuda_graphs=True)
    with capture_logs() as logs:
        providers.create(model, TENSORRT, config)
    probe, chain = given
    assert probe == ["CPUExecutionProvider"]
    assert [name for name, _ in chain] == [
        "TensorrtExecutionProvider",
        "CUDAExecutionProvider",
        "CPUExecutionProvider",
    ]
    folder = tmp_path / "cache" / "digest" / "onnxruntime-1-tensorrt-2"
    assert folder.is_dir()
    tensorrt, cuda, _ = (options for _, options in chain)
    assert tensorrt["trt_engine_cache_path"] == tensorrt["trt_timing_cache_path"] == str(folder)
    assert tensorrt["trt_profile_max_shapes"] == "images:16x3x8x8"
    assert tensorrt["device_id"] == cuda["device_id"] == "1"
    assert (tensorrt["trt_cuda_graph_enable"], cuda["enable_cuda_graph"]) == ("True", "0")
    assert len(logs) == 2
