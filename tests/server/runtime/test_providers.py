"""Execution providers: which are usable, and what the errors say is missing."""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from visavis_server.errors import ModelFileError, ProviderUnavailable
from visavis_server.runtime import engines, nvidia, providers
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
    nvidia._driver.cache_clear()
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


def test_the_memory_of_a_gpu_is_limited_only_if_asked_for(tmp_path: Path) -> None:
    free = SessionConfig(tmp_path, gpu=3)
    limited = SessionConfig(tmp_path, gpu=3, gpu_bytes=1 << 30)
    assert "gpu_mem_limit" not in CUDA.options(free)
    assert CUDA.options(limited)["gpu_mem_limit"] == str(1 << 30)
    assert "trt_max_workspace_size" not in providers.TENSORRT.options(free)
    for provider in (CUDA, providers.TENSORRT):
        assert provider.options(free)["device_id"] == "3"


@pytest.mark.parametrize("provider", [CUDA, providers.TENSORRT], ids=["cuda", "tensorrt"])
def test_onnx_runtime_knows_every_option(provider: providers.Provider, tmp_path: Path) -> None:
    """The names are in its libraries; a wrong one would be found on a GPU only."""
    library = f"libonnxruntime_providers_{provider.device}.so"
    file = Path(onnxruntime.__file__).parent / "capi" / library
    if not file.exists():
        pytest.skip("needs onnxruntime-gpu")
    config = SessionConfig(tmp_path, gpu_bytes=1, batch=16, cuda_graphs=True)
    options = provider.options(config)
    if provider is providers.TENSORRT:
        options |= engines.profiles(graphs.classifier(), 16)
        assert len([name for name in options if name.startswith("trt_profile")]) == 3
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as code:
        unknown = [name for name in options if code.find(name.encode() + b"\0") < 0]
    assert not unknown


_OPTIONS = """
import sys
from pathlib import Path
import onnxruntime
from visavis_server.runtime.providers import CUDA, SessionConfig, _missing_libraries
from tests.server import graphs
if missing := _missing_libraries(CUDA.name, "cuda"):
    sys.exit(f"skip: {missing}")
options = CUDA.options(SessionConfig(Path(), gpu_bytes=1 << 30, cuda_graphs=True))
del options["device_id"]  # it needs a GPU
for more in ({}, {"bogus": "1"}, {"gpu_mem_limit": "1 GiB"}):
    try:
        chain = [(CUDA.name, options | more)]
        onnxruntime.InferenceSession(graphs.classifier(), providers=chain, enable_fallback=0)
    except RuntimeError as error:
        print("ERROR", str(error).replace("\\n", " "))
"""


def test_onnx_runtime_parses_the_options_for_cuda(libcuda: Path, tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "LD_LIBRARY_PATH": str(libcuda.parent),
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", _OPTIONS],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if "skip:" in done.stderr:
        pytest.skip(f"CUDA's libraries are not installed: {done.stderr[-300:]}")
    ours, bogus, no_number = (line for line in done.stdout.splitlines() if line.startswith("ERROR"))
    assert 'Unknown provider option: "bogus"' in bogus
    assert 'Failed to parse provider option "gpu_mem_limit"' in no_number
    assert "provider option" not in ours and "CUDA" in ours


def test_an_error_of_a_provider_is_raised_instead_of_the_cpu_taking_over(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = providers.Provider("cuda", CUDA.name, list, lambda config: {"device_id": "nowhere"})
    (tmp_path / "model.onnx").write_bytes(graphs.classifier())
    with pytest.raises((ModelFileError, ProviderUnavailable)):
        Session(tmp_path / "model.onnx", broken, SessionConfig(tmp_path))
    assert "Falling back" not in capfd.readouterr().out


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
