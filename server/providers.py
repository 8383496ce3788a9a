"""Execution providers: what can run a session here, and what is missing where it can't.

To add one, add a row to PROVIDERS.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

# Before the import: ONNX Runtime's Linux wheels look up a host and write a file otherwise.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

from server.errors import ProviderUnavailable


@dataclass(frozen=True, slots=True)
class Provider:
    """One execution provider.

    device: how users call it. name: ONNX Runtime's name. missing: what keeps it from
    running here, in words; empty where it can. options: for a session, given the folder
    where engines may be cached.
    """

    device: str
    name: str
    missing: Callable[[], list[str]]
    options: Callable[[Path], dict[str, Any]]


def _missing_for_cpu() -> list[str]:
    return []


@cache
def _missing_for_cuda() -> list[str]:
    return _missing_driver() or _missing_libraries("CUDAExecutionProvider", "cuda")


@cache
def _missing_for_tensorrt() -> list[str]:
    missing = _missing_libraries("TensorrtExecutionProvider", "tensorrt")
    return _missing_driver() + missing


CPU = Provider("cpu", "CPUExecutionProvider", _missing_for_cpu, lambda cache_dir: {})
CUDA = Provider(
    "cuda",
    "CUDAExecutionProvider",
    _missing_for_cuda,
    # TF32 cuts the mantissa to 10 bits: faster, and no longer what the receipt proves.
    lambda cache_dir: {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"},
)
TENSORRT = Provider(
    "tensorrt",
    "TensorrtExecutionProvider",
    _missing_for_tensorrt,
    # Building an engine takes minutes; it is kept for the next start.
    lambda cache_dir: {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(cache_dir),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(cache_dir),
    },
)

PROVIDERS = (CPU, CUDA, TENSORRT)
# What runs the nodes that a provider itself can't.
_FALLBACKS = {"cpu": (), "cuda": (CPU,), "tensorrt": (CUDA, CPU)}
DEVICES = ("auto", *(provider.device for provider in PROVIDERS))


def choose(device: str) -> tuple[Provider, str]:
    """Return the provider for a device and, in words, why it was chosen.

    device: one of DEVICES. Raises ProviderUnavailable, saying what is missing, if it was
    asked for by name and can't run here; "auto" takes CUDA where it can run, else the CPU.
    """
    if device == "auto":
        if missing := CUDA.missing():
            return CPU, f"no usable NVIDIA GPU: {'; '.join(missing)}"
        return CUDA, "an NVIDIA GPU is usable"
    provider = next((p for p in PROVIDERS if p.device == device), None)
    if provider is None:
        raise ProviderUnavailable(f"device {device!r} is unknown; choose {', '.join(DEVICES)}")
    if missing := provider.missing():
        raise ProviderUnavailable(
            f"--device {device} can't run here: {'; '.join(missing)}. "
            "Install what is missing, or use --device cpu"
        )
    return provider, f"--device {device}"


def chain(provider: Provider, cache_dir: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return a provider and those behind it, as ONNX Runtime takes them: (name, options)."""
    providers = (provider, *_FALLBACKS[provider.device])
    return [(each.name, each.options(cache_dir)) for each in providers]


def _missing_driver() -> list[str]:
    """Ask the NVIDIA driver for its GPUs, without any CUDA library."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return ["the NVIDIA driver is not installed (libcuda.so.1 is not found)"]
    count = ctypes.c_int(0)
    if (status := driver.cuInit(0)) or (status := driver.cuDeviceGetCount(ctypes.byref(count))):
        return [f"the NVIDIA driver reports error {status} (nvidia-smi tells more)"]
    return [] if count.value else ["the NVIDIA driver sees no GPU"]


def _missing_libraries(name: str, library: str) -> list[str]:
    """Load a provider's library as ONNX Runtime would; the loader's error names what it lacks."""
    if name not in ort.get_available_providers():
        return [
            f"this build of ONNX Runtime has no {name}; "
            "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        ]
    if sys.platform != "linux":
        return []  # The session's own check decides.
    ort.preload_dlls()  # Those that came with pip, as torch's do.
    folder = Path(ort.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / f"libonnxruntime_providers_{library}.so"))
    except OSError as error:
        return [f"{name} needs a library that is not there ({error})"]
    return []
