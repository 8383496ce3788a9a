"""What checkpoints hold: state_dicts, and YOLO models with all that is stored beside their tensors.

A pickled module names classes, and unpickling it the usual way imports and calls them. Here it
is only read, by `pickled`, so that neither YOLOv5's code nor a stranger's is needed, or run.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torchvision
from torch import Tensor

from visavis_export import modules
from visavis_export.archive import read_archive
from visavis_export.errors import CheckpointError
from visavis_export.identity import Identity, identify, identify_state
from visavis_export.pickled import Inert, StoredTensor, check_extent, shown
from visavis_export.safetensors_file import is_safetensors, read_safetensors
from visavis_server.vision.labels import read_labels

# Where trainers put the model in what they save, the moving average of its weights first, as the
# originals take it.
_WRAPPERS = (
    *("ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "model_ema_state_dict"),
    *("model", "state_dict", "model_state_dict", "module", "net", "network", "weights", "params"),
)
# What wrappers put before the names of tensors, and what torch.compile and FSDP put among them.
_PREFIXES = (
    *("module", "model", "ema", "ema_model", "net", "network", "backbone", "encoder"),
    *("state_dict", "online_model", "resnet"),
)
_INFIXES = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Of torch's AveragedModel: how many it has averaged.
_COUNTERS = ("n_averaged",)
_MAX_WRAPPERS = 5

_T = TypeVar("_T")
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

    kind: `yolov5`, `yolov5-cls`, `ultralytics-detect` or `ultralytics-cls`. identity: which of
    them it is.
    state: named as by `nn.Module.state_dict`, floating-point tensors as float32.
    names: class names by class id; empty where none are stored.
    model: the pickled model, with its modules and their attributes.
    yaml: the architecture's description as it is stored, for `read_description`; None in
    YOLOv5-cls, which stores none.
    image_size: side in pixels of the training images, if it is known.
    """

    kind: str
    model: Inert
    identity: Identity
    state: dict[str, Tensor]
    names: tuple[str, ...]
    yaml: object
    image_size: int | None


def read_checkpoint(path: Path) -> Any:
    """Return the object that was saved: containers, `Inert` objects, tensors not yet made.

    Raises CheckpointError for other or damaged files, and UnsafeCheckpoint, naming it, for code
    that no checkpoint needs.
    """
    return read_archive(path).content


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the state_dict of a ResNet, floating-point tensors as float32.

    Reads what torch.save wrote and safetensors files. Takes a state_dict out of what trainers wrap
    it in, prefers the moving average of the weights, and takes off prefixes such as `module.`.
    A whole ResNet of torchvision is read too, if all that it says is torchvision's own. Raises
    CheckpointError, saying what it is, if the file holds something else.
    """
    if is_safetensors(path):
        return _finite(path, _plainly_named(path, read_safetensors(path)))
    saved = read_checkpoint(path)
    found = _unwrapped(saved)
    if isinstance(found, Inert):
        check_extent(found, f"{path.name}: its model")
        if found.class_path != "torchvision.models.resnet.ResNet":
            raise refusal(path, identify(found))
        stored = dict(_stored_tensors(found, ""))
        _require_torchvisions(path, found, stored)
    elif found is None:
        raise CheckpointError(
            f"{path.name} holds {shown(saved)}, not a state_dict; save `model.state_dict()`, or "
            "export a YOLO model under its own name"
        )
    else:
        stored = found
    return _finite(path, _made(_plainly_named(path, stored)))


def read_yolo_checkpoint(path: Path, names: tuple[str, ...] | None = None) -> YoloCheckpoint:
    """Return what a checkpoint of ultralytics/yolov5 (v2.0 to v7.0) or of ultralytics holds.

    names: of the classes, in place of the checkpoint's own, which are not even read then.

    Takes the moving average of the weights (`ema`) where there is one, as both originals do.
    Raises CheckpointError, saying what it is, for a bare state_dict and for other models and
    tasks.
    """
    if is_safetensors(path):
        raise refusal(path, identify_state(_plainly_named(path, read_safetensors(path))))
    saved = read_checkpoint(path)
    model = _unwrapped(saved)
    if isinstance(model, dict):
        raise refusal(path, identify_state(_plainly_named(path, model)))
    if model is None:
        raise CheckpointError(
            f"{path.name} holds {shown(saved)} and no model; give the whole checkpoint, such as "
            "the best.pt of a training"
        )
    check_extent(model, f"{path.name}: its model")
    if model.class_path == "torchvision.models.resnet.ResNet":
        raise refusal(path, identify_state(dict(_stored_tensors(model, ""))))
    identity = identify(model)
    if model.class_path not in _KINDS:
        raise refusal(path, identity)
    stored, entries = _fields(model), _fields(saved)
    options = _fields(entries.get("train_args")) or _fields(entries.get("opt"))
    return YoloCheckpoint(
        kind=_KINDS[model.class_path],
        model=model,
        identity=identity,
        state=_finite(path, _made(dict(_stored_tensors(model, "")))),
        names=_names(stored.get("names")) if names is None else names,
        yaml=stored.get("yaml"),
        image_size=_image_size(options, _KINDS[model.class_path]),
    )


def refusal(path: Path, identity: Identity) -> CheckpointError:
    """Return the error for a file that holds another model than the one that was asked for."""
    return CheckpointError(f"{path.name} is {identity.title}; {identity.advice}")


def _unwrapped(saved: object, depth: int = 0) -> Inert | dict[str, StoredTensor] | None:
    """Return the module or the state_dict in what was saved; None: there is none."""
    if _is_state_dict(saved):
        return saved  # type: ignore[return-value]
    fields = _fields(saved)
    if isinstance(saved, Inert):
        inner = fields.get("_modules")
        if saved.class_path.startswith("torch.nn.parallel.") and isinstance(inner, dict):
            return _unwrapped(inner.get("module"), depth + 1) if depth < _MAX_WRAPPERS else None
        if inner is not None or saved.class_path in _KINDS:
            return saved
    if isinstance(saved, list | tuple) and saved and depth:  # (ema, updates), as v4.0 stored it
        fields = {"model": saved[0]}
    if depth < _MAX_WRAPPERS:
        for key in _WRAPPERS:
            if key in fields and (found := _unwrapped(fields[key], depth + 1)) is not None:
                return found
    return None


def _require_torchvisions(path: Path, stored: Inert, state: dict[str, StoredTensor]) -> None:
    """Raise CheckpointError unless a pickled ResNet says of itself what torchvision's own does."""
    identity = identify_state(state)
    if not identity.names:
        raise refusal(path, identity)
    if "fc.weight" not in state:
        return  # Its state_dict is refused for that.
    with torch.device("meta"):
        classes = state["fc.weight"].shape[0]
        own = torchvision.models.get_model(identity.names[0], num_classes=classes)
    try:
        modules.require_equal(own, stored)
    except CheckpointError as error:
        difference = str(error).partition(";")[0]
        raise CheckpointError(
            f"{path.name} is {identity.title} that was changed: {difference}, and torchvision's "
            "own is otherwise; visavis exports only that"
        ) from None


def _plainly_named(path: Path, state: dict[str, _T]) -> dict[str, _T]:
    """Return a state_dict with the names that the model itself gives its tensors."""
    split = {name: [one for one in name.split(".") if one not in _INFIXES] for name in state}
    split = {name: parts for name, parts in split.items() if parts and parts[-1] not in _COUNTERS}
    while split and len({parts[0] for parts in split.values()}) == 1:
        first = next(iter(split.values()))[0]
        if first not in _PREFIXES or any(len(parts) < 2 for parts in split.values()):
            break
        split = {name: parts[1:] for name, parts in split.items()}
    plain = {".".join(parts): state[name] for name, parts in split.items()}
    if len(plain) != len(split):
        raise CheckpointError(
            f"{path.name} holds two tensors of one name, but for what torch.compile puts in it; "
            "save the state_dict of the plain model, `model._orig_mod.state_dict()`"
        )
    return plain


def _stored_tensors(module: object, prefix: str) -> Iterator[tuple[str, StoredTensor]]:
    fields = _fields(module)
    parameters, buffers = fields.get("_parameters"), fields.get("_buffers")
    modules = fields.get("_modules")
    if not (
        isinstance(parameters, dict) and isinstance(buffers, dict) and isinstance(modules, dict)
    ):
        where = f"its {prefix[:-1]}" if prefix else "it"
        raise CheckpointError(
            f"{where} is {shown(module)}, not a module with its tensors; the file was changed by "
            "hand or is damaged: save it again"
        )
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
    if not stored:
        return ()
    try:
        return read_labels(stored.state if isinstance(stored, Inert) else stored)
    except ValueError as error:
        raise CheckpointError(
            f"its class names can't be used: {error}; give them with --class-names FILE, one per "
            "line"
        ) from None


def _is_state_dict(saved: object) -> bool:
    items = saved.items() if isinstance(saved, dict) else ()
    named = all(isinstance(k, str) and isinstance(v, StoredTensor) for k, v in items)
    return named and bool(items)


def _made(stored: dict[str, StoredTensor]) -> dict[str, Tensor]:
    """Return stored tensors, if they have no more elements than were stored."""
    there = {id(tensor.storage): tensor.storage.elements for tensor in stored.values()}
    if (claimed := sum(tensor.elements for tensor in stored.values())) > sum(there.values()):
        raise CheckpointError(
            f"its tensors claim {claimed} elements, and {sum(there.values())} are stored; the file "
            "is damaged or forged"
        )
    return {name: one.tensor() for name, one in stored.items()}


def _finite(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as float32, counters as they are; raises CheckpointError for NaN and Inf."""
    for name, tensor in tensors.items():
        if not _TENSOR_NAME.fullmatch(name):
            raise CheckpointError(f"it holds a tensor called {shown(name)!r}, which is no name")
        if not tensor.is_floating_point():
            continue
        if spoilt := tensor.numel() - int(tensor.isfinite().sum()):
            raise CheckpointError(
                f"{path.name}: {spoilt} of the {tensor.numel()} numbers in its tensor {name} are "
                "NaN or infinite; its training diverged, or its numbers were too large for fp16: "
                "give an earlier checkpoint, or one saved in fp32"
            )
        if name.endswith("running_var") and tensor.numel() and (low := float(tensor.min())) < 0:
            raise CheckpointError(
                f"{path.name}: its tensor {name}, a variance, goes down to {low:.2g}, and none is "
                "below 0; the file is damaged: download or save it again"
            )
    return {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
