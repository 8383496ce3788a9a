"""Unusual checkpoints: rebuilt and evaluated exactly as the original computes them, or refused."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from visavis_export.checkpoints.checkpoint import YoloCheckpoint, read_yolo_checkpoint
from visavis_export.errors import CheckpointError, ExportError, ReceiptFailed
from visavis_export.families import resnet, yolov5
from visavis_export.families.evaluation import evaluate
from visavis_export.families.original import Original
from visavis_export.families.yolov5 import build_yolov5, build_yolov5_classifier
from visavis_export.families.yolov5_modules import Classify, Concat, Conv, Network
from visavis_export.graphs.graph import write_graph
from visavis_export.pictures.files import read_image
from visavis_export.pictures.synthetic import synthetic_pictures
from visavis_export.proof import receipt
from visavis_export.proof.served import ServedFile, found, open_file
from visavis_server.card import Provenance
from visavis_server.runtime.providers import SessionConfig
from visavis_server.vision.results import Classified, ClassifyOptions, DetectOptions, Options

from .. import originals

PROVENANCE = Provenance(weights_source="test", exporter="test")


def detector(
    act: nn.Module | None = None,
    eps: float | None = None,
    change: Callable[[dict[str, Any]], object] = lambda yaml: None,
) -> originals.DetectionModel:
    yaml = originals.small_yaml()
    change(yaml)
    model = originals.DetectionModel(yaml, act)
    originals.lively(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and eps is not None:
            module.eps = eps
    return model


def fused(model: originals.DetectionModel) -> originals.DetectionModel:
    originals.fuse(model)
    return model


def upsample(yaml: dict[str, Any], *arguments: Any) -> None:
    yaml["head"][0] = [-1, 1, "nn.Upsample", [None, 2, *arguments]]


def pooling(yaml: dict[str, Any], size: int) -> None:
    yaml["backbone"][6] = [-1, 1, "SPPF", [96, size]]


def anchors(yaml: dict[str, Any]) -> None:
    yaml["anchors"] = [[side * 1.5 for side in scale[::-1]] for scale in yaml["anchors"]]


def without_shortcut(yaml: dict[str, Any]) -> None:
    yaml["backbone"][2] = [-1, 3, "C3", [64, False]]


def small_of_5_0(block: str, width: float = 0.125) -> dict[str, Any]:
    return originals.yaml_of_5_0((0.33, width), block)


def replaced(yaml: dict[str, Any]) -> Callable[[dict[str, Any]], object]:
    return lambda old: old.update(yaml)


def scales(sources: list[int], more: list[list[Any]]) -> Callable[[dict[str, Any]], object]:
    """Detect at other layers, after more of them in the backbone: P2, P34, P6, P7."""

    def change(yaml: dict[str, Any]) -> None:
        yaml["backbone"] += more
        yaml["head"] = [[sources, 1, "Detect", ["nc", "anchors"]]]
        yaml["anchors"] = [[8.0 * 2**i, 9.0 * 2**i, 20.0 * 2**i, 14.0] for i in range(len(sources))]

    return change


def joined_thrice(yaml: dict[str, Any]) -> None:
    """Join three maps, as yolov5-bifpn.yaml does."""
    yaml["backbone"][4] = [-1, 1, "Conv", [64, 3, 2]]
    yaml["head"][1] = [[-1, 4, 4], 1, "Concat", [1]]


def repeated(yaml: dict[str, Any]) -> None:
    """Repeat layers that don't repeat themselves: YOLOv5 puts them in a row."""
    yaml["backbone"][3:3] = [[-1, 6, "Conv", [64, 3]], [-1, 6, "Bottleneck", [64]]]
    yaml["head"] = [[[3, 6, 8], 1, "Detect", ["nc", "anchors"]]]


DOWN = [[-1, 1, "Conv", [48, 3, 2]], [-1, 1, "Conv", [48, 3, 2]]]
ODD: dict[str, Callable[[], originals.DetectionModel]] = {
    "as published": detector,
    "ReLU": lambda: detector(nn.ReLU()),
    "LeakyReLU": lambda: detector(nn.LeakyReLU(0.2)),
    "Hardswish": lambda: detector(nn.Hardswish()),
    "eps 1e-1": lambda: detector(eps=1e-1),
    "eps 1e-4": lambda: detector(eps=1e-4),
    "bilinear": lambda: detector(change=lambda yaml: upsample(yaml, "bilinear", False)),
    "pooling of 3": lambda: detector(change=lambda yaml: pooling(yaml, 3)),
    "pooling of 9": lambda: detector(change=lambda yaml: pooling(yaml, 9)),
    "other anchors": lambda: detector(change=anchors),
    "no shortcut": lambda: detector(change=without_shortcut),
    "v5.0": lambda: detector(change=replaced(small_of_5_0("C3"))),
    "v3.1": lambda: detector(nn.Hardswish(), change=replaced(small_of_5_0("BottleneckCSP"))),
    "v2.0": lambda: detector(nn.LeakyReLU(0.1), change=replaced(small_of_5_0("BottleneckCSP"))),
    "width 0.3": lambda: detector(change=replaced({"width_multiple": 0.3})),
    "depth 2": lambda: detector(change=replaced({"depth_multiple": 2.0})),
    "P2": lambda: detector(change=scales([2, 3, 4, 5], [])),
    "P34": lambda: detector(change=scales([3, 4], [])),
    "P6": lambda: detector(change=scales([3, 4, 5, 7], DOWN[:1])),
    "P7": lambda: detector(change=scales([3, 4, 5, 7, 8], DOWN)),
    "bifpn": lambda: detector(change=joined_thrice),
    "repeated layers": lambda: detector(change=repeated),
    "trained on several GPUs": lambda: nn.SyncBatchNorm.convert_sync_batchnorm(detector()),
    "fused": lambda: fused(detector()),
    "fused v5.0": lambda: fused(detector(change=replaced(small_of_5_0("C3")))),
}


def read(model: nn.Module, folder: Path, **entries: object) -> tuple[YoloCheckpoint, nn.Module]:
    """Return a checkpoint as it is read, and its original with the numbers that it holds."""
    path = originals.save(model, folder / "best.pt", **entries)
    return read_yolo_checkpoint(path), model.half().float().eval()


@torch.inference_mode()
def rebuilt_rows(original: Original, images: Tensor) -> Tensor:
    """Return what the rebuilt network gives, through the split head that is exported."""
    graph = original.graph
    assert isinstance(graph, Network)
    outputs = graph(images)
    layout = original.draft.output
    rows = []
    for scale, (sides, stride) in enumerate(zip(layout.anchors, layout.strides, strict=True)):  # type: ignore[union-attr]
        count = len(layout.strides)  # type: ignore[union-attr]
        maps, weights = outputs[scale + count], outputs[scale + 2 * count]
        raw = maps @ weights[:, None, :, :-1].mT + weights[:, None, None, :, -1]
        height, width = raw.shape[1:3]
        y = raw.unflatten(3, (len(sides), -1)).sigmoid().permute(0, 3, 1, 2, 4)
        line, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        center = (y[..., :2] * 2 - 0.5 + torch.stack((column, line), 2)) * stride
        size = (y[..., 2:4] * 2) ** 2 * torch.tensor(sides)[:, None, None]
        rows.append(torch.cat((center, size, y[..., 4:]), 4).flatten(1, 3))
    return torch.cat(rows, 1)


@pytest.mark.parametrize("odd", ODD)
def test_a_detector_is_rebuilt_and_evaluated_as_its_modules_describe(
    odd: str, tmp_path: Path
) -> None:
    checkpoint, theirs = read(ODD[odd](), tmp_path)
    original = build_yolov5("yolov5", checkpoint, None, PROVENANCE, 128)
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        expected = theirs(images)
    assert expected[..., 4].std() > 0.05
    for rows in (evaluate(checkpoint.model, images), rebuilt_rows(original, images)):
        assert (rows[..., :4] - expected[..., :4]).abs().max() < 0.05
        assert (rows[..., 4:] - expected[..., 4:]).abs().max() < 1e-4


def test_a_classifier_keeps_the_eps_of_its_head(tmp_path: Path) -> None:
    model = originals.ClassificationModel(detector(), 4, cutoff=7)
    originals.lively(model)
    with torch.no_grad():
        model.model[-1].conv.bn.running_var.mul_(1e-4)  # type: ignore[union-attr]
    checkpoint, theirs = read(model, tmp_path, opt={"imgsz": 640, "hyp": {}})
    original = build_yolov5_classifier("yolov5-cls", checkpoint, None, PROVENANCE, None)
    assert original.draft.input.width == 224  # `hyp` belongs to a detector's training
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        expected = theirs(images)
        for logits in (evaluate(checkpoint.model, images), original.graph(images)[0]):
            assert (logits - expected).abs().max() < 1e-3 * expected.abs().max()


@pytest.mark.parametrize(
    ("entries", "side"),
    [({}, 640), ({"opt": {"imgsz": 320}}, 320), ({"opt": {"imgsz": 330}}, 352)],
)
def test_a_detector_is_exported_at_the_size_of_its_training(
    entries: dict[str, object], side: int, tmp_path: Path
) -> None:
    checkpoint, _ = read(detector(), tmp_path, **entries)
    original = build_yolov5("yolov5", checkpoint, None, PROVENANCE, None)
    assert (original.draft.input.width, original.draft.input.height) == (side, side)


def spoil(path: str, name: str, value: object) -> Callable[[nn.Module], None]:
    return lambda model: vars(model.get_submodule(path)).update({name: value})


def without_yaml(change: Callable[[nn.Module], object]) -> Callable[[nn.Module], object]:
    def both(model: nn.Module) -> None:
        change(model)
        del model.yaml

    return both


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: setattr(m.model[0], "act", nn.GELU()), r"activation .*GELU is unknown"),
        (lambda m: setattr(m.model[0], "bn", nn.GroupNorm(1, 16)), r"GroupNorm is unknown"),
        (spoil("model.0.conv", "padding_mode", "reflect"), "padding_mode = 'reflect'"),
        (spoil("model.0.conv", "stride", (3, 2, 1)), r"stride = \(3, 2, 1\)"),
        (spoil("model.0.bn", "eps", "1e-3"), "eps = '1e-3'"),
        (spoil("model.0.bn", "track_running_stats", False), "track_running_stats = False"),
        (spoil("model.0.act", "beta", 1.5), "beta = 1.5"),
        (spoil("model.6.m", "ceil_mode", True), "ceil_mode = True"),
        (spoil("model.6", "n", 5), "n = 5"),
        (spoil("model.7", "mode", "bicubic"), "mode = 'bicubic'"),
        (spoil("model.8", "d", 2), "d = 2"),
        (spoil("model.9.m.0", "add", 1), "add = 1"),
        (spoil("model.10", "na", 2), "2 anchors doesn't fit"),
        (spoil("model.10.m.0", "kernel_size", (3, 3)), "convolutions are not 1 × 1 with a bias"),
        (spoil("model.10.m.0", "groups", 8), "convolutions are not 1 × 1 with a bias"),
        (
            lambda m: m.model[10].m[0].register_parameter("bias", None),
            "convolutions are not 1 × 1 with a bias",
        ),
        (spoil("model.10", "stride", torch.tensor([8.0, 16, 64])), r"the strides \[8.0, 16.0, 64"),
        (without_yaml(spoil("model.3", "f", 7)), "layer 3 has invalid sources"),
        (without_yaml(spoil("model.3", "f", [1, 2])), "layer 3 has 2 sources"),
        (without_yaml(spoil("model.7", "scale_factor", 4.0)), "don't fit together"),
        (spoil("model.3", "f", 0), "yaml has 11 layers and its model 11, and they differ at"),
        (lambda m: m.yaml.update(loss="focal"), "the yaml's key is 'loss'"),
        (lambda m: m.model[3].register_forward_hook(m.model[0]), "has _forward_hooks"),
    ],
)
def test_an_unknown_module_or_attribute_is_refused_by_name(
    change: Callable[[nn.Module], object], complaint: str, tmp_path: Path
) -> None:
    model = originals.DetectionModel(originals.small_yaml())
    for module in model.modules():  # one activation was shared by all of them
        if isinstance(module, originals.Conv):
            module.act = nn.SiLU()
    change(model)
    checkpoint = read_yolo_checkpoint(originals.save(model, tmp_path / "best.pt"))
    with pytest.raises(ExportError, match=complaint) as refused:
        build_yolov5("yolov5", checkpoint, None, PROVENANCE, 128)
    assert isinstance(refused.value, CheckpointError)


def served(original: Original, folder: Path) -> ServedFile:
    graph = folder / "graph.onnx"
    write_graph(original.graph, original.draft, graph)
    return open_file(original.draft, graph, SessionConfig(folder, threads=2))


@pytest.fixture(scope="module")
def proofs() -> dict[str, bytes]:
    return {name: synthetic_pictures()[f"synthetic {name}"] for name in ("wide", "odd")}


def break_activation(network: Network) -> None:
    for conv in network.modules():
        if isinstance(conv, Conv):
            conv.act = nn.ReLU()


def break_eps(network: Network) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-2


def break_anchors(network: Network) -> None:
    network.head.anchors = network.head.anchors.flip(1)  # type: ignore[operator]


def break_upsampling(network: Network) -> None:
    network.model[7] = nn.Upsample(None, 2, "bilinear")


def break_layer(network: Network) -> None:
    network.model[3], network.model[4] = network.model[4], network.model[3]


def break_order(network: Network) -> None:
    class Reversed(Concat):
        def forward(self, maps: list[Tensor]) -> Tensor:
            return torch.cat(maps[::-1], 1)

    network.model[8] = Reversed()


BREAKS = (
    None,
    *(break_activation, break_eps, break_anchors, break_upsampling, break_layer, break_order),
)


@pytest.mark.parametrize("broken", BREAKS)
def test_a_receipt_fails_for_any_difference_in_the_rebuilt_network(
    broken: Callable[[Network], None] | None,
    proofs: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(module: nn.Module, state: dict[str, Tensor], name: str) -> None:
        loaded(module, state, name)
        if broken:
            assert isinstance(module, Network)
            broken(module)

    loaded = yolov5.load_state
    monkeypatch.setattr(yolov5, "load_state", load)
    checkpoint, _ = read(detector(), tmp_path)
    original = build_yolov5("yolov5", checkpoint, None, PROVENANCE, 128)
    file = served(original, tmp_path)
    if broken is None:
        made = receipt.prove(original.reference, file, proofs)
        assert made.rows is not None
        assert made.rows.max_score_difference < 1e-4
        return
    with pytest.raises(ReceiptFailed, match="differs from PyTorch's"):
        receipt.prove(original.reference, file, proofs)


def break_pooling(network: Network) -> None:
    class Strongest(Classify):
        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.conv(x).amax((2, 3)))

    network.head.__class__ = Strongest


CLASSIFIER_BREAKS = (None, break_eps, break_activation, break_layer, break_pooling)


@pytest.mark.parametrize("broken", CLASSIFIER_BREAKS)
def test_a_classifiers_receipt_fails_for_any_difference_in_the_rebuilt_network(
    broken: Callable[[Network], None] | None, proofs: dict[str, bytes], tmp_path: Path
) -> None:
    model = originals.ClassificationModel(detector(), 4, cutoff=7)
    originals.lively(model)
    checkpoint, _ = read(model, tmp_path)
    original = build_yolov5_classifier("yolov5-cls", checkpoint, None, PROVENANCE, 64)
    assert isinstance(original.graph, Network)
    if broken is None:
        receipt.prove(original.reference, served(original, tmp_path), proofs)
        return
    broken(original.graph)
    with pytest.raises(ReceiptFailed, match="scores differ by"):
        receipt.prove(original.reference, served(original, tmp_path), proofs)


def leak(module: torchvision.models.ResNet) -> None:
    module.relu = nn.LeakyReLU(0.1)


def swap(module: torchvision.models.ResNet) -> None:
    module.layer1 = nn.Sequential(module.layer1[1], module.layer1[0])


@pytest.mark.parametrize("broken", [None, leak, swap, break_eps])
def test_a_resnets_receipt_fails_for_any_difference_from_torchvision(
    broken: Callable[[Any], None] | None, proofs: dict[str, bytes], tmp_path: Path
) -> None:
    module = torchvision.models.resnet18(num_classes=4)
    originals.lively(module)
    labels = ("a", "b", "c", "d")
    original = resnet.build("resnet18", module.state_dict(), None, PROVENANCE, "V1", labels)
    if broken is None:
        receipt.prove(original.reference, served(original, tmp_path), proofs)
        return
    broken(original.graph.module)
    with pytest.raises(ReceiptFailed, match="scores differ by"):
        receipt.prove(original.reference, served(original, tmp_path), proofs)


def test_an_original_that_answers_nan_is_no_baseline(
    proofs: dict[str, bytes], tmp_path: Path
) -> None:
    module = torchvision.models.resnet18(num_classes=4)
    state = module.state_dict()
    for name in ("layer1.0.conv1.weight", "layer1.0.bn1.weight", "layer1.1.bn1.weight"):
        state[name] = torch.full_like(state[name], 1e38)
    labels = ("a", "b", "c", "d")
    original = resnet.build("resnet18", state, None, PROVENANCE, "V1", labels)
    with pytest.raises(ReceiptFailed, match="PyTorch itself gives NaN or infinity on"):
        receipt.prove(original.reference, served(original, tmp_path), proofs)


@pytest.fixture(scope="module")
def cases(weights: Path) -> Path:
    """Return the folder of checkpoints that the original project's code made and answered."""
    folder = weights.parent / "cases" / "checkpoints"
    assert folder.is_dir(), f"{folder} is missing: it lies beside the weights"
    return folder


def pictures_of(answers: dict[str, Any], images: Path) -> Iterator[tuple[Any, bytes]]:
    for name, answer in answers.items():
        (path,) = images.rglob(name)
        yield answer, path.read_bytes()


@pytest.mark.parametrize("name", ["leaky-relu", "batchnorm-eps"])
def test_a_detector_gives_what_the_original_project_answered(
    name: str, cases: Path, images: Path, tmp_path: Path
) -> None:
    checkpoint = read_yolo_checkpoint(cases / f"{name}.pt")
    original = build_yolov5("yolov5", checkpoint, None, PROVENANCE, None)
    file = served(original, tmp_path)
    answers = json.loads((cases / f"{name}.json").read_text())["res"]
    total, matched = 0, 0
    for answer, encoded in pictures_of(answers, images):
        image = read_image(name, encoded)
        for threshold, rows in answer.items():
            options = Options(detect=DetectOptions(score_threshold=float(threshold)))
            ours = found(file.answer(image, options))  # type: ignore[arg-type]
            assert abs(len(ours.scores) - len(rows)) <= 2
            labels = [checkpoint.names[one] for one in ours.class_ids]
            for *box, score, label in rows:
                near = np.abs(ours.boxes - np.array(box)).max(1) < 1
                near &= np.abs(ours.scores - score) < 1e-3
                total += 1
                matched += any(labels[i] == label for i in np.flatnonzero(near))
    # Near-ties flip a few of the many boxes of random weights.
    assert matched >= 0.99 * total
    assert total > 500


def test_a_classifier_gives_what_the_original_project_answered(
    cases: Path, images: Path, tmp_path: Path
) -> None:
    checkpoint = read_yolo_checkpoint(cases / "classifier.pt")
    original = build_yolov5_classifier("yolov5-cls", checkpoint, None, PROVENANCE, None)
    file = served(original, tmp_path)
    answers = json.loads((cases / "classifier.json").read_text())["res"]
    for answer, encoded in pictures_of(answers, images):
        ours = file.answer(read_image("case", encoded), Options(ClassifyOptions(top_k=5)))
        assert isinstance(ours, Classified)
        for (class_id, score, label), given in zip(answer, ours.classifications, strict=True):
            assert (given.class_id, given.label) == (class_id, label)
            assert given.score == pytest.approx(score, abs=1e-3)


def test_names_beyond_the_heads_classes_are_refused(tmp_path: Path) -> None:
    checkpoint, _ = read(detector(), tmp_path)
    with pytest.raises(ExportError, match="3 classes, but 1 class names"):
        build_yolov5("yolov5", replace(checkpoint, names=("c",)), None, PROVENANCE, None)
