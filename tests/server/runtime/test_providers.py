"""Execution providers: which are usable, and what the errors say is missing."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from visavis_server.errors import ProviderUnavailable
from visavis_server.runtime import providers
from visavis_server.runtime.providers import CPU, CUDA, DEVICES, PROVIDERS, SessionConfig, choose
from visavis_server.runtime.session import Session

from .. import graphs

NO_DRIVER = "the NVIDIA driver is not installed (libcuda.so.1 is not found)"


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without an NVIDIA driver."""

    def missing(name: str, *args: object, **kwargs: object) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(providers.ctypes, "CDLL", missing)
    for provider in PROVIDERS:
        forget(provider)
    yield
    monkeypatch.undo()
    for provider in PROVIDERS:
        forget(provider)


def forget(provider: providers.Provider) -> None:
    """Clear the cached result of a check."""
    if hasattr(provider.missing, "cache_clear"):
        provider.missing.cache_clear()


def test_the_cpu_can_always_run() -> None:
    assert choose("cpu") == (CPU, "--device cpu")
    assert CPU.missing() == []


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_an_unusable_gpu_is_refused_with_what_is_missing(no_driver: None, device: str) -> None:
    with pytest.raises(ProviderUnavailable) as refused:
        choose(device)
    assert f"--device {device} is unusable" in str(refused.value)
    assert NO_DRIVER in str(refused.value)
    assert "--device cpu" in str(refused.value)


def test_auto_selects_the_cpu_without_a_gpu_and_gives_the_reason(no_driver: None) -> None:
    provider, why = choose("auto")
    assert provider is CPU
    assert NO_DRIVER in why


def test_auto_selects_cuda_if_it_is_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    usable = providers.Provider("cuda", CUDA.name, list, CUDA.options)
    monkeypatch.setattr(providers, "CUDA", usable)
    assert choose("auto") == (usable, "an NVIDIA GPU is usable")


def test_an_unknown_device_is_refused_with_those_that_exist() -> None:
    with pytest.raises(
        ProviderUnavailable, match="'tpu' is unknown; choose one of auto, cpu, openvino"
    ):
        choose("tpu")


def test_every_provider_has_a_distinct_device() -> None:
    assert len(set(DEVICES)) == len(PROVIDERS) + 1
    assert all(provider.name.endswith("ExecutionProvider") for provider in PROVIDERS)


def test_engines_are_kept_in_the_cache_folder(tmp_path: Path) -> None:
    options = providers.TENSORRT.options(SessionConfig(tmp_path))
    assert options["trt_engine_cache_path"] == str(tmp_path)


@pytest.mark.parametrize("here", [{"avx2"}, {"avx2", "avx_vnni"}, {"avx512_vnni", "avx2"}])
def test_int8_uses_the_fast_instructions_if_they_are_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: set[str]
) -> None:
    (tmp_path / "model.onnx").write_bytes(graphs.int8_at_its_limits())
    monkeypatch.setattr(providers, "instructions", lambda: frozenset(here))
    session = providers.create(tmp_path / "model.onnx", CPU, SessionConfig(tmp_path))
    options = session.get_session_options()
    fast = pytest.raises(RuntimeError, match="does not have configuration")
    with nullcontext() if here == {"avx2"} else fast:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"


def test_int8_never_saturates(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(graphs.int8_at_its_limits())
    (logits,) = Session(tmp_path / "model.onnx", CPU, SessionConfig(tmp_path)).run(
        np.ones((1, 3, 4, 4), np.float32)
    )
    assert logits.tolist() == [[255 * 127 * 48] * 3]
