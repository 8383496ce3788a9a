"""Execution providers: which can run a session on this machine, and what the others lack.

To add one, add a row to PROVIDERS.
"""

import ctypes
import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import onnxruntime as ort
import structlog

from visavis_server.errors import ProviderUnavailable
from visavis_server.runtime import engines, nvidia
from visavis_server.runtime.cores import instructions
from visavis_server.runtime.plan import Device, Memory
from visavis_server.runtime.private_copy import PrivateCopy
from visavis_server.runtime.shared_weights import shared_model

_log = structlog.get_logger()

# Instruction sets that multiply uint8 by int8 without saturation, and that compute in bfloat16.
_EXACT_INT8 = {"avx512_vnni", "avx_vnni", "amx_int8"}
_BF16 = {"avx512_bf16", "amx_bf16"}
# Grow the arena by what a run needs (1), not by the next power of two (0).
_ARENA = {"arena_extend_strategy": 1}


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """The options of a session.

    cache_dir: the folder for compiled engines. threads: the threads of one run. runs: concurrent
    runs. batch: the most images in one. spin: threads busy-wait between operators. bf16: compute in
    bfloat16. varying: the shape of the input varies. gpu: its number. gpu_bytes: of its memory, the
    most that the session may take; 0: any. cuda_graphs: replay runs as CUDA graphs. shared: the
    folder in which processes share the model's weights.
    """

    cache_dir: Path
    threads: int = 1
    runs: int = 1
    batch: int = 1
    spin: bool = False
    bf16: bool = False
    varying: bool = False
    gpu: int = 0
    gpu_bytes: int = 0
    cuda_graphs: bool = False
    shared: Path | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """One execution provider.

    device: the name in the settings. name: ONNX Runtime's name. missing: returns what this machine
    lacks to run it, in words; empty if nothing. options: returns the options for a session.
    on_device: it runs on a device instead of the cores. memory: of its tensors. own_threads: one
    session of it separates the threads of concurrent runs. missing_for_bf16: as `missing`, for
    bfloat16.
    """

    device: Device
    name: str
    missing: Callable[[], list[str]]
    options: Callable[[SessionConfig], dict[str, Any]]
    on_device: bool = False
    memory: Memory = "cpu"
    own_threads: bool = False
    missing_for_bf16: Callable[[], list[str]] = lambda: ["only --device openvino supports bfloat16"]


def _missing_for_cpu() -> list[str]:
    return []


@cache
def _missing_for_cuda() -> list[str]:
    return nvidia.missing() or _missing_libraries("CUDAExecutionProvider", "cuda")


@cache
def _missing_for_tensorrt() -> list[str]:
    missing = _missing_libraries("TensorrtExecutionProvider", "tensorrt")
    return nvidia.missing() + missing


def _missing_for_openvino() -> list[str]:
    if _openvino_devices() or OPENVINO.name in ort.get_available_providers():
        return []
    if not _openvino_plugin():
        return [
            "OpenVINO is not installed: pip install onnxruntime-ep-openvino; or, if that finds "
            "no device, install onnxruntime-openvino instead of ONNX Runtime's other builds"
        ]
    return ["OpenVINO's plugin finds no supported processor"]


def _missing_for_bf16() -> list[str]:
    """Return what this machine lacks for bfloat16, by OpenVINO's plugin or the instruction sets."""
    if devices := _openvino_devices():
        supported = "BF16" in devices[0].ep_metadata.get("OPTIMIZATION_CAPABILITIES", "").split()
    else:
        supported = not instructions().isdisjoint(_BF16)
    return [] if supported else ["this processor does not support bfloat16"]


def _options_for_openvino(config: SessionConfig) -> dict[str, Any]:
    properties = {
        # By default OpenVINO computes in bfloat16 where it can: faster, but not what was exported.
        "INFERENCE_PRECISION_HINT": "bf16" if config.bf16 else "f32",
        "INFERENCE_NUM_THREADS": str(config.threads * config.runs),
        "NUM_STREAMS": str(config.runs),
    }
    return {"device_type": "CPU", "load_config": json.dumps({"CPU": properties})}


def _options_for_cuda(config: SessionConfig) -> dict[str, Any]:
    options = {
        "device_id": str(config.gpu),
        # TF32 cuts the mantissa to 10 bits: faster, but no longer what the receipt proves.
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": str(int(config.cuda_graphs)),
    }
    if config.gpu_bytes:
        options["gpu_mem_limit"] = str(config.gpu_bytes)
    return options


def _options_for_tensorrt(config: SessionConfig) -> dict[str, Any]:
    options = {
        "device_id": str(config.gpu),
        # Building an engine takes minutes, so it is cached for the next start.
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(config.cache_dir),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(config.cache_dir),
        "trt_cuda_graph_enable": str(config.cuda_graphs),
    }
    if config.gpu_bytes:
        # Its only limit: of the memory that a kernel may use while it runs.
        options["trt_max_workspace_size"] = str(config.gpu_bytes)
    return options


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
    _options_for_cuda,
    on_device=True,
    memory="cuda",
)
TENSORRT = Provider(
    "tensorrt",
    "TensorrtExecutionProvider",
    _missing_for_tensorrt,
    _options_for_tensorrt,
    on_device=True,
    memory="cuda",
)

PROVIDERS = (CPU, OPENVINO, CUDA, TENSORRT)
# The providers that run the nodes that a provider does not support.
_FALLBACKS = {"cpu": (), "openvino": (CPU,), "cuda": (CPU,), "tensorrt": (CUDA, CPU)}
DEVICES = ("auto", *(provider.device for provider in PROVIDERS))


def choose(device: str, bf16: bool = False) -> tuple[Provider, str]:
    """Return the provider for a device, and the reason for the choice in words.

    device: one of DEVICES; "auto" selects CUDA if it is usable, else the CPU. bf16: compute in
    bfloat16. Raises ProviderUnavailable, naming what is missing, if the requested device or
    bfloat16 is unusable on this machine.
    """
    if device == "auto":
        missing = CUDA.missing()
        provider = CPU if missing else CUDA
        why = (
            f"no usable NVIDIA GPU: {'; '.join(missing)}" if missing else "an NVIDIA GPU is usable"
        )
    else:
        requested = next((p for p in PROVIDERS if p.device == device), None)
        if requested is None:
            raise ProviderUnavailable(
                f"device {device!r} is unknown; choose one of {', '.join(DEVICES)}"
            )
        if missing := requested.missing():
            raise ProviderUnavailable(
                f"--device {device} is unusable: {'; '.join(missing)}. "
                "Install what is missing, or use --device cpu"
            )
        provider, why = requested, f"--device {device}"
    if bf16 and (missing := provider.missing_for_bf16()):
        raise ProviderUnavailable(
            f"--bf16 is unavailable on {provider.device}: {'; '.join(missing)}"
        )
    return provider, why


def create(
    file: Path | PrivateCopy, provider: Provider, config: SessionConfig
) -> ort.InferenceSession:
    """Return ONNX Runtime's session for a file. Raises ONNX Runtime's exceptions."""
    model: str | bytes = str(file)
    if isinstance(file, PrivateCopy):
        # TensorRT names its engines after the path, and a descriptor's number changes with each
        # start.
        model = file.read() if provider is TENSORRT else file.model
    if provider is TENSORRT:
        return _with_engine(model, config)
    options = _options(provider, config)
    if provider is CPU and config.shared is not None:
        optimized = shared_model(model, partial(_options, provider, config), config.shared)
        if optimized is not None:
            model = str(optimized)
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if provider is OPENVINO and (devices := _openvino_devices()):
        provider_options = provider.options(config)
        del provider_options["device_type"]  # given by `devices`
        options.add_provider_for_devices(devices, provider_options)
        return ort.InferenceSession(model, options)
    return _session(model, options, _chain(provider, config))


def _with_engine(model: str | bytes, config: SessionConfig) -> ort.InferenceSession:
    """Return TensorRT's session, whose engine is built unless it is in the cache."""
    folder = config.cache_dir / engines.versions()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = replace(config, cache_dir=folder)
    (name, options), *rest = _chain(TENSORRT, config)
    options |= engines.profiles(model, config.batch)
    with engines.progress(folder):
        return _session(model, _options(TENSORRT, config), [(name, options), *rest])


def _session(
    model: str | bytes, options: ort.SessionOptions, chain: list[tuple[str, dict[str, Any]]]
) -> ort.InferenceSession:
    # By default a provider's error is printed, and the CPU takes over.
    return ort.InferenceSession(model, options, providers=chain, enable_fallback=0)


def _chain(provider: Provider, config: SessionConfig) -> list[tuple[str, dict[str, Any]]]:
    """Return a provider and those that run what it does not support, each with its options."""
    # A CUDA graph holds all nodes of one provider.
    others = replace(config, cuda_graphs=False)
    fallbacks = [(each.name, each.options(others)) for each in _FALLBACKS[provider.device]]
    return [(provider.name, provider.options(config)), *fallbacks]


def _options(provider: Provider, config: SessionConfig) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    # A spinning thread takes its core from other sessions. Where spinning is allowed, 500 µs is as
    # fast as endless spinning between two operators, at less CPU. Much shorter, and threads sleep
    # within operators, which then take twice as long.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(config.spin)))
    options.add_session_config_entry("session.intra_op.spin_duration_us", "500")
    never_saturate(options)
    # ONNX Runtime would plan, and keep, the memory of every shape that it has seen.
    options.enable_mem_pattern = not config.varying
    if provider is CPU:
        _share_memory(options)
    options.log_severity_level = 3
    return options


def never_saturate(options: ort.SessionOptions) -> None:
    """Make int8 models compute exactly.

    Without VNNI, uint8 times int8 saturates at 16 bits: a third faster, but ResNet-50 loses 7
    points of top-1. The option is slower, so it is only set where saturation can happen.
    """
    if instructions().isdisjoint(_EXACT_INT8):
        options.add_session_config_entry("session.x64quantprecision", "1")


def _share_memory(options: ort.SessionOptions) -> None:
    """Make all sessions share one arena for their runs: an idle session keeps only its weights."""
    _register_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")


@cache
def _register_arena() -> None:
    where = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(where, ort.OrtArenaCfg(_ARENA))


def _openvino_plugin() -> Any:
    """Return the module of OpenVINO's plugin for ONNX Runtime; None if it is not installed."""
    try:
        return importlib.import_module("onnxruntime_ep_openvino")
    except ImportError:
        return None


@cache
def _openvino_devices() -> list[Any]:
    """Register OpenVINO's plugin, and return the processors that it finds."""
    if not (plugin := _openvino_plugin()):
        return []
    try:
        if all(device.ep_name != OPENVINO.name for device in ort.get_ep_devices()):
            ort.register_execution_provider_library(OPENVINO.name, plugin.get_library_path())
    except Exception:  # noqa: BLE001  without the plugin there are no devices
        _log.exception("OpenVINO plugin failed to register")
        return []
    return [
        device
        for device in ort.get_ep_devices()
        if device.ep_name == OPENVINO.name and device.device.type == ort.OrtHardwareDeviceType.CPU
    ]


def _missing_libraries(name: str, library: str) -> list[str]:
    """Load a provider's library as ONNX Runtime does; the loader's error names what is missing."""
    if name not in ort.get_available_providers():
        return [
            f"this build of ONNX Runtime has no {name}; "
            "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        ]
    if sys.platform != "linux":
        return []  # Session checks its provider itself.
    ort.preload_dlls()  # The libraries installed by pip, as those of torch are.
    folder = Path(ort.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / f"libonnxruntime_providers_{library}.so"))
    except OSError as error:
        return [f"{name} needs a library that is not installed ({error})"]
    return []
