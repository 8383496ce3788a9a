"""Checkpoints of one's own: other classes, other anchors, each kind under its own name."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.progress import Progress

from export import exporter
from export.checkpoint import YoloCheckpoint
from export.errors import ExportError
from export.exporter import Request, export
from export.random_weights import calibrate
from export.weights import Weights
from export.yolov5 import (
    _spreads,
    build_yolov5,
    build_yolov5_classifier,
    letterboxed_pictures,
)
from export.yolov5_modules import P5_ANCHORS, build_classifier, build_detector, describe
from server.card import Provenance, Yolov5Heads

PROVENANCE = Provenance(weights_source="test", exporter="test")
# Half of YOLOv5's own: boxes half as large.
ANCHORS = tuple(tuple(side / 2 for side in scale) for scale in P5_ANCHORS)


@pytest.fixture(scope="module")
def custom() -> YoloCheckpoint:
    """Return a YOLOv5n trained on two classes, with anchors of its own."""
    torch.manual_seed(1)
    description = describe("n", 2) | {"anchors": ANCHORS}
    network = build_detector(description)
    calibrate(network, _spreads(network), letterboxed_pictures())
    # As autoanchor leaves it: the description says only how many, the buffer which.
    stored = description | {"anchors": 3}
    return YoloCheckpoint("yolov5", network.state_dict(), ("helmet", "head"), stored, 640)


def test_a_checkpoint_of_ones_own_keeps_its_classes_and_anchors(
    custom: YoloCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Weights(tmp_path / "best.pt", "best.pt", "0" * 64)
    monkeypatch.setattr(exporter, "find", lambda *_: found)
    monkeypatch.setattr(exporter, "read_yolo_checkpoint", lambda _: custom)
    request = Request("yolov5n", tmp_path, weights="best.pt", name="helmets")
    (exported,) = export(request, Progress(disable=True))
    document = exported.document
    assert document.name == "helmets"
    assert document.label_set.labels == ("helmet", "head")
    assert isinstance(document.output, Yolov5Heads)
    flat = [[side for anchor in scale for side in anchor] for scale in document.output.anchors]
    assert flat == [pytest.approx(scale) for scale in ANCHORS]
    assert document.receipt is not None
    assert sum(picture.compared for picture in document.receipt.pictures) > 20


def test_a_checkpoint_that_names_too_few_classes_is_refused(custom: YoloCheckpoint) -> None:
    with pytest.raises(ExportError, match="names 1 of its 2 classes"):
        build_yolov5("yolov5n", replace(custom, names=("helmet",)), None, PROVENANCE, None)


def test_a_checkpoint_of_another_size_is_refused(custom: YoloCheckpoint) -> None:
    with pytest.raises(ExportError, match="as size n does; yolov5s is another"):
        build_yolov5("yolov5s", custom, None, PROVENANCE, None)


def test_a_checkpoint_with_other_scales_is_refused(custom: YoloCheckpoint) -> None:
    with pytest.raises(ExportError, match="at 3 scales; yolov5n6 is another"):
        build_yolov5("yolov5n6", custom, None, PROVENANCE, None)


def test_a_checkpoint_that_does_not_fit_its_description_is_refused(custom: YoloCheckpoint) -> None:
    deeper = custom.yaml | {"depth_multiple": 1}
    with pytest.raises(ExportError, match=r"doesn't fit yolov5n: .* such lines"):
        build_yolov5("yolov5n", replace(custom, yaml=deeper), None, PROVENANCE, None)


def test_a_checkpoint_of_another_kind_is_refused_by_name(custom: YoloCheckpoint) -> None:
    other = replace(custom, kind="ultralytics-detect")
    with pytest.raises(ExportError, match="ultralytics-detect, yolov5n needs yolov5"):
        build_yolov5("yolov5n", other, None, PROVENANCE, None)


def test_an_unknown_module_is_named(custom: YoloCheckpoint) -> None:
    description = describe("n", 2)
    description["backbone"] = [[-1, 1, "GhostConv", [64, 1, 1]]]
    with pytest.raises(ExportError, match="GhostConv"):
        build_yolov5("yolov5n", replace(custom, yaml=description), None, PROVENANCE, None)


def test_an_input_size_that_is_no_multiple_of_the_stride_is_refused(
    custom: YoloCheckpoint,
) -> None:
    with pytest.raises(ExportError, match="650 is no multiple of 32"):
        build_yolov5("yolov5n", custom, None, PROVENANCE, 650)


@pytest.mark.parametrize("size", ["n", "s"])
def test_a_classifier_of_ones_own_is_rebuilt_by_its_name(size: str) -> None:
    state = build_classifier(describe(size, 80), 2).state_dict()
    stored = YoloCheckpoint("yolov5-cls", state, ("cat", "dog"), None, 224)
    original = build_yolov5_classifier(f"yolov5{size}-cls", stored, None, PROVENANCE, None)
    loaded = original.graph.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    assert original.draft.label_set.labels == ("cat", "dog")


@pytest.mark.filterwarnings("ignore")  # ultralytics' own
def test_a_yolov5u_checkpoint_is_read_without_its_code_and_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    from export import yolov5u

    module = yolov5u.build_yolov5u("yolov5nu", None, None, PROVENANCE, None).graph
    module.names = {i: f"thing {i}" for i in range(80)}
    file = tmp_path / "yolov5nu.pt"
    torch.save({"model": module, "ema": None}, file)
    (exported,) = export(Request("yolov5nu", tmp_path, str(file)), Progress(disable=True))
    document = exported.document
    assert document.label_set.labels[7] == "thing 7"
    assert not document.provenance.random_weights
    assert document.receipt is not None
