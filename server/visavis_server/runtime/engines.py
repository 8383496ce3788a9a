"""TensorRT's engines: where they are kept, for which shapes, and what is logged as one is built."""

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import onnxruntime as ort
import structlog

from visavis_server.runtime.fixed_batches import padded

_log = structlog.get_logger()
_LIBRARY: Final = "libnvinfer.so.10"
_EVERY_S: Final = 10.0


def versions() -> str:
    """Return the name of the folder for the engines of this ONNX Runtime and this TensorRT.

    TensorRT refuses engines of another version, and ONNX Runtime does not look.
    """
    try:
        number = str(ctypes.CDLL(_LIBRARY).getInferLibVersion())
    except (OSError, AttributeError):
        number = "unknown"
    return f"onnxruntime-{ort.__version__}-tensorrt-{number}"


def profiles(model: str | bytes, batch: int) -> dict[str, str]:
    """Return TensorRT's options for one engine that serves batches of 1 up to `batch`.

    Without them TensorRT would build a new engine whenever a batch is larger than all before.
    Empty if the batch is fixed, or if another size of the input varies.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    inputs = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).get_inputs()
    largest = padded(batch)
    shapes = []
    for each in inputs:
        first, *rest = each.shape or (1,)
        if isinstance(first, int) or not all(isinstance(size, int) for size in rest):
            return {}
        shapes.append((each.name, "x".join(map(str, rest))))
    # Kernels are chosen for the largest batch: a device under load runs those.
    sizes = {"min": 1, "opt": largest, "max": largest}
    return {
        f"trt_profile_{which}_shapes": ",".join(f"{name}:{size}x{rest}" for name, rest in shapes)
        for which, size in sizes.items()
    }


@contextmanager
def progress(folder: Path, every_s: float = _EVERY_S) -> Iterator[None]:
    """Log the begin of a build, that it goes on, and its end; nothing if an engine is there."""
    if any(folder.glob("*.engine")):
        yield
        return
    began, ended = time.monotonic(), threading.Event()

    def seconds() -> float:
        return round(time.monotonic() - began, 1)

    def tell() -> None:
        while not ended.wait(every_s):
            _log.info("building the TensorRT engine", seconds=seconds())

    _log.info("TensorRT engine begun: it may take minutes, once", folder=str(folder))
    thread = threading.Thread(target=tell, name="engine", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        _log.error("TensorRT engine not built", seconds=seconds())
        raise
    finally:
        ended.set()
        thread.join()
    _log.info("TensorRT engine built", seconds=seconds())
