"""Identifying checkpoints: published networks by their layers, and others by their kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from rich.progress import Progress
from safetensors.torch import save_file
from torch import nn

from visavis_export import exporter
from visavis_export.checkpoints.checkpoint import read_state_dict, read_yolo_checkpoint
from visavis_export.checkpoints.identity import identify
from visavis_export.checkpoints.pickled import Inert
from visavis_export.checkpoints.published import MULTIPLES, describe
from visavis_export.errors import CheckpointError, ExportError
from visavis_export.exporter import Request
from visavis_export.graphs.graph import write_graph
from visavis_export.pictures.synthetic import synthetic_pictures
from visavis_export.proof import receipt
from visavis_export.proof.served import open_file
from visavis_server.runtime.providers import SessionConfig

from .. import originals


def saved(folder: Path, yaml: dict[str, Any], act: nn.Module | None = None) -> Path:
    return originals.save(originals.DetectionModel(yaml, act), folder / "best.pt")


@pytest.mark.parametrize(
    ("yaml", "act", "title", "name"),
    [
        (describe("n", 3), None, "a YOLOv5n", "yolov5n"),
        (describe("n", 3), nn.ReLU(), "a YOLOv5n with ReLU", "yolov5n"),
        (describe("s", 3), None, "a YOLOv5s", "yolov5s"),
        (describe("n", 3, p6=True), None, "a YOLOv5n6", "yolov5n6"),
        (originals.yaml_of_5_0(MULTIPLES["s"]), None, "a YOLOv5s (v4.0 to v5.0)", "yolov5s"),
        (
            originals.yaml_of_5_0(MULTIPLES["n"], "BottleneckCSP"),
            nn.Hardswish(),
            "a YOLOv5n (v3.0 to v3.1)",
            "yolov5n",
        ),
        (
            originals.yaml_of_5_0(MULTIPLES["n"], "BottleneckCSP"),
            nn.LeakyReLU(0.1),
            "a YOLOv5n (v2.0)",
            "yolov5n",
        ),
        (
            describe("n", 3) | {"width_multiple": 0.3},
            None,
            "a YOLOv5 of no published size (25 layers of 24 to 312 channels, 3 scales)",
            "yolov5",
        ),
        (
            describe("n", 3) | {"depth_multiple": 0.67},
            None,
            "a YOLOv5 of no published size (25 layers of 16 to 256 channels, 3 scales)",
            "yolov5",
        ),
    ],
)
def test_a_detector_is_known_by_its_layers(
    yaml: dict[str, Any], act: nn.Module | None, title: str, name: str, tmp_path: Path
) -> None:
    yaml = yaml | {"anchors": [list(scale) for scale in yaml["anchors"]]}
    identity = read_yolo_checkpoint(saved(tmp_path, yaml, act)).identity
    assert (identity.title, identity.names[0]) == (title, name)


def ghostly(yaml: dict[str, Any]) -> None:
    yaml["backbone"][3] = [-1, 1, "GhostConv", [64, 3, 2]]


def like_v3(yaml: dict[str, Any]) -> None:
    yaml["backbone"][2] = [-1, 2, "Bottleneck", [64]]
    yaml["backbone"][3] = [-1, 1, "Bottleneck", [64]]
    yaml["backbone"][4] = [-1, 1, "Conv", [64, 3, 4]]


@pytest.mark.parametrize(
    ("change", "title"),
    [(ghostly, "a YOLOv5 with layers of class GhostConv"), (like_v3, "a YOLOv3")],
)
def test_a_detector_of_other_layers_is_exported_by_its_own_project(
    change: Callable[[dict[str, Any]], None], title: str, tmp_path: Path
) -> None:
    yaml = originals.small_yaml()
    change(yaml)
    path = saved(tmp_path, yaml)
    for name in ("yolov5", "yolov5n"):
        with pytest.raises(ExportError, match=rf"is {title}, not {name}; .*`export\.py"):
            original(name, path)


def test_a_yolov7_is_not_sent_on_to_an_export_that_is_not_served() -> None:
    layers = {"0": Inert("models.common.RepConv"), "1": Inert("models.yolo.IDetect")}
    model = Inert("models.yolo.Model")
    inner = Inert("torch.nn.modules.container.Sequential", state={"_modules": layers})
    model.state = {"_modules": {"model": inner}}
    identity = identify(model)
    assert identity.title == "a YOLOv7"
    assert identity.advice == "visavis exports torchvision's ResNets and detectors, and YOLOv5 only"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("ultralytics")))
        from ultralytics.nn import tasks

        return tasks


def original(name: str, path: Path) -> Any:
    classes = ("a", "b", "c") if name.startswith("resnet") else None
    request = Request(name, path.parent / "out", weights=str(path), class_names=classes)
    return exporter._original(request, Progress(disable=True))


@pytest.mark.filterwarnings("ignore")  # ultralytics' own
@pytest.mark.parametrize(
    ("model", "config", "complaint"),
    [
        ("DetectionModel", "yolo11n.yaml", "is a YOLO11n of ultralytics, .*`yolo export"),
        ("DetectionModel", "yolov8n.yaml", "is a YOLOv8n of ultralytics, .*`yolo export"),
        ("DetectionModel", "yolov5s.yaml", "is a YOLOv5su, .*export it as yolov5su"),
        ("ClassificationModel", "yolov8n-cls.yaml", "YOLOv8n .* for classification, .*yolo export"),
        ("SegmentationModel", "yolo11n-seg.yaml", "is a YOLO11n of ultralytics for segmentation;"),
        ("PoseModel", "yolov8n-pose.yaml", "is a YOLOv8n of ultralytics for pose;"),
    ],
)
def test_a_model_of_ultralytics_is_called_by_its_name(
    tasks: Any, model: str, config: str, complaint: str, tmp_path: Path
) -> None:
    network = getattr(tasks, model)(config, nc=3, verbose=False).half()
    torch.save({"model": network, "ema": None}, tmp_path / "best.pt")
    for name in ("yolov5nu", "yolov5n", "resnet18"):
        with pytest.raises(ExportError, match=complaint.replace(", .*", ".*")):
            original(name, tmp_path / "best.pt")


def test_the_advice_of_an_error_works(tmp_path: Path) -> None:
    path = saved(tmp_path, originals.small_yaml())
    with pytest.raises(ExportError, match=r"not yolov5n; export it as yolov5; --name") as no:
        original("yolov5n", path)
    name = str(no.value).partition("export it as ")[2].partition(";")[0]
    assert original(name, path).draft.name == "yolov5"


def test_a_file_of_v5_0_is_exported_with_a_receipt(tmp_path: Path) -> None:
    model = originals.DetectionModel(originals.yaml_of_5_0((0.33, 0.125)))
    originals.lively(model)
    path = originals.save(model, tmp_path / "best.pt", opt={"imgsz": 128}, wandb_id=None)
    built = original("yolov5", path)
    graph = tmp_path / "graph.onnx"
    write_graph(built.graph, built.draft, graph)
    file = open_file(built.draft, graph, SessionConfig(tmp_path, threads=2))
    pictures = {"odd": synthetic_pictures()["synthetic odd"]}
    made = receipt.prove(built.reference, file, pictures)
    assert made.rows is not None
    assert made.rows.max_score_difference < 1e-4
    assert made.pictures[0].compared > 10


def test_anchors_that_are_stored_twice_must_agree(tmp_path: Path) -> None:
    model = originals.DetectionModel(originals.yaml_of_5_0((0.33, 0.125)))
    model.model[-1].anchor_grid *= 2  # type: ignore[operator, union-attr]
    path = originals.save(model, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match="other anchors in anchor_grid than in anchors"):
        original("yolov5", path)


@pytest.fixture(scope="module")
def resnet() -> torchvision.models.ResNet:
    torch.manual_seed(3)
    return torchvision.models.resnet18(num_classes=3)


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def inside(state: dict[str, Any], infix: str) -> dict[str, Any]:
    return {name.replace("layer1.", f"layer1.{infix}."): one for name, one in state.items()}


WRAPPED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "module.": lambda state: prefixed(state, "module."),
    "module._orig_mod.": lambda state: prefixed(state, "module._orig_mod."),
    "_orig_mod.module.": lambda state: {"model": prefixed(state, "_orig_mod.module.")},
    "Lightning": lambda state: {"state_dict": prefixed(state, "model."), "epoch": 3},
    "compiled layer": lambda state: inside(state, "_orig_mod"),
    "EMA beside": lambda state: {"model": zeros(state), "ema": prefixed(state, "module.")},
    "AveragedModel": lambda state: {
        "model": zeros(state),
        "model_ema": {"n_averaged": torch.tensor(7), **prefixed(state, "module.")},
    },
    "nested": lambda state: {"state_dict": {"model": {"state_dict": prefixed(state, "net.")}}},
    "decay, no EMA": lambda state: {"ema": 0.99, "model": state, "optimizer": {"lr": 0.1}},
}


def zeros(state: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_wrappers_and_prefixes_are_taken_off(
    wrap: str, resnet: torchvision.models.ResNet, tmp_path: Path
) -> None:
    torch.save(WRAPPED[wrap](resnet.state_dict()), tmp_path / "best.pt")
    read = read_state_dict(tmp_path / "best.pt")
    assert list(read) == list(resnet.state_dict())
    assert all(torch.equal(read[name], one) for name, one in resnet.state_dict().items())


def test_two_tensors_of_one_name_are_refused(
    resnet: torchvision.models.ResNet, tmp_path: Path
) -> None:
    state = resnet.state_dict()
    torch.save(state | prefixed(state, "_orig_mod."), tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=r"two tensors whose names.*_orig_mod\.state_dict"):
        read_state_dict(tmp_path / "best.pt")


def test_safetensors_are_read_by_their_own_library(
    resnet: torchvision.models.ResNet, tmp_path: Path
) -> None:
    path = tmp_path / "resnet18.safetensors"
    save_file(prefixed(resnet.half().state_dict(), "model."), path)
    read = read_state_dict(path)
    assert all(torch.equal(read[name], one.float()) for name, one in resnet.state_dict().items())
    resnet.float()
    assert original("resnet18", path.parent / "resnet18.safetensors").draft.name == "resnet18"
    with pytest.raises(CheckpointError, match="is a ResNet-18; export it as resnet18"):
        read_yolo_checkpoint(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="is a damaged safetensors file"):
        read_state_dict(path)


def test_a_whole_resnet_of_torchvision_is_read(
    resnet: torchvision.models.ResNet, tmp_path: Path
) -> None:
    torch.save(resnet, tmp_path / "best.pt")
    read = read_state_dict(tmp_path / "best.pt")
    assert all(torch.equal(read[name], one) for name, one in resnet.state_dict().items())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda m: setattr(m.layer1[0].bn1, "eps", 1e-3),
            "is a modified ResNet-18: .* eps = 0.001",
        ),
        (lambda m: setattr(m, "relu", nn.SiLU()), "SiLU instead of a ReLU"),
        (lambda m: setattr(m, "names", ["a"]), "has names = a list.* save its tensors alone"),
        (lambda m: setattr(m.conv1, "dilation", (2, 2)), r"has dilation = \(2, 2\)"),
    ],
)
def test_a_whole_resnet_that_was_changed_is_refused(
    change: Callable[[Any], None], complaint: str, tmp_path: Path
) -> None:
    model = torchvision.models.resnet18(num_classes=3)
    change(model)
    torch.save(model, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=complaint):
        read_state_dict(tmp_path / "best.pt")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: outline("resnet34"), "a ResNet-34, .* as resnet34"),
        (lambda: outline("resnext50_32x4d"), "a ResNet of unpublished widths"),
        (lambda: outline("vgg11"), r"a state_dict of another network, .* features\.0\.weight"),
        (lambda: torchvision.models.mobilenet_v3_small(), r"is a torchvision\..*\.MobileNetV3;"),
        (lambda: originals.DetectionModel(originals.small_yaml()).state_dict(), "of a YOLO, with"),
        (
            lambda: headless(nn.Sequential(nn.Dropout(), nn.Linear(512, 3))),
            r"linear layer: fc\.1\.weight",
        ),
        (lambda: headless(nn.Identity()), r"without its head, fc\.weight"),
    ],
)
def test_weights_of_another_model_are_refused_by_its_name(
    make: Callable[[], Any], complaint: str, tmp_path: Path
) -> None:
    torch.save(make(), tmp_path / "best.pt")
    with pytest.raises(ExportError, match=complaint):
        original("resnet18", tmp_path / "best.pt")


def outline(name: str) -> dict[str, torch.Tensor]:
    """Return tensors under the names of a network's, most of them scalars."""
    with torch.device("meta"):
        state = torchvision.models.get_model(name).state_dict()
    decisive = "layer1.0.conv2.weight"
    return {one: torch.zeros(t.shape if one == decisive else 1) for one, t in state.items()}


def headless(head: nn.Module) -> Any:
    model = torchvision.models.resnet18()
    model.fc = head
    return model.state_dict()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e9])
def test_weights_that_are_no_numbers_are_named(number: float, tmp_path: Path) -> None:
    model = originals.DetectionModel(originals.small_yaml())
    with torch.no_grad():
        model.model[3].conv.weight[0, 0] = number  # type: ignore[index, union-attr]
    path = originals.save(model, tmp_path / "best.pt")  # in half: 1e9 is infinite there
    complaint = r"9 of the 2304 numbers in its tensor model\.3\.conv\.weight are NaN or infinite"
    with pytest.raises(CheckpointError, match=complaint):
        read_yolo_checkpoint(path)


def test_a_negative_variance_is_named(resnet: torchvision.models.ResNet, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    state["bn1.running_var"][3] = -0.5
    torch.save(state, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=r"bn1\.running_var, a variance, contains -0\.5"):
        read_state_dict(tmp_path / "best.pt")


def written(model: nn.Module, folder: Path, content: object) -> Path:
    with originals.posing(model):
        torch.save(content, folder / "best.pt")
    return folder / "best.pt"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: {"model": nn.DataParallel(model)},
        lambda model: {"model": None, "ema": (model, 300)},
        lambda model: {"ema": {"module": model}, "model": None},
        lambda model: {"model": model, "optimizer": torch.optim.SGD(model.parameters(), 0.1)},
    ],
    ids=["DataParallel", "EMA as v4.0 saved it", "wrapped EMA", "whole optimizer"],
)
def test_a_yolo_is_taken_out_of_what_wraps_it(
    wrap: Callable[[nn.Module], dict[str, Any]], tmp_path: Path
) -> None:
    model = originals.DetectionModel(originals.small_yaml())
    checkpoint = read_yolo_checkpoint(written(model, tmp_path, wrap(model)))
    assert checkpoint.identity.names == ("yolov5",)
    assert list(checkpoint.state) == list(model.state_dict())


def test_a_compiled_model_is_refused_as_such(tmp_path: Path) -> None:
    path = written(model := nn.Linear(2, 2), tmp_path, {"model": torch.compile(model)})
    with pytest.raises(CheckpointError, match=r"belongs to torch\.compile; .*model\._orig_mod"):
        read_yolo_checkpoint(path)
