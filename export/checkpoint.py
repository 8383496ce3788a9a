"""What checkpoints hold: state_dicts, and YOLO models with all that is stored beside their tensors.

A pickled module names classes, and unpickling it the usual way imports and calls them. Here it
is only read (`export.pickled`), so that neither YOLOv5's code nor a stranger's is needed, or run.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from export.archive import read_archive
from export.errors import CheckpointError
from export.pickled import Inert, StoredTensor, check_extent, shown
from server.labels import check_labels

_TENSOR_NAME = re.compile(r"[\w.-]{1,512}", re.ASCII)
_KINDS = {
    "models.yolo.Model": "yolov5",
    "models.yolo.DetectionModel": "yolov5",
    "models.yolo.ClassificationModel": "yolov5-cls",
    "ultralytics.nn.tasks.DetectionModel": "ultralytics-detect",
    "ultralytics.nn.tasks.ClassificationModel": "ultralytics-cls",
}


@dataclass(frozen=True, eq=False)
class YoloCheckpoint:
    """What a YOLO checkpoint holds.

    kind: `yolov5`, `yolov5-cls`, `ultralytics-detect` or `ultralytics-cls`.
    state: named as by `nn.Module.state_dict`, floating-point tensors as float32.
    names: class names by class id; empty where none are stored.
    model: the pickled model, with its modules and their attributes.
    yaml: the architecture's description as it is stored, for `read_description`; None in
    YOLOv5-cls, which stores none.
    image_size: side in pixels of the training images, if it is known.
    """

    kind: str
    model: Inert
    state: dict[str, torch.Tensor]
    names: tuple[str, ...]
    yaml: object
    image_size: int | None


def read_checkpoint(path: Path) -> Any:
    """Return the object that was saved: containers, `Inert` objects, tensors not yet made.

    Raises CheckpointError for other or damaged files, and UnsafeCheckpoint, naming it, for code
    that no checkpoint needs.
    """
    return read_archive(path).content


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Return a saved state_dict, floating-point tensors as float32.

    Takes it out of `{"state_dict": …}` and `{"model": …}`, and takes off DataParallel's `module.`.
    Raises CheckpointError if the file holds something else, a whole module for example.
    """
    saved = read_checkpoint(path)
    if isinstance(saved, dict):
        saved = saved.get("state_dict", saved.get("model", saved))
    if not _is_state_dict(saved):
        raise CheckpointError(
            f"{path.name} holds {shown(saved)}, not a state_dict; save `model.state_dict()`, "
            "or export a YOLO model under its own name"
        )
    prefix = "module." if all(name.startswith("module.") for name in saved) else ""
    return _float32({name.removeprefix(prefix): tensor for name, tensor in saved.items()})


def read_yolo_checkpoint(path: Path) -> YoloCheckpoint:
    """Return what a checkpoint of ultralytics/yolov5 (v6.0 to v7.0) or of ultralytics holds.

    Takes the moving average of the weights (`ema`) where there is one, as both originals do.
    Raises CheckpointError for a bare state_dict and for tasks other than detect and classify.
    """
    saved = read_checkpoint(path)
    if _is_state_dict(saved):
        raise CheckpointError(
            f"{path.name} is a bare state_dict; YOLO models need the whole checkpoint, "
            "which also holds the architecture and the class names"
        )
    entries = saved if isinstance(saved, dict) else {}
    model = entries.get("ema")
    model = entries.get("model", saved) if model is None else model
    if not isinstance(model, Inert) or model.class_path not in _KINDS:
        raise CheckpointError(
            f"{path.name} holds {shown(model)} where one of {', '.join(_KINDS)} is needed"
        )
    check_extent(model, f"{path.name}: its model")
    stored = _fields(model)
    options = _fields(entries.get("train_args")) or _fields(entries.get("opt"))
    return YoloCheckpoint(
        kind=_KINDS[model.class_path],
        model=model,
        state=_float32(dict(_stored_tensors(model, ""))),
        names=_names(stored.get("names", ())),
        yaml=stored.get("yaml"),
        image_size=_image_size(options, _KINDS[model.class_path]),
    )


def _stored_tensors(module: object, prefix: str) -> Iterator[tuple[str, StoredTensor]]:
    fields = _fields(module)
    parameters, buffers = fields.get("_parameters"), fields.get("_buffers")
    modules = fields.get("_modules")
    if not (
        isinstance(parameters, dict) and isinstance(buffers, dict) and isinstance(modules, dict)
    ):
        raise CheckpointError(f"{prefix or 'it'} is {shown(module)}, not a module")
    transient = fields.get("_non_persistent_buffers_set")
    if isinstance(transient, list | tuple):
        buffers = {name: buffer for name, buffer in buffers.items() if name not in transient}
    for name, tensor in (parameters | buffers).items():
        if isinstance(tensor, StoredTensor):
            yield f"{prefix}{name}", tensor
    for name, child in modules.items():
        if child is not None:
            if not isinstance(name, str) or not _TENSOR_NAME.fullmatch(name):
                raise CheckpointError(f"it holds a module called {shown(name)!r}, which is no name")
            yield from _stored_tensors(child, f"{prefix}{name}.")


def _fields(stored: object) -> dict[Any, Any]:
    """Return a dict as it is, an inert object's attributes, and nothing of anything else."""
    if isinstance(stored, Inert):
        stored = stored.state
    return stored if isinstance(stored, dict) else {}


def _image_size(options: dict[Any, Any], kind: str) -> int | None:
    """Return the side of the training's images; None where the options are another training's.

    Options of YOLOv5's detectors (with `hyp`) found in a classifier were copied along: they say
    nothing of it.
    """
    size = options.get("imgsz")
    if isinstance(size, list | tuple) and len(set(size)) == 1:
        (size,) = set(size)
    if kind == "yolov5-cls" and "hyp" in options:
        return None
    return size if type(size) is int and 32 <= size <= 4096 else None


def _names(stored: object) -> tuple[str, ...]:
    by_id = dict(enumerate(stored)) if isinstance(stored, list | tuple) else _fields(stored)
    if set(by_id) != set(range(len(by_id))):
        raise CheckpointError(
            f"class names must be numbered from 0 on, but are {shown(stored)}; give them with "
            "--class-names FILE"
        )
    try:
        return check_labels([by_id[class_id] for class_id in range(len(by_id))])
    except ValueError as error:
        raise CheckpointError(f"{error}; give them with --class-names FILE") from None


def _is_state_dict(saved: object) -> bool:
    items = saved.items() if isinstance(saved, dict) else ()
    named = all(isinstance(k, str) and isinstance(v, StoredTensor) for k, v in items)
    return named and bool(items)


def _float32(stored: dict[str, StoredTensor]) -> dict[str, torch.Tensor]:
    """Return tensors as float32, counters as they are, if there are no more than were stored."""
    for name in stored:
        if not _TENSOR_NAME.fullmatch(name):
            raise CheckpointError(f"it holds a tensor called {shown(name)!r}, which is no name")
    there = {id(tensor.storage): tensor.storage.elements for tensor in stored.values()}
    if (claimed := sum(tensor.elements for tensor in stored.values())) > sum(there.values()):
        raise CheckpointError(
            f"its tensors claim {claimed} elements, and {sum(there.values())} are stored; the file "
            "is damaged or forged"
        )
    tensors = {name: one.tensor() for name, one in stored.items()}
    return {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
