"""OpenVINO, by its plugin or its own build of ONNX Runtime, in float32 and bfloat16."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from visavis.v1 import vision_pb2 as pb

from visavis_server.app import App
from visavis_server.errors import ProviderUnavailable
from visavis_server.models.planning import Planner
from visavis_server.models.verified_file import VerifiedFile
from visavis_server.runtime import providers
from visavis_server.runtime.plan import Plan
from visavis_server.runtime.providers import CPU, OPENVINO, SessionConfig, choose
from visavis_server.runtime.session import Session, Sessions

from .. import graphs
from ..serving import image, served_by, settings


@pytest.fixture
def cleared() -> Iterator[None]:
    """Clear the cached devices before and after the test."""
    providers._openvino_devices.cache_clear()
    yield
    providers._openvino_devices.cache_clear()


def device(kind: Any = onnxruntime.OrtHardwareDeviceType.CPU, **metadata: str) -> Any:
    return SimpleNamespace(
        ep_name=OPENVINO.name, device=SimpleNamespace(type=kind), ep_metadata=metadata
    )


@pytest.fixture
def plugin(cleared: None, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A plugin that finds the devices of the returned list."""
    found: list[Any] = []
    module = SimpleNamespace(get_library_path=lambda: "plugin.so")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU.name])
    monkeypatch.setattr(providers, "_openvino_plugin", lambda: module)
    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", lambda name, path: None)
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: found)
    return found


@pytest.fixture
def usable() -> None:
    """Skip where OpenVINO can't run."""
    if missing := OPENVINO.missing():
        pytest.skip("; ".join(missing))


def test_without_openvino_the_device_is_refused_with_what_to_install(
    cleared: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU.name])
    monkeypatch.setattr(providers, "_openvino_plugin", lambda: None)
    with pytest.raises(ProviderUnavailable, match="pip install onnxruntime-ep-openvino"):
        choose("openvino")


def test_a_plugin_that_finds_no_processor_is_refused(plugin: list[Any]) -> None:
    plugin.append(device(onnxruntime.OrtHardwareDeviceType.GPU))
    with pytest.raises(ProviderUnavailable, match="plugin finds no supported processor"):
        choose("openvino")


def test_a_plugin_that_cannot_be_loaded_finds_nothing(
    plugin: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str, path: str) -> None:
        raise RuntimeError("undefined symbol")

    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", broken)
    with pytest.raises(ProviderUnavailable, match="--device openvino is unusable"):
        choose("openvino")


def test_a_plugin_that_finds_a_processor_can_run(plugin: list[Any]) -> None:
    plugin.append(device())
    assert choose("openvino") == (OPENVINO, "--device openvino")


def test_its_own_build_of_onnx_runtime_needs_no_plugin(
    cleared: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [OPENVINO.name])
    monkeypatch.setattr(providers, "_openvino_plugin", lambda: None)
    assert choose("openvino") == (OPENVINO, "--device openvino")


@pytest.mark.parametrize(("capabilities", "can"), [("FP32 BF16 INT8", True), ("FP32 INT8", False)])
def test_bfloat16_needs_a_processor_that_has_it(
    plugin: list[Any], capabilities: str, can: bool
) -> None:
    plugin.append(device(OPTIMIZATION_CAPABILITIES=capabilities))
    if can:
        assert choose("openvino", bf16=True) == (OPENVINO, "--device openvino")
    else:
        with pytest.raises(ProviderUnavailable, match="--bf16 is unavailable on openvino"):
            choose("openvino", bf16=True)


def test_other_providers_refuse_bfloat16() -> None:
    with pytest.raises(ProviderUnavailable, match="only --device openvino supports bfloat16"):
        choose("cpu", bf16=True)


@pytest.mark.parametrize(("bf16", "hint"), [(False, "f32"), (True, "bf16")])
def test_precision_is_never_left_to_openvino(tmp_path: Path, bf16: bool, hint: str) -> None:
    options = OPENVINO.options(SessionConfig(tmp_path, threads=2, runs=3, bf16=bf16))
    assert json.loads(options["load_config"])["CPU"] == {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": "6",
        "NUM_STREAMS": "3",
    }


def test_one_session_serves_all_runs_but_the_lone_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[SessionConfig] = []
    monkeypatch.setattr(
        "visavis_server.runtime.session.Session", lambda path, provider, config: made.append(config)
    )
    plan = Plan(instances=4, threads=2, exclusive_threads=8)
    path = graphs.put(tmp_path, "colors", 1, graphs.classifier())
    Sessions(VerifiedFile(path), OPENVINO, plan, SessionConfig(tmp_path)).make_exclusive()
    assert [(s.threads, s.runs) for s in made] == [(2, 4), (8, 1)]


def test_openvino_takes_one_image_at_a_time() -> None:
    document = graphs.classifier_document(precision="int8")
    plan = Planner(OPENVINO, 4).plan(document)
    assert (plan.batch, plan.instances, plan.exclusive_threads) == (1, 4, 4)
    assert plan.why.endswith("batches gain nothing with openvino")


def test_it_computes_what_the_cpu_does(usable: None, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(graphs.classifier(gain=10))
    pictures = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    ours = Session(path, OPENVINO, SessionConfig(tmp_path))
    assert ours.provider == "OpenVINOExecutionProvider"
    (expected,) = Session(path, CPU, SessionConfig(tmp_path)).run(pictures)
    np.testing.assert_allclose(ours.run(pictures)[0], expected, rtol=1e-5)


async def test_answers_say_that_they_were_computed_in_bfloat16(usable: None, models: Path) -> None:
    if missing := OPENVINO.missing_for_bf16():
        pytest.skip("; ".join(missing))
    async with served_by(App(settings(models, device="openvino", bf16=True))) as served:
        answer = await served.stub.Classify(pb.ClassifyRequest(image=image(), model="colors"))
        assert answer.served_by.precision == "bf16"
        assert answer.served_by.execution_provider == "OpenVINOExecutionProvider"
        assert answer.classifications[0].label == "red"
        card = await served.stub.GetModel(pb.GetModelRequest(model="colors"))
        assert card.model.precision == "bf16"
