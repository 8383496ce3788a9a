"""One copy of a model's weights for the sessions of several processes, on the CPU.

The first process writes the graph as ONNX Runtime has optimized and packed it, with the weights in
a file beside it. Every session maps that file: the kernel keeps its pages once.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import onnxruntime as ort
import structlog

_log = structlog.get_logger()

_GRAPH, _WEIGHTS = "model.onnx", "weights.bin"
# Smaller tensors stay in the graph.
_LEAST_BYTES: Final = 1024


def shared_model(
    model: str | bytes, options: Callable[[], ort.SessionOptions], folder: Path
) -> Path | None:
    """Return the file of the optimized graph, which is written first if it is missing.

    options: returns those of the session that will use it. folder: of this model alone; only this
    user may write to the one above it. None: it can't be written; the log says why.
    """
    if not _is_private(folder.parent):
        why = f"{folder.parent} is gone, or not a folder of this user alone"
        _log.warning("each worker holds the weights", why=why)
        return None
    if (folder / _GRAPH).is_file():
        return folder / _GRAPH
    try:
        # Elsewhere first, then renamed: another process never finds half of it.
        written = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            _write(model, options(), written)
            os.rename(written, folder)  # noqa: PTH104
        finally:
            shutil.rmtree(written, ignore_errors=True)
    except Exception as error:  # noqa: BLE001  the disk is full, or a node can't be written
        if not (folder / _GRAPH).is_file():  # another process was faster
            why = f"{type(error).__name__}: {error}"[:500]
            _log.warning("each worker holds the weights", why=why)
            return None
    return folder / _GRAPH


def _is_private(folder: Path) -> bool:
    """Return True if only this user may write to a folder.

    If the system has removed it from /tmp, another user may have made one of its name.
    """
    try:
        status = folder.lstat()
    except OSError:
        return False
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return ours and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _write(model: str | bytes, options: ort.SessionOptions, folder: Path) -> None:
    options.optimized_model_filepath = str(folder / _GRAPH)
    for name, value in (
        ("session.optimized_model_external_initializers_file_name", _WEIGHTS),
        ("session.optimized_model_external_initializers_min_size_in_bytes", str(_LEAST_BYTES)),
        ("session.save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(name, value)
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
