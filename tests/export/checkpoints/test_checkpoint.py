"""Reading checkpoints: their content is returned, and none of their code runs."""

import builtins
import ctypes
import importlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from visavis_export.checkpoints.archive import check_torch_file
from visavis_export.checkpoints.checkpoint import (
    read_checkpoint,
    read_state_dict,
    read_yolo_checkpoint,
)
from visavis_export.checkpoints.pickled import Inert
from visavis_export.errors import CheckpointError, UnsafeCheckpoint


class Net(nn.Module):
    """A module with every kind of entry that a state_dict treats specially."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2, bias=False)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.SiLU())
        self.scale = nn.Parameter(torch.rand(3))
        self.absent: nn.Module | None
        self.register_module("absent", None)
        self.register_parameter("offset", None)
        self.register_buffer("grid", torch.rand(2), persistent=False)
        self.register_buffer("anchors", torch.rand(2, 3))


@contextmanager
def posing_as(path: str, thing: Any) -> Iterator[None]:
    """Let `thing` be pickled as `path`, a name that can't be imported before or afterwards."""
    module_name, _, name = path.rpartition(".")
    old = thing.__module__, thing.__qualname__
    parts = module_name.split(".")
    modules = {".".join(parts[: n + 1]): ModuleType(parts[n]) for n in range(len(parts))}
    setattr(modules[module_name], name, thing)
    thing.__module__, thing.__qualname__ = module_name, name
    with pytest.MonkeyPatch.context() as patch:
        for imported, module in modules.items():
            patch.setitem(sys.modules, imported, module)
        yield
    thing.__module__, thing.__qualname__ = old


def saved(tmp_path: Path, content: object, **options: Any) -> Path:
    path = tmp_path / "saved.pt"
    torch.save(content, path, **options)
    return path


def saved_model(tmp_path: Path, path: str, **entries: object) -> Path:
    """Save a checkpoint whose `model` is a Net of class `path` with `entries` as attributes."""
    model = Net().half()
    vars(model).update(entries)
    with posing_as(path, Net):
        return saved(tmp_path, {"model": model, "ema": None})


class Call:
    """Pickles as the call of a function, which is how a pickle runs code."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda mark: Call(os.system, f"touch {mark}"), f"{os.name}.system"),
        (lambda mark: Call(exec, f"open({str(mark)!r}, 'w')"), "builtins.exec"),
        (lambda mark: Call(eval, f"open({str(mark)!r}, 'w')"), "builtins.eval"),
        (lambda mark: Call(builtins.open, str(mark), "w"), "io.open"),
        (lambda mark: Call(getattr, mark, "touch"), "builtins.getattr"),
        # Pickle protocol 2 writes subprocess under its name in Python 2.
        (lambda mark: Call(subprocess.check_call, ["touch", str(mark)]), "commands.check_call"),
        (lambda mark: Call(importlib.import_module, "this"), "importlib.import_module"),
        (lambda mark: Call(shutil.rmtree, str(mark.parent)), "shutil.rmtree"),
        (lambda mark: Call(ctypes.CDLL, "libc.so.6"), "ctypes.CDLL"),
        (lambda mark: Call(torch.hub.load, "evil/repo", "model"), "torch.hub.load"),
    ],
)
@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda evil: evil, id="bare"),
        pytest.param(lambda evil: {"model": [{"ema": (evil,)}]}, id="nested"),
        pytest.param(lambda evil: SimpleNamespace(model=SimpleNamespace(x=evil)), id="in_state"),
    ],
)
def test_code_is_refused_by_name_and_never_run(
    tmp_path: Path, call: Callable[[Path], Call], name: str, wrap: Callable[[Call], object]
) -> None:
    mark = tmp_path / "was-run"
    path = saved(tmp_path, wrap(call(mark)))
    with pytest.raises(UnsafeCheckpoint, match=rf"saved\.pt is refused.* {name},"):
        read_checkpoint(path)
    assert path.exists()
    assert not mark.exists()


def test_such_code_would_run_if_the_pickle_were_trusted(tmp_path: Path) -> None:
    path = saved(tmp_path, Call(os.mkdir, str(tmp_path / "was-run")))
    torch.load(path, weights_only=False)
    assert (tmp_path / "was-run").exists()


@pytest.mark.parametrize("options", [{"pickle_protocol": 4}, {"pickle_protocol": 0}])
def test_other_pickle_protocols_run_nothing(tmp_path: Path, options: dict[str, Any]) -> None:
    path = saved(tmp_path, Call(os.system, f"touch {tmp_path / 'was-run'}"), **options)
    with pytest.raises(UnsafeCheckpoint, match="none of its code was run"):
        read_checkpoint(path)
    assert not (tmp_path / "was-run").exists()


def test_files_of_old_torch_run_nothing(tmp_path: Path) -> None:
    evil = Call(os.system, f"touch {tmp_path / 'was-run'}")
    path = saved(tmp_path, evil, _use_new_zipfile_serialization=False)
    with pytest.raises(UnsafeCheckpoint, match=f"{os.name}.system"):
        read_checkpoint(path)
    assert not (tmp_path / "was-run").exists()


def test_function_with_an_expected_name_is_not_called_even_if_importable(tmp_path: Path) -> None:
    def evil(word: str) -> None:
        called.append(word)

    called: list[str] = []
    with posing_as("models.common.evil", evil):
        path = saved(tmp_path, {"model": Call(evil, "boo")})
        stub = read_checkpoint(path)["model"]
    assert (stub.class_path, stub.args, called) == ("models.common.evil", ("boo",), [])


def test_class_with_an_expected_name_is_not_restored(tmp_path: Path) -> None:
    class Evil:
        def __setstate__(self, state: object) -> None:
            restored.append(state)

    restored: list[object] = []
    evil = Evil()
    vars(evil).update(payload=7)
    with posing_as("utils.loss.Evil", Evil):
        stub = read_checkpoint(saved(tmp_path, evil))
    assert isinstance(stub, Inert)
    assert (stub.state, restored) == ({"payload": 7}, [])


def test_class_that_torch_allows_is_inert_too(tmp_path: Path) -> None:
    path = saved(tmp_path, SimpleNamespace(x=1))
    with torch.serialization.safe_globals([SimpleNamespace]):
        assert isinstance(read_checkpoint(path), Inert)


def test_everyday_objects_are_inert(tmp_path: Path) -> None:
    content = {"path": Path("a/b"), "best": np.float64(0.5), "opt": Namespace(imgsz=320)}
    read = read_checkpoint(saved(tmp_path, content))
    assert {type(value) for value in read.values()} == {Inert}
    assert read["opt"].state == {"imgsz": 320}


def test_the_state_of_a_model_equals_the_modules_state_dict(tmp_path: Path) -> None:
    net = Net()
    with posing_as("models.yolo.Model", Net):
        read = read_yolo_checkpoint(saved(tmp_path, {"model": net})).state
    expected = net.state_dict()
    assert list(read) == list(expected)
    for name, tensor in read.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])
        assert not tensor.requires_grad


def test_a_model_that_is_not_a_module_is_refused(tmp_path: Path) -> None:
    class Model:
        x = 1

    with posing_as("models.yolo.Model", Model):
        path = saved(tmp_path, {"model": Model()})
    with pytest.raises(CheckpointError, match=r"a models\.yolo\.Model, not a module"):
        read_yolo_checkpoint(path)


@pytest.mark.parametrize(
    ("class_path", "kind"),
    [
        ("models.yolo.Model", "yolov5"),
        ("models.yolo.DetectionModel", "yolov5"),
        ("models.yolo.ClassificationModel", "yolov5-cls"),
        ("ultralytics.nn.tasks.DetectionModel", "ultralytics-detect"),
        ("ultralytics.nn.tasks.ClassificationModel", "ultralytics-cls"),
    ],
)
def test_kind_follows_from_the_models_class(tmp_path: Path, class_path: str, kind: str) -> None:
    assert read_yolo_checkpoint(saved_model(tmp_path, class_path)).kind == kind


def test_segmentation_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a models\.yolo\.SegmentationModel; visavis"):
        read_yolo_checkpoint(saved_model(tmp_path, "models.yolo.SegmentationModel"))


def test_yolo_state_is_float32(tmp_path: Path) -> None:
    state = read_yolo_checkpoint(saved_model(tmp_path, "models.yolo.Model")).state
    dtypes = {name: tensor.dtype for name, tensor in state.items()}
    assert dtypes.pop("body.1.num_batches_tracked") == torch.int64
    assert set(dtypes.values()) == {torch.float32}


def test_moving_average_is_preferred(tmp_path: Path) -> None:
    model, ema = Net(), Net()
    with posing_as("models.yolo.Model", Net):
        path = saved(tmp_path, {"model": model, "ema": ema})
    assert torch.equal(read_yolo_checkpoint(path).state["scale"], ema.state_dict()["scale"])


@pytest.mark.parametrize("names", [["cat", "7"], ("cat", 7), {1: "7", 0: "cat"}])
def test_names_are_ordered_by_class_id(tmp_path: Path, names: object) -> None:
    path = saved_model(tmp_path, "models.yolo.Model", names=names)
    assert read_yolo_checkpoint(path).names == ("cat", "7")


@pytest.mark.parametrize("names", [{1: "cat"}, {"cat": 0}, {0: "cat", 2: "dog"}])
def test_names_that_leave_gaps_are_refused(tmp_path: Path, names: object) -> None:
    path = saved_model(tmp_path, "models.yolo.Model", names=names)
    with pytest.raises(CheckpointError, match=r"class names .* give them with --class-names FILE"):
        read_yolo_checkpoint(path)


def test_given_names_replace_invalid_ones(tmp_path: Path) -> None:
    path = saved_model(tmp_path, "models.yolo.Model", names={1: "cat", "x": 7})
    assert read_yolo_checkpoint(path, ("dog", "cat")).names == ("dog", "cat")


@pytest.mark.parametrize("options", [{"train_args": {"imgsz": 320}}, {"opt": {"imgsz": 320}}])
def test_the_training_size_is_read(tmp_path: Path, options: dict[str, object]) -> None:
    with posing_as("models.yolo.Model", Net):
        path = saved(tmp_path, {"model": Net(), "date": "2022-11-22", **options})
    assert read_yolo_checkpoint(path).image_size == 320


def test_bare_checkpoint_has_no_size_and_no_names(tmp_path: Path) -> None:
    read = read_yolo_checkpoint(saved_model(tmp_path, "models.yolo.ClassificationModel"))
    assert (read.names, read.yaml, read.image_size) == ((), None, None)


@pytest.fixture
def ultralytics_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    monkeypatch.setenv("YOLO_AUTOINSTALL", "false")
    return importlib.import_module("ultralytics.nn.tasks")


@pytest.mark.parametrize(
    ("model", "config", "kind"),
    [
        ("DetectionModel", "yolov5n.yaml", "ultralytics-detect"),
        ("ClassificationModel", "yolov8n-cls.yaml", "ultralytics-cls"),
    ],
)
def test_checkpoint_of_ultralytics_own_classes_is_read(
    tmp_path: Path, ultralytics_tasks: ModuleType, model: str, config: str, kind: str
) -> None:
    original = getattr(ultralytics_tasks, model)(config, verbose=False)
    read = read_yolo_checkpoint(saved(tmp_path, {"model": original, "ema": None}))
    assert read.kind == kind
    assert read.names == tuple(original.names[n] for n in range(original.yaml["nc"]))
    expected = original.state_dict()
    assert list(read.state) == list(expected)
    assert all(torch.equal(read.state[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "args": {"lr": 0.1}},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    ],
)
@pytest.mark.parametrize("as_zip", [True, False])
def test_state_dict_is_unwrapped(
    tmp_path: Path, wrap: Callable[[dict[str, Any]], dict[str, Any]], as_zip: bool
) -> None:
    state = {"fc.weight": torch.rand(2, 3).half(), "fc.steps": torch.tensor(7)}
    path = saved(tmp_path, wrap(state), _use_new_zipfile_serialization=as_zip)
    read = read_state_dict(path)
    assert list(read) == list(state)
    assert torch.equal(read["fc.weight"], state["fc.weight"].float())
    assert (read["fc.weight"].dtype, read["fc.steps"].dtype) == (torch.float32, torch.int64)


def test_layers_may_share_a_tensor(tmp_path: Path) -> None:
    shared, own = torch.arange(12.0).reshape(3, 4), torch.ones(2)
    torch.save({"a.weight": shared, "b.weight": shared, "c.bias": own}, tmp_path / "tied.pt")
    state = read_state_dict(tmp_path / "tied.pt")
    assert all(torch.equal(state[name], shared) for name in ("a.weight", "b.weight"))
    many = {f"{layer}.weight": shared for layer in range(100)}
    torch.save(many, tmp_path / "many.pt")
    with pytest.raises(CheckpointError, match="claim 1200 elements, but only 12 are stored"):
        read_state_dict(tmp_path / "many.pt")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda tensor: tensor.to("meta"), "tensor fc.weight is a meta tensor.*load the model"),
        (lambda tensor: tensor.to_sparse(), "tensor fc.weight is a sparse tensor"),
        (
            lambda tensor: tensor.to(torch.complex64),
            "type torch.ComplexFloatStorage, and supported",
        ),
        (
            lambda tensor: tensor.to(torch.int32),
            "fc.weight has the type int32, which weights do not",
        ),
        (lambda tensor: tensor > 0, "fc.weight has the type bool"),
    ],
)
def test_weights_of_another_kind_are_refused_by_it(
    tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor], why: str
) -> None:
    path = saved(tmp_path, {"fc.bias": torch.ones(2), "fc.weight": change(torch.ones(2, 3))})
    with pytest.raises(CheckpointError, match=why):
        read_state_dict(path)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.uint16])
def test_safetensors_of_another_kind_are_refused_by_it(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"fc.weight": torch.ones(2, 3).to(dtype)}, path)
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(CheckpointError, match=f"fc.weight has the type {kind}"):
        read_state_dict(path)
    save_file({}, path)
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_state_dict(path)


def test_the_version_of_torch_may_be_stored_beside_the_weights(tmp_path: Path) -> None:
    weights = {"fc.weight": torch.ones(2, 3)}
    path = saved(tmp_path, {"state_dict": weights, "torch_version": torch.__version__})
    assert torch.equal(read_state_dict(path)["fc.weight"], weights["fc.weight"])


def test_whole_module_is_not_a_state_dict(tmp_path: Path) -> None:
    path = saved_model(tmp_path, "models.yolo.Model")
    with pytest.raises(CheckpointError, match=r"is a models\.yolo\.Model; visavis"):
        read_state_dict(path)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {1: torch.zeros(1)}, [1], 7])
def test_anything_else_is_not_a_state_dict(tmp_path: Path, content: object) -> None:
    with pytest.raises(CheckpointError, match="not a state_dict"):
        read_state_dict(saved(tmp_path, content))


def test_state_dict_is_not_a_yolo_checkpoint(tmp_path: Path) -> None:
    path = saved(tmp_path, {"fc.weight": torch.rand(2, 3)})
    with pytest.raises(CheckpointError, match=r"of another network, .* fc\.weight"):
        read_yolo_checkpoint(path)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1], 7])
def test_anything_else_is_not_a_yolo_checkpoint(tmp_path: Path, content: object) -> None:
    with pytest.raises(CheckpointError, match=r"holds .* and no model; give the whole"):
        read_yolo_checkpoint(saved(tmp_path, content))


def zipped(**records: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in records.items():
            archive.writestr(f"archive/{name}.pkl", content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><title>Sign in", "HTML page"),
        (b"\x08\x07\x12\x07pytorch", r"is an ONNX file.* NAME/1/model\.onnx"),
        (b"\x1f\x8b\x08\0\0\0", "is compressed; unpack it"),
        (b"\x89HDF\r\n", "is an HDF5 file, probably"),
        (b"\x80\x04K\x01.", "not a torch checkpoint: it begins with .*written by torch.save"),
        (zipped(data=bytes(1000))[:500], "cut short"),
        (zipped(other=b""), "a zip archive, but not a torch checkpoint"),
        (zipped(data=b"", constants=b""), "TorchScript"),
    ],
)
def test_file_of_another_format_is_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=complaint):
        check_torch_file(path)


def test_folder_and_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder"):
        check_torch_file(tmp_path)
    with pytest.raises(CheckpointError, match=r"can't read .*net\.pt: No such file"):
        check_torch_file(tmp_path / "net.pt")


@pytest.mark.parametrize("pickle", [b"", b"\x80\x02", b"\x80\x02K\x01"])
def test_damaged_pickle_is_an_error(tmp_path: Path, pickle: bytes) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(zipped(data=pickle))
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(path)


def test_real_yolov5n_is_read_without_its_code(weights: Path) -> None:
    """The figures are those of ultralytics/yolov5: models/yolov5n.yaml, and its log's count."""
    checkpoint = read_yolo_checkpoint(weights / "yolov5n.pt")
    assert checkpoint.kind == "yolov5"
    assert (len(checkpoint.names), checkpoint.names[0]) == (80, "person")
    assert (checkpoint.names[5], checkpoint.names[79]) == ("bus", "toothbrush")
    assert (checkpoint.yaml["depth_multiple"], checkpoint.yaml["width_multiple"]) == (0.33, 0.25)
    buffers = ("running_mean", "running_var", "num_batches_tracked", "anchors", "anchor_grid")
    sizes = {name: tensor.numel() for name, tensor in checkpoint.state.items()}
    parameters = sum(size for name, size in sizes.items() if not name.endswith(buffers))
    # The log counts after fusing: each BatchNorm's weight and bias have become one bias.
    fused = parameters - sum(size for name, size in sizes.items() if name.endswith("bn.weight"))
    assert fused == 1_867_405
    pixels = checkpoint.state["model.24.anchors"] * torch.tensor([8, 16, 32]).view(3, 1, 1)
    assert pixels[0].tolist() == [[10, 13], [16, 30], [33, 23]]
    assert pixels[2].tolist() == [[116, 90], [156, 198], [373, 326]]


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet18", 11_689_512), ("resnet50", 25_557_032)]
)
def test_real_resnet_fits_torchvisions(name: str, parameters: int, weights: Path) -> None:
    """The figures are `num_params` of torchvision's weights enums."""
    models = pytest.importorskip("torchvision.models")
    state = read_state_dict(weights / f"{name}.pth")
    with torch.device("meta"):
        net = models.get_model(name)
    assert {k: t.shape for k, t in state.items()} == {
        k: t.shape for k, t in net.state_dict().items()
    }
    assert sum(state[k].numel() for k, _ in net.named_parameters()) == parameters
