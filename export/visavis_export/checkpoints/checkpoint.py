"""Reads checkpoints: state_dicts, and YOLO models with everything stored beside their tensors.

Unpickling a module normally imports and calls the classes that it names. This reader treats it
as data, through `pickled`: it needs no YOLOv5 code and runs no untrusted code.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torchvision
from torch import Tensor

from visavis_export.checkpoints import modules
from visavis_export.checkpoints.archive import read_archive
from visavis_export.checkpoints.identity import Identity, identify, identify_state
from visavis_export.checkpoints.pickled import Inert, StoredTensor, check_extent, shown
from visavis_export.checkpoints.safetensors_file import is_safetensors, read_safetensors
from visavis_export.errors import CheckpointError
from visavis_server.vision.labels import read_labels

# Keys under which trainers save the model; the moving average of its weights comes first, because
# the original projects prefer it.
_WRAPPERS = (
    *("ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "model_ema_state_dict"),
    *("model", "state_dict", "model_state_dict", "module", "net", "network", "weights", "params"),
)
# Prefixes that wrappers add to tensor names, and parts that torch.compile and FSDP insert.
_PREFIXES = (
    *("module", "model", "ema", "ema_model", "net", "network", "backbone", "encoder"),
    *("state_dict", "online_model", "resnet"),
)
_INFIXES = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# The number of averaged models in torch's AveragedModel; not a tensor of the network.
_COUNTERS = ("n_averaged",)
_MAX_WRAPPERS = 5
# Functions that make tensors of other layouts: meta, sparse, quantised.
_REBUILT = "torch._utils._rebuild_"
# Names of tensors that are numbers, unlike counters, and the types of weights.
_NUMBERS = ("weight", "bias", "running_mean", "running_var")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# All tensors together may have this many times the elements that are stored.
_MOST_SHARED = 3

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
    """The content of a YOLO checkpoint.

    kind: `yolov5`, `yolov5-cls`, `ultralytics-detect` or `ultralytics-cls`. identity: the exact
    model.
    state: named as by `nn.Module.state_dict`, floating-point tensors as float32.
    names: class names by class id; empty where none are stored.
    model: the pickled model, with its modules and their attributes.
    yaml: the architecture's description as stored, for `read_description`; YOLOv5-cls stores
    None.
    image_size: side in pixels of the training images; None if unknown.
    """

    kind: str
    model: Inert
    identity: Identity
    state: dict[str, Tensor]
    names: tuple[str, ...]
    yaml: object
    image_size: int | None


def read_checkpoint(path: Path) -> Any:
    """Return the saved object: containers, `Inert` objects and `StoredTensor` views.

    Raises CheckpointError for other or damaged files, and UnsafeCheckpoint, naming the code, for
    code that no checkpoint needs.
    """
    return read_archive(path).content


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the state_dict of a ResNet, floating-point tensors as float32.

    Reads files of torch.save and safetensors files. Finds the state_dict inside trainers'
    wrappers, prefers the moving average of the weights, and strips prefixes such as `module.`.
    Also reads a whole pickled ResNet if its attributes equal torchvision's. Raises
    CheckpointError, naming the content, if the file holds something else.
    """
    if is_safetensors(path):
        return _finite(path, _plainly_named(path, read_safetensors(path)))
    saved = read_checkpoint(path)
    content = _unwrapped(saved)
    if isinstance(content, Inert):
        check_extent(content, f"{path.name}: its model")
        if content.class_path != "torchvision.models.resnet.ResNet":
            raise refusal(path, identify(content))
        stored = dict(_stored_tensors(content, ""))
        _require_torchvisions(path, content, stored)
    elif content is None:
        raise CheckpointError(
            f"{path.name} holds {shown(saved)}, not a state_dict; save `model.state_dict()`, or "
            "export a YOLO model under its own name"
        )
    else:
        stored = content
    return _finite(path, _made(_plainly_named(path, stored)))


def read_yolo_checkpoint(path: Path, names: tuple[str, ...] | None = None) -> YoloCheckpoint:
    """Return the content of a checkpoint of ultralytics/yolov5 (v2.0 to v7.0) or ultralytics.

    names: class names to use instead of the checkpoint's, which are then ignored.

    Prefers the moving average of the weights (`ema`), as both original projects do. Raises
    CheckpointError, naming the content, for a bare state_dict and for other models and tasks.
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
            "best.pt"
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
    """Return the error for a file that holds another model than the requested one."""
    return CheckpointError(f"{path.name} is {identity.title}; {identity.advice}")


def _unwrapped(saved: object, depth: int = 0) -> Inert | dict[str, StoredTensor] | None:
    """Return the module or the state_dict inside a saved object; None if there is neither."""
    if _is_state_dict(saved):
        for name, tensor in saved.items():  # type: ignore[attr-defined]
            _require_plain(name, tensor)
        return saved  # type: ignore[return-value]
    fields = _fields(saved)
    if isinstance(saved, Inert):
        inner = fields.get("_modules")
        if saved.class_path.startswith("torch.nn.parallel.") and isinstance(inner, dict):
            return _unwrapped(inner.get("module"), depth + 1) if depth < _MAX_WRAPPERS else None
        if inner is not None or saved.class_path in _KINDS:
            return saved
    if isinstance(saved, list | tuple) and saved and depth:  # v4.0 stored (ema, updates)
        fields = {"model": saved[0]}
    if depth < _MAX_WRAPPERS:
        for key in _WRAPPERS:
            if key in fields and (found := _unwrapped(fields[key], depth + 1)) is not None:
                return found
    return None


def _require_torchvisions(path: Path, stored: Inert, state: dict[str, StoredTensor]) -> None:
    """Raise CheckpointError unless a pickled ResNet's attributes equal torchvision's."""
    identity = identify_state(state)
    if not identity.names:
        raise refusal(path, identity)
    if "fc.weight" not in state:
        return  # The caller refuses its state_dict.
    with torch.device("meta"):
        classes = state["fc.weight"].shape[0]
        own = torchvision.models.get_model(identity.names[0], num_classes=classes)
    try:
        modules.require_equal(own, stored)
    except CheckpointError as error:
        difference = str(error).partition(";")[0]
        raise CheckpointError(
            f"{path.name} is a modified {identity.title.removeprefix('a ')}: {difference}; visavis "
            "exports torchvision's unmodified ResNets only. If it computes the same, save its "
            "tensors alone: torch.save(model.state_dict(), FILE)"
        ) from None


def _plainly_named(path: Path, state: dict[str, _T]) -> dict[str, _T]:
    """Return a state_dict under the model's own tensor names, without wrappers' prefixes."""
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
            f"{path.name} holds two tensors whose names differ only by what torch.compile inserts; "
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
            f"{where} is {shown(module)}, not a module with tensors; the file is damaged or was "
            "edited by hand: save it again"
        )
    transient = fields.get("_non_persistent_buffers_set")
    if isinstance(transient, list | tuple):
        buffers = {name: buffer for name, buffer in buffers.items() if name not in transient}
    for name, tensor in (parameters | buffers).items():
        _require_plain(f"{prefix}{name}", tensor)
        if isinstance(tensor, StoredTensor):
            yield f"{prefix}{name}", tensor
    for name, child in modules.items():
        if child is not None:
            if not isinstance(name, str) or not _TENSOR_NAME.fullmatch(name):
                raise CheckpointError(f"it holds a module with the invalid name {shown(name)!r}")
            yield from _stored_tensors(child, f"{prefix}{name}.")


def _fields(stored: object) -> dict[Any, Any]:
    """Return a dict unchanged, an inert object's attributes, or {} for anything else."""
    if isinstance(stored, Inert):
        stored = stored.state
    return stored if isinstance(stored, dict) else {}


def _image_size(options: dict[Any, Any], kind: str) -> int | None:
    """Return the side of the training images in pixels; None if unknown.

    A classifier may carry options copied from the training of a detector, which have `hyp`; they
    do not apply to it.
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
            f"its class names are invalid: {error}; give them with --class-names FILE, one per line"
        ) from None


def _is_state_dict(saved: object) -> bool:
    items = saved.items() if isinstance(saved, dict) else ()
    named = all(
        isinstance(k, str) and (isinstance(v, StoredTensor) or _is_odd(v)) for k, v in items
    )
    return named and bool(items)


def _is_odd(stored: object) -> bool:
    """Return True for a tensor of another layout, such as a sparse one."""
    return isinstance(stored, Inert) and stored.class_path.startswith(_REBUILT)


def _require_plain(name: object, stored: object) -> None:
    """Raise CheckpointError for a tensor that is no view of stored numbers."""
    if isinstance(stored, Inert) and _is_odd(stored):
        kind = stored.class_path.removeprefix(_REBUILT).partition("_tensor")[0]
        raise CheckpointError(
            f"its tensor {shown(name)} is a {shown(kind)} tensor, not a plain one with all its "
            "numbers; load the model completely and save it with dense tensors on the CPU"
        )


def _made(stored: dict[str, StoredTensor]) -> dict[str, Tensor]:
    """Return the tensors; raises CheckpointError if they claim far more elements than are stored.

    Layers may share a tensor, which counts for each of them.
    """
    elements = {id(tensor.storage): tensor.storage.elements for tensor in stored.values()}
    available = sum(elements.values())
    claimed = sum(tensor.elements for tensor in stored.values())
    if claimed > _MOST_SHARED * available:
        raise CheckpointError(
            f"its tensors claim {claimed} elements, but only {available} are stored; the file is "
            "damaged or forged"
        )
    return {name: one.tensor() for name, one in stored.items()}


def _finite(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return floating-point tensors as float32; raises CheckpointError for invalid numbers."""
    for name, tensor in tensors.items():
        if not _TENSOR_NAME.fullmatch(name):
            raise CheckpointError(f"it holds a tensor with the invalid name {shown(name)!r}")
        if tensor.dtype not in _FLOATS:
            if tensor.is_floating_point() or name.rpartition(".")[2] in _NUMBERS:
                kind = str(tensor.dtype).removeprefix("torch.")
                raise CheckpointError(
                    f"{path.name}: its tensor {name} has the type {kind}, which weights do not "
                    "have; give the checkpoint as it was before it was quantised or converted"
                )
            continue
        if spoilt := tensor.numel() - int(tensor.isfinite().sum()):
            raise CheckpointError(
                f"{path.name}: {spoilt} of the {tensor.numel()} numbers in its tensor {name} are "
                "NaN or infinite; either the training diverged, or the numbers were too large for "
                "fp16: give an earlier checkpoint, or one saved in fp32"
            )
        if name.endswith("running_var") and tensor.numel() and (low := float(tensor.min())) < 0:
            raise CheckpointError(
                f"{path.name}: its tensor {name}, a variance, contains {low:.2g}, which is below "
                "0; the file is damaged: download or save it again"
            )
    return {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
