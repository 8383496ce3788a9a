"""Execution providers: what can run a session here, and what is missing where it can't.

To add one, add a row to PROVIDERS.
"""

import ctypes
import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime as ort
import structlog

from visavis_server.errors import ProviderUnavailable
from visavis_server.runtime.cores import instructions
from visavis_server.runtime.plan import Device
from visavis_server.runtime.private_copy import PrivateCopy

_log = structlog.get_logger()

# What multiplies uint8 by int8 without saturation, and what computes in bfloat16.
_EXACT_INT8 = {"avx512_vnni", "avx_vnni", "amx_int8"}
_BF16 = {"avx512_bf16", "amx_bf16"}
# What the arena asks the system for: what a run needs, and not the next power of two (0).
_ARENA = {"arena_extend_strategy": 1}


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What a session is to be like.

    cache_dir: where engines may be kept. threads: of one run. runs: at once. spin: whether
    threads stay awake between operators. bf16: whether to compute in bfloat16.
    """

    cache_dir: Path
    threads: int = 1
    runs: int = 1
    spin: bool = False
    bf16: bool = False


@dataclass(frozen=True, slots=True)
class Provider:
    """One execution provider.

    device: how users call it. name: ONNX Runtime's name. missing: what keeps it from
    running here, in words; empty where it can. options: for a session. on_device: whether
    it runs beside the cores, not on them. own_threads: whether one session of it keeps the
    threads of several runs apart by itself. missing_for_bf16: as `missing`.
    """

    device: Device
    name: str
    missing: Callable[[], list[str]]
    options: Callable[[SessionConfig], dict[str, Any]]
    on_device: bool = False
    own_threads: bool = False
    missing_for_bf16: Callable[[], list[str]] = lambda: ["only --device openvino computes in it"]


def _missing_for_cpu() -> list[str]:
    return []


@cache
def _missing_for_cuda() -> list[str]:
    return _missing_driver() or _missing_libraries("CUDAExecutionProvider", "cuda")


@cache
def _missing_for_tensorrt() -> list[str]:
    missing = _missing_libraries("TensorrtExecutionProvider", "tensorrt")
    return _missing_driver() + missing


def _missing_for_openvino() -> list[str]:
    if _openvino_devices() or OPENVINO.name in ort.get_available_providers():
        return []
    if not _openvino_plugin():
        return [
            "OpenVINO is not installed: pip install onnxruntime-ep-openvino; or, where that finds "
            "no device, onnxruntime-openvino instead of ONNX Runtime's other builds"
        ]
    return ["OpenVINO's plugin finds no processor here that it can use"]


def _missing_for_bf16() -> list[str]:
    """Ask OpenVINO's plugin, or else the processor itself."""
    if devices := _openvino_devices():
        can = "BF16" in devices[0].ep_metadata.get("OPTIMIZATION_CAPABILITIES", "").split()
    else:
        can = not instructions().isdisjoint(_BF16)
    return [] if can else ["this processor has no instructions for it"]


def _options_for_openvino(config: SessionConfig) -> dict[str, Any]:
    properties = {
        # Left alone, it takes bfloat16 wherever it can: faster, and not what was exported.
        "INFERENCE_PRECISION_HINT": "bf16" if config.bf16 else "f32",
        "INFERENCE_NUM_THREADS": str(config.threads * config.runs),
        "NUM_STREAMS": str(config.runs),
    }
    return {"device_type": "CPU", "load_config": json.dumps({"CPU": properties})}


CPU = Provider("cpu", "CPUExecutionProvider", _missing_for_cpu, lambda config: {})
OPENVINO = Provider(
    "openvino",
    "OpenVINOExecutionProvider",
    _missing_for_openvino,
    _options_for_openvino,
    own_threads=True,
    missing_for_bf16=_missing_for_bf16,
)
CUDA = Provider(
    "cuda",
    "CUDAExecutionProvider",
    _missing_for_cuda,
    # TF32 cuts the mantissa to 10 bits: faster, and no longer what the receipt proves.
    lambda config: {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"},
    on_device=True,
)
TENSORRT = Provider(
    "tensorrt",
    "TensorrtExecutionProvider",
    _missing_for_tensorrt,
    # Building an engine takes minutes; it is kept for the next start.
    lambda config: {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(config.cache_dir),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(config.cache_dir),
    },
    on_device=True,
)

PROVIDERS = (CPU, OPENVINO, CUDA, TENSORRT)
# What runs the nodes that a provider itself can't.
_FALLBACKS = {"cpu": (), "openvino": (CPU,), "cuda": (CPU,), "tensorrt": (CUDA, CPU)}
DEVICES = ("auto", *(provider.device for provider in PROVIDERS))


def choose(device: str, bf16: bool = False) -> tuple[Provider, str]:
    """Return the provider for a device and, in words, why it was chosen.

    device: one of DEVICES. bf16: whether it is to compute in bfloat16. Raises
    ProviderUnavailable, saying what is missing, if that was asked for by name and can't run
    here; "auto" takes CUDA where it can run, else the CPU.
    """
    if device == "auto":
        missing = CUDA.missing()
        provider = CPU if missing else CUDA
        why = (
            f"no usable NVIDIA GPU: {'; '.join(missing)}" if missing else "an NVIDIA GPU is usable"
        )
    else:
        found = next((p for p in PROVIDERS if p.device == device), None)
        if found is None:
            raise ProviderUnavailable(f"device {device!r} is unknown; choose {', '.join(DEVICES)}")
        if missing := found.missing():
            raise ProviderUnavailable(
                f"--device {device} can't run here: {'; '.join(missing)}. "
                "Install what is missing, or use --device cpu"
            )
        provider, why = found, f"--device {device}"
    if bf16 and (missing := provider.missing_for_bf16()):
        raise ProviderUnavailable(f"--bf16 can't be had on {provider.device}: {'; '.join(missing)}")
    return provider, why


def create(
    file: Path | PrivateCopy, provider: Provider, config: SessionConfig
) -> ort.InferenceSession:
    """Return ONNX Runtime's session for a file; what it raises is its own."""
    model: str | bytes = str(file)
    if isinstance(file, PrivateCopy):
        # TensorRT names its engines after the path: a descriptor's number would be another name
        # at the next start.
        model = file.read() if provider is TENSORRT else file.model
    if provider is TENSORRT:
        config.cache_dir.mkdir(parents=True, exist_ok=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    # A thread that spins while it waits takes the core from another session. Where it may, not
    # for long: between two operators this is as fast as spinning on, at less CPU. Much shorter,
    # and they fall asleep within operators, which then take twice as long.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(config.spin)))
    options.add_session_config_entry("session.intra_op.spin_duration_us", "500")
    never_saturate(options)
    if provider is CPU:
        _share_memory(options)
    options.log_severity_level = 3
    if provider is OPENVINO and (devices := _openvino_devices()):
        given = provider.options(config)
        del given["device_type"]  # the devices say it
        options.add_provider_for_devices(devices, given)
        return ort.InferenceSession(model, options)
    chain = (provider, *_FALLBACKS[provider.device])
    providers = [(each.name, each.options(config)) for each in chain]
    return ort.InferenceSession(model, options, providers=providers)


def never_saturate(options: ort.SessionOptions) -> None:
    """Let int8 models be computed exactly.

    Without VNNI, uint8 times int8 saturates at 16 bits: faster by a third, and ResNet-50 loses
    7 points of top-1. What is asked for here is slower, also where the fast way is exact.
    """
    if instructions().isdisjoint(_EXACT_INT8):
        options.add_session_config_entry("session.x64quantprecision", "1")


def _share_memory(options: ort.SessionOptions) -> None:
    """Let all sessions take what their runs need from one arena: an idle one keeps its weights."""
    _register_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")


@cache
def _register_arena() -> None:
    where = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(where, ort.OrtArenaCfg(_ARENA))


def _openvino_plugin() -> Any:
    """Return the module of OpenVINO's plugin for any build of ONNX Runtime, or None."""
    try:
        return importlib.import_module("onnxruntime_ep_openvino")
    except ImportError:
        return None


@cache
def _openvino_devices() -> list[Any]:
    """Return the processors that OpenVINO's plugin finds here, once it is registered."""
    if not (plugin := _openvino_plugin()):
        return []
    try:
        if all(device.ep_name != OPENVINO.name for device in ort.get_ep_devices()):
            ort.register_execution_provider_library(OPENVINO.name, plugin.get_library_path())
    except Exception:  # noqa: BLE001  whatever keeps it from loading: there are no devices then
        _log.exception("OpenVINO's plugin can't be registered")
        return []
    return [
        device
        for device in ort.get_ep_devices()
        if device.ep_name == OPENVINO.name and device.device.type == ort.OrtHardwareDeviceType.CPU
    ]


def _missing_driver() -> list[str]:
    """Ask the NVIDIA driver for its GPUs, without any CUDA library."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
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
