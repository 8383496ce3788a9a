"""Custom checkpoints: other classes, other anchors, and each kind under its own name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress

from visavis_export.checkpoints.checkpoint import YoloCheckpoint, read_yolo_checkpoint
from visavis_export.checkpoints.published import P5_ANCHORS, describe
from visavis_export.errors import ExportError, ReceiptFailed
from visavis_export.exporter import Request, export
from visavis_export.families import yolov5u
from visavis_export.families.yolov5 import build_yolov5, build_yolov5_classifier
from visavis_export.graphs.graph import write_graph
from visavis_export.pictures.synthetic import synthetic_pictures
from visavis_export.proof import receipt
from visavis_export.proof.served import open_file
from visavis_server.card import Provenance, Yolov5Heads
from visavis_server.runtime.providers import SessionConfig

from .. import originals

PROVENANCE = Provenance(weights_source="test", exporter="test")
# Half of YOLOv5's own: boxes half as large.
ANCHORS = tuple(tuple(side / 2 for side in scale) for scale in P5_ANCHORS)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small YOLOv5n trained on two classes, with custom anchors."""
    description = originals.small_yaml(2) | {"anchors": [list(scale) for scale in ANCHORS]}
    model = originals.DetectionModel(description)
    model.names = ["helmet", "head"]
    originals.lively(model)
    # The result of autoanchor: the description has only their number, the buffer their values.
    model.yaml["anchors"] = 3
    path = tmp_path_factory.mktemp("custom") / "best.pt"
    return originals.save(model, path, opt={"imgsz": 128})


@pytest.fixture(scope="module")
def custom(file: Path) -> YoloCheckpoint:
    return read_yolo_checkpoint(file)


def test_a_custom_checkpoint_keeps_its_classes_and_anchors(file: Path, tmp_path: Path) -> None:
    request = Request("yolov5", tmp_path, weights=str(file), name="helmets")
    (exported,) = export(request, Progress(disable=True))
    document = exported.document
    assert document.name == "helmets"
    assert document.facts.architecture.startswith("YOLOv5 of no published size (11 layers of 16 ")
    assert document.label_set.labels == ("helmet", "head")
    assert document.input.width == 128
    assert isinstance(document.output, Yolov5Heads)
    flat = [[side for anchor in scale for side in anchor] for scale in document.output.anchors]
    assert flat == [pytest.approx(scale, rel=1e-3) for scale in ANCHORS]
    assert document.receipt is not None
    assert sum(picture.compared for picture in document.receipt.pictures) > 20


def test_a_checkpoint_that_names_too_few_classes_is_refused(custom: YoloCheckpoint) -> None:
    with pytest.raises(ExportError, match="2 classes, but 1 class names"):
        build_yolov5("yolov5", replace(custom, names=("helmet",)), None, PROVENANCE, None)


def test_a_checkpoint_of_another_size_is_refused(custom: YoloCheckpoint) -> None:
    complaint = r"no published size \(11 layers .*, 3 scales\), not yolov5s; export it as yolov5;"
    with pytest.raises(ExportError, match=complaint):
        build_yolov5("yolov5s", custom, None, PROVENANCE, None)


def test_a_checkpoint_whose_tensors_do_not_fit_its_modules_is_refused(
    custom: YoloCheckpoint,
) -> None:
    state = {**custom.state, "model.0.conv.weight": torch.zeros(16, 3, 3, 3)}
    with pytest.raises(ExportError, match=r"doesn't fit yolov5: .* such lines"):
        build_yolov5("yolov5", replace(custom, state=state), None, PROVENANCE, None)


def test_an_unknown_module_is_named(custom: YoloCheckpoint) -> None:
    description = describe("n", 2)
    description["backbone"] = [[-1, 1, "GhostConv", [64, 1, 1]]]
    with pytest.raises(ExportError, match="GhostConv"):
        build_yolov5("yolov5", replace(custom, yaml=description), None, PROVENANCE, None)


def test_an_input_size_that_is_no_multiple_of_the_stride_is_refused(
    custom: YoloCheckpoint,
) -> None:
    with pytest.raises(ExportError, match="650 is not a multiple of 32"):
        build_yolov5("yolov5", custom, None, PROVENANCE, 650)


@pytest.mark.parametrize(("size", "width"), [("n", 0.25), ("s", 0.5)])
def test_a_custom_classifier_is_rebuilt_from_its_modules(
    size: str, width: float, tmp_path: Path
) -> None:
    detector = originals.DetectionModel(originals.small_yaml() | {"width_multiple": width})
    model = originals.ClassificationModel(detector, 2, cutoff=7)
    stored = read_yolo_checkpoint(originals.save(model, tmp_path / "best.pt", opt={"imgsz": 160}))
    original = build_yolov5_classifier("yolov5-cls", stored, None, PROVENANCE, None)
    loaded = original.graph.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in stored.state.items())
    assert original.draft.label_set.labels == ("k0", "k1")
    assert original.draft.input.width == 160


@pytest.fixture(scope="module")
def anchor_free(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a YOLOv5u checkpoint of random weights, pickled from ultralytics' classes."""
    folder = tmp_path_factory.mktemp("yolov5nu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_CONFIG_DIR", str(folder))
        module: Any = yolov5u.build_yolov5u("yolov5nu", None, None, PROVENANCE, None).graph
    # As SPPF had it when YOLOv5u was published; ultralytics' own class has none any more.
    module.model[9].cv1.act = torch.nn.SiLU()
    module.names = {i: f"thing {i}" for i in range(80)}
    torch.save({"model": module, "ema": None}, folder / "yolov5nu.pt")
    return folder / "yolov5nu.pt"


@pytest.mark.filterwarnings("ignore")  # ultralytics' own
def test_a_yolov5u_checkpoint_is_read_without_its_code_and_proven(
    anchor_free: Path, tmp_path: Path
) -> None:
    (exported,) = export(Request("yolov5nu", tmp_path, str(anchor_free)), Progress(disable=True))
    document = exported.document
    assert document.facts.architecture == "YOLOv5nu"
    assert document.label_set.labels[7] == "thing 7"
    assert not document.provenance.random_weights
    assert document.receipt is not None
    module = torch.load(anchor_free, weights_only=False)["model"]
    with torch.inference_mode():
        checkpoint = read_yolo_checkpoint(anchor_free)
        rebuilt = yolov5u.build_yolov5u("yolov5nu", checkpoint, None, PROVENANCE, None).graph
        images = torch.rand(1, 3, 64, 64)
        assert torch.allclose(rebuilt(images), module(images), atol=1e-4)


def relu(module: Any) -> None:
    module.model[9].cv1.act = torch.nn.ReLU()


def stretch(module: Any) -> None:
    module.model[11].mode = "bilinear"


@pytest.mark.filterwarnings("ignore")  # ultralytics' own
@pytest.mark.parametrize("broken", [relu, stretch])
def test_a_yolov5us_receipt_fails_for_any_difference_in_the_rebuilt_network(
    broken: Callable[[Any], None], anchor_free: Path, tmp_path: Path
) -> None:
    checkpoint = read_yolo_checkpoint(anchor_free)
    original = yolov5u.build_yolov5u("yolov5nu", checkpoint, None, PROVENANCE, 64)
    broken(original.graph)
    graph = tmp_path / "graph.onnx"
    write_graph(original.graph, original.draft, graph)
    file = open_file(original.draft, graph, SessionConfig(tmp_path, threads=2))
    picture = {"odd": synthetic_pictures()["synthetic odd"]}
    with pytest.raises(ReceiptFailed, match="differs from PyTorch's"):
        receipt.prove(original.reference, file, picture)
