"""Reads torch checkpoints without running anything that they contain.

A pickled module names classes, and unpickling it the usual way imports and calls them. Here every
class becomes an inert stub that only remembers what it was given, so that neither YOLOv5's code
nor a stranger's is needed, or run.
"""

import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self

import torch

from export.errors import CheckpointError, UnsafeCheckpoint

# What checkpoints of our families name, beside what torch itself allows. Numpy's classes are
# stubs too: numpy does not defend itself against a forged array state.
_EXPECTED = re.compile(
    r"(__main__|argparse|collections|datetime|enum|models|numpy|pathlib|torch\.nn|torchvision"
    r"|ultralytics|utils)\..+|types\.SimpleNamespace"
)
_KINDS = {
    "models.yolo.Model": "yolov5",
    "models.yolo.DetectionModel": "yolov5",
    "models.yolo.ClassificationModel": "yolov5-cls",
    "ultralytics.nn.tasks.DetectionModel": "ultralytics-detect",
    "ultralytics.nn.tasks.ClassificationModel": "ultralytics-cls",
}

# `PROTO 2`, `LONG1` and the magic number with which torch before 1.6 began a file.
_LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."


class Inert:
    """An object of a class that was not imported: only what its pickle says of it.

    class_path: module and name of the class, such as `models.yolo.Model`.
    args: what it was built with. state: what its `__setstate__` or `__dict__` was given.
    """

    class_path = ""
    args: tuple[object, ...]
    state: Any

    def __new__(cls, *args: object) -> Self:
        """Remember the arguments; nothing else ever happens to them."""
        inert = super().__new__(cls)
        inert.args, inert.state = args, {}
        return inert

    def __setstate__(self, state: object) -> None:
        """Remember the state."""
        self.state = state


@dataclass(frozen=True, eq=False)
class YoloCheckpoint:
    """What a YOLO checkpoint holds.

    kind: `yolov5`, `yolov5-cls`, `ultralytics-detect` or `ultralytics-cls`.
    state: named as by `nn.Module.state_dict`, floating-point tensors as float32.
    names: class names by class id; empty where none are stored.
    yaml: the architecture's description, empty for YOLOv5-cls, which stores none.
    stride: input pixels per cell of each detection head.
    image_size: side in pixels of the training images.
    version: of ultralytics. date: of the training's end, ISO 8601.
    """

    kind: str
    state: dict[str, torch.Tensor]
    names: tuple[str, ...]
    yaml: dict[str, Any]
    stride: tuple[int, ...] | None
    image_size: int | None
    version: str | None
    date: str | None


def check_torch_file(path: Path) -> None:
    """Raise CheckpointError, saying what the file is instead, unless torch.save could have made it.

    Looks at the first bytes and for the end of the archive; the content may still be damaged.
    """
    if path.is_dir():
        raise CheckpointError(f"{path.name} is a folder, not a checkpoint; give a file")
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        raise CheckpointError(f"can't read {path}: {error.strerror}") from error
    if not head:
        raise CheckpointError(f"{path.name} is empty; download it again")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path.name} is only a Git LFS pointer; run `git lfs pull`")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError(f"{path.name} is an HTML page; download the file that it links to")
    if head.startswith(b"PK\x03\x04"):
        _check_archive(path)
    elif not head.startswith(_LEGACY_MAGIC):
        raise CheckpointError(f"{path.name} is no torch checkpoint: it begins with {head[:8]!r}")


def read_checkpoint(path: Path) -> Any:
    """Return the object that was saved, its tensors on the CPU and every strange class `Inert`.

    Raises CheckpointError for other or damaged files, and UnsafeCheckpoint, naming it, for code
    that no checkpoint needs. Files of torch before 1.6 may hold only tensors and containers.
    """
    check_torch_file(path)
    try:
        with _nothing_allowed():
            torch.serialization.add_safe_globals(_stubs(path))
            return torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except UnsafeCheckpoint:
        raise
    except UnpicklingError as error:
        # Torch's message goes on to recommend `weights_only=False`.
        named = re.search(r"GLOBAL (\S+)", str(error))
        raise UnsafeCheckpoint(
            f"{path.name} is refused, because it holds {named[1] if named else 'odd instructions'}"
            "; nothing of it was run. Save it again as a state_dict, with a current torch"
        ) from error
    except Exception as error:  # A damaged pickle can raise anything.
        raise CheckpointError(
            f"{path.name} is damaged ({type(error).__name__}); download it again"
        ) from error


def state_dict(module: Inert) -> dict[str, torch.Tensor]:
    """Return what `nn.Module.state_dict` would: the same names in the same order.

    Raises CheckpointError if the object is no module.
    """
    return dict(_tensors(module, ""))


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
            f"{path.name} holds {_describe(saved)}, not a state_dict; save `model.state_dict()`, "
            "or export a YOLO model under its own name"
        )
    prefix = "module." if all(name.startswith("module.") for name in saved) else ""
    return {name.removeprefix(prefix): _float32(tensor) for name, tensor in saved.items()}


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
            f"{path.name} holds {_describe(model)} where one of {', '.join(_KINDS)} is needed"
        )
    stored = _fields(model)
    options = _fields(entries.get("train_args")) or _fields(entries.get("opt"))
    yaml, stride, image_size = (
        stored.get("yaml"),
        stored.get("stride"),
        options.get("imgsz"),
    )
    version, date = entries.get("version"), entries.get("date")
    return YoloCheckpoint(
        kind=_KINDS[model.class_path],
        state={name: _float32(tensor) for name, tensor in state_dict(model).items()},
        names=_names(stored.get("names")),
        yaml=_plain(yaml) if isinstance(yaml, dict) else {},
        stride=tuple(map(int, stride.flatten())) if isinstance(stride, torch.Tensor) else None,
        image_size=image_size if isinstance(image_size, int) else None,
        version=version if isinstance(version, str) else None,
        date=date if isinstance(date, str) else None,
    )


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            records = {name.partition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path.name} is cut short; download it again") from error
    if "constants.pkl" in records:
        raise CheckpointError(f"{path.name} is TorchScript; give the checkpoint that it came from")
    if "data.pkl" not in records:
        raise CheckpointError(f"{path.name} is a zip archive, but no torch checkpoint")


@contextmanager
def _nothing_allowed() -> Iterator[None]:
    # Others allow real classes for the whole process: ultralytics all those that it has loaded.
    # The set belongs to the process, so that only one thread may read checkpoints at a time.
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed)


def _stubs(path: Path) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    if not zipfile.is_zipfile(path):
        return []
    named = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    for name in named:
        if not _EXPECTED.fullmatch(name):
            raise UnsafeCheckpoint(
                f"{path.name} is refused, because it names {name}, which has no place in a "
                "checkpoint; nothing of it was run. Get the file from a source that you trust"
            )
    return [(type(name.rpartition(".")[2], (Inert,), {"class_path": name}), name) for name in named]


def _tensors(module: object, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    fields = _fields(module)
    if not {"_parameters", "_buffers", "_modules"} <= fields.keys():
        raise CheckpointError(f"{prefix or 'it'} is {_describe(module)}, not a module")
    transient = fields.get("_non_persistent_buffers_set", ())
    persistent = {k: v for k, v in fields["_buffers"].items() if k not in transient}
    for name, tensor in (fields["_parameters"] | persistent).items():
        if isinstance(tensor, torch.Tensor):
            yield prefix + name, tensor.detach()
    for name, child in fields["_modules"].items():
        if child is not None:
            yield from _tensors(child, f"{prefix}{name}.")


def _fields(stored: object) -> dict[Any, Any]:
    """Return a dict as it is, an inert object's attributes, and nothing of anything else."""
    if isinstance(stored, Inert):
        stored = stored.state
    return stored if isinstance(stored, dict) else {}


def _names(stored: object) -> tuple[str, ...]:
    by_id = dict(enumerate(stored)) if isinstance(stored, list | tuple) else _fields(stored)
    # A data set's YAML makes numbers of class names such as 7.
    plain = all(isinstance(name, str | int | float) for name in by_id.values())
    if not plain or set(by_id) != set(range(len(by_id))):
        raise CheckpointError(f"class names must be numbered from 0 on, but are {stored!r:.80}")
    return tuple(str(by_id[class_id]) for class_id in range(len(by_id)))


def _plain(stored: object) -> Any:
    if isinstance(stored, dict):
        return {key: _plain(value) for key, value in stored.items()}
    if isinstance(stored, list | tuple):
        return [_plain(value) for value in stored]
    if stored is None or isinstance(stored, str | int | float):
        return stored
    raise CheckpointError(f"the architecture's description holds {_describe(stored)}")


def _is_state_dict(saved: object) -> bool:
    items = saved.items() if isinstance(saved, dict) else ()
    named = all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in items)
    return named and bool(items)


def _float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().float() if tensor.is_floating_point() else tensor.detach()


def _describe(stored: object) -> str:
    if isinstance(stored, dict):
        return f"a dict of {', '.join(map(str, stored)):.60}"
    return f"a {stored.class_path if isinstance(stored, Inert) else type(stored).__name__}"
