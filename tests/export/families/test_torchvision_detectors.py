"""RetinaNet and Faster R-CNN: the server's steps against torchvision's, receipts, identity."""

import importlib.util
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torchvision
import yaml
from rich.progress import Progress
from torchvision.models.detection.image_list import ImageList

from visavis_export.checkpoints.checkpoint import read_state_dict
from visavis_export.checkpoints.identity import identify_state
from visavis_export.errors import ExportError, ReceiptFailed
from visavis_export.exporter import Request, export
from visavis_export.families import torchvision_detectors as detectors
from visavis_export.families.original import Found
from visavis_export.pictures.files import read_image
from visavis_export.pictures.synthetic import synthetic_pictures
from visavis_export.proof import receipt
from visavis_export.proof.served import ServedFile, found
from visavis_server.card import ModelDocument, Provenance
from visavis_server.runtime.providers import CPU, SessionConfig
from visavis_server.runtime.session import Session
from visavis_server.vision.families import detector_of, preprocess_one
from visavis_server.vision.families.torchvision_detector import Scaled
from visavis_server.vision.labels import SharedNames
from visavis_server.vision.results import Detected, DetectOptions

PROVENANCE = Provenance(weights_source="random", random_weights=True, exporter="the tests")
# The shorter side: one export of each family takes a minute.
SIZE = 96


@pytest.fixture(scope="module", autouse=True)
def threads() -> None:
    torch.set_num_threads(2)


def outline(name: str, **options: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of a torchvision model without memory."""
    with torch.device("meta"):
        module = torchvision.models.get_model(name, weights=None, weights_backbone=None, **options)
    state: dict[str, torch.Tensor] = module.state_dict()
    return state


@cache
def small(name: str) -> Any:
    """Return a detector of torchvision whose backbone is never run."""
    return torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=7
    ).eval()


def document(module: Any, shorter: int = 800, longer: int = 1333) -> ModelDocument:
    """Return the document that an export gives to a module."""
    return ModelDocument.model_validate(
        {
            "name": "detector",
            "task": "object detection",
            "precision": "fp32",
            "label_set": {"name": "seven", "labels": [f"c{i}" for i in range(7)]},
            "input": {
                "tensor": "image",
                "width": longer,
                "height": longer,
                "resize": {"rule": "shorter_side_within", "size": shorter, "longest": longer},
                "mean": (0.485, 0.456, 0.406),
                "std": (0.229, 0.224, 0.225),
            },
            "output": detectors._output(module).model_dump(),
            "detection_defaults": {
                "score_threshold": 0.05,
                "iou_threshold": 0.5,
                "max_detections": 100,
            },
            "facts": {"architecture": "a detector"},
            "provenance": PROVENANCE.model_dump(),
        }
    )


def require_same(ours: Detected, theirs: dict[str, torch.Tensor]) -> None:
    here = found(ours)
    assert len(here.scores) == len(theirs["scores"]) > 0
    np.testing.assert_allclose(here.scores, theirs["scores"].numpy(), atol=1e-6)
    np.testing.assert_array_equal(here.class_ids, theirs["labels"].numpy())
    np.testing.assert_allclose(here.boxes, theirs["boxes"].numpy(), atol=2e-3)


@pytest.mark.parametrize("name", synthetic_pictures())
def test_pictures_are_prepared_as_torchvision_prepares_them(name: str) -> None:
    module = small("retinanet_resnet50_fpn")
    image = read_image(name, synthetic_pictures()[name])
    if name == "synthetic line":
        with pytest.raises(RuntimeError, match="should be greater than 0"):
            module.transform([torch.zeros(3, *image.shape[:2])])
        return
    tensor, _ = preprocess_one(detector_of(document(module)), image)
    as_float = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255
    expected, _ = module.transform([as_float])
    height, width = expected.image_sizes[0]
    assert tensor.shape == (1, 3, height, width)
    own = expected.tensors[:, :, :height, :width]
    # Where a coordinate is rounded differently, a pixel differs by the fifth digit.
    np.testing.assert_allclose(tensor, own.numpy(), atol=3e-4)
    assert np.abs(tensor - own.numpy()).mean() < 1e-5


SIZES = [(800, 1066), (1066, 800), (357, 1333), (800, 800), (96, 160)]
OPTIONS = [
    DetectOptions(),
    DetectOptions(score_threshold=0.3, iou_threshold=0.3, max_detections=7),
    DetectOptions(score_threshold=0.001),  # thousands of candidates: a level gives 1,000
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", OPTIONS)
def test_retinanets_maps_are_decoded_as_torchvision_decodes_them(
    size: tuple[int, int], options: DetectOptions
) -> None:
    module = small("retinanet_resnet50_fpn")
    height, width = (-(-side // 32) * 32 for side in size)
    grids = [(height // 8, width // 8), (height // 16, width // 16), (height // 32, width // 32)]
    for _ in "67":
        grids.append(tuple(-(-side // 2) for side in grids[-1]))  # type: ignore[arg-type]
    torch.manual_seed(sum(size))
    logits = [torch.randn(1, 9 * 7, *grid) * 1.5 - 5 for grid in grids]
    deltas = [torch.randn(1, 9 * 4, *grid) * 0.7 for grid in grids]
    outputs = [part.numpy() for part in (*logits, *deltas)]
    original = (height * 3 // 2, width // 2)

    def by_anchor(part: torch.Tensor, numbers: int) -> torch.Tensor:
        n, _, h, w = part.shape
        return part.view(n, 9, numbers, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, numbers)

    images = ImageList(torch.empty(1, 3, height, width), [size])
    (anchors,) = module.anchor_generator(images, [torch.empty(1, 1, *grid) for grid in grids])
    each = [9 * h * w for h, w in grids]
    module.score_thresh = 0.05 if options.score_threshold is None else options.score_threshold
    module.nms_thresh = 0.5 if options.iou_threshold is None else options.iou_threshold
    module.detections_per_img = options.max_detections or 100
    split = {
        "cls_logits": [by_anchor(part, 7) for part in logits],
        "bbox_regression": [by_anchor(part, 4) for part in deltas],
    }
    theirs = module.postprocess_detections(split, [list(anchors.split(each))], [size])
    theirs = module.transform.postprocess(theirs, [size], [original])
    family = detector_of(document(module))
    sizes = Scaled(original[1], original[0], size[1], size[0])
    require_same(family.postprocess(outputs, sizes, options), theirs[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("options", OPTIONS)
def test_faster_rcnns_rows_are_decoded_as_torchvision_decodes_them(options: DetectOptions) -> None:
    module = small("fasterrcnn_resnet50_fpn")
    torch.manual_seed(4)
    corners = torch.rand(300, 2) * torch.tensor([900.0, 700.0])
    proposals = torch.cat((corners, corners + torch.rand(300, 2) * 300 + 1), 1)
    logits, deltas = torch.randn(300, 7) * 2, torch.randn(300, 28) * 2
    size, original = (800, 1066), (480, 640)
    heads = module.roi_heads
    heads.score_thresh = 0.05 if options.score_threshold is None else options.score_threshold
    heads.nms_thresh = 0.5 if options.iou_threshold is None else options.iou_threshold
    heads.detections_per_img = options.max_detections or 100
    boxes, scores, labels = heads.postprocess_detections(logits, deltas, [proposals], [size])
    theirs = [{"boxes": boxes[0], "scores": scores[0], "labels": labels[0]}]
    theirs = module.transform.postprocess(theirs, [size], [original])
    outputs = [part[None].numpy() for part in (proposals, logits, deltas)]
    sizes = Scaled(original[1], original[0], size[1], size[0])
    answer = detector_of(document(module)).postprocess(outputs, sizes, options)
    require_same(answer, theirs[0])  # type: ignore[arg-type]


@dataclass(frozen=True)
class Made:
    """An exported file, and the reference that its receipt was made with."""

    path: Path
    document: ModelDocument
    reference: Any


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    out = tmp_path_factory.mktemp("models")
    made, build, originals = {}, detectors.build, []

    def recorded(*arguments: Any) -> Any:
        originals.append(build(*arguments))
        return originals[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detectors, "build", recorded)
        for name in NAMES:
            (one,) = export(Request(name, out, "random", size=SIZE), Progress(disable=True))
            made[name] = Made(one.path, one.document, originals[-1].reference)
    return made


NAMES = ("retinanet_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2")


@pytest.mark.parametrize("name", NAMES)
def test_random_weights_pass_their_receipt_on_every_picture_that_torchvision_answers(
    name: str, exported: dict[str, Made]
) -> None:
    made = exported[name].document.receipt
    assert made is not None
    assert {one.name for one in made.pictures} == synthetic_pictures().keys() - {"synthetic line"}
    assert made.max_score_difference < 1e-3
    assert made.max_box_difference_px is not None
    assert made.max_box_difference_px < 0.1
    assert all(one.compared >= 10 for one in made.pictures)
    assert made.rows is not None
    assert made.rows.count > 5000


@pytest.mark.parametrize("name", NAMES)
def test_only_the_pictures_size_is_dynamic(name: str, exported: dict[str, Made]) -> None:
    model = onnx.load(exported[name].path)
    onnx.checker.check_model(model, full_check=True)
    assert all(opset.version <= 18 for opset in model.opset_import)
    (image,) = model.graph.input
    batch, channels, height, width = image.type.tensor_type.shape.dim
    assert (batch.dim_value, channels.dim_value) == (1, 3)
    assert height.dim_param
    assert width.dim_param


def changed(document: ModelDocument, change: str) -> ModelDocument:
    """Return a document that describes another pre- or post-processing than torchvision's."""
    dumped = document.model_dump()
    given, output = dumped["input"], dumped["output"]
    match change:
        case "other mean":
            given["mean"] = (0.5, 0.5, 0.5)
        case "other deviation":
            given["std"] = (0.25, 0.25, 0.25)
        case "other resize":
            given["resize"]["size"] -= 1
        case "anchors in another order":
            output["anchors"] = tuple(cell[::-1] for cell in output["anchors"])
        case "anchors of another level":
            output["anchors"] = output["anchors"][::-1]
    return ModelDocument.model_validate(dumped)


CHANGES = [
    ("retinanet_resnet50_fpn", "other mean"),
    ("retinanet_resnet50_fpn", "other deviation"),
    ("retinanet_resnet50_fpn", "other resize"),
    ("retinanet_resnet50_fpn", "anchors in another order"),
    ("retinanet_resnet50_fpn", "anchors of another level"),
    ("fasterrcnn_resnet50_fpn_v2", "other mean"),
    ("fasterrcnn_resnet50_fpn_v2", "other deviation"),
    ("fasterrcnn_resnet50_fpn_v2", "other resize"),
]


@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_a_receipt_fails_for_any_step_that_is_not_torchvisions(
    name: str,
    change: str,
    exported: dict[str, Made],
    tmp_path: Path,
) -> None:
    one = exported[name]
    pictures = {key: synthetic_pictures()[key] for key in ("synthetic odd", "synthetic grey")}
    session = Session(one.path, CPU, SessionConfig(tmp_path, threads=2, varying=True))
    # Unchanged, all pictures have passed while the file was exported.
    wrong = ServedFile(changed(one.document, change), session)
    with pytest.raises(ReceiptFailed):
        receipt.prove(one.reference, wrong, pictures)


def test_proposals_that_near_ties_do_not_explain_fail_the_receipt(
    exported: dict[str, Made],
) -> None:
    seen = exported["fasterrcnn_resnet50_fpn_v2"].reference.look(
        synthetic_pictures()["synthetic odd"]
    )
    own = seen.proposals.numpy()
    assert seen.other_proposals(own) == 0
    assert seen.other_proposals(own[::-1]) == 0  # their order does not matter
    moved = own.copy()
    moved[:7] += 3
    assert seen.other_proposals(moved) >= 7
    with pytest.raises(ReceiptFailed, match="proposals are not among PyTorch's, or missing"):
        receipt._following(seen, own[: len(own) * 9 // 10], "a picture")


def test_the_reference_is_torchvisions_whole_model(
    exported: dict[str, Made],
) -> None:
    """What the reference gives at other thresholds is what a model built with them gives."""
    name = "retinanet_resnet50_fpn"
    encoded = synthetic_pictures()["synthetic odd"]
    one = exported[name]
    built = torchvision.models.get_model(
        name,
        weights=None,
        weights_backbone=None,
        min_size=SIZE,
        max_size=round(SIZE * 1333 / 800),
        score_thresh=0.08,
        nms_thresh=0.3,
        detections_per_img=13,
    )
    state = one.reference._module.state_dict()
    built.load_state_dict({key.replace(".module.", "."): state[key] for key in state})
    image = torchvision.transforms.functional.to_tensor(read_image("odd", encoded))
    with torch.inference_mode():
        (expected,) = built.eval()([image])
    answer: Found = one.reference.look(encoded).detect(0.08, 0.3, 13)
    np.testing.assert_allclose(answer.boxes, expected["boxes"].numpy(), atol=1e-4)
    np.testing.assert_array_equal(answer.class_ids, expected["labels"].numpy())


@pytest.mark.parametrize("name", detectors.NAMES)
def test_a_state_dict_is_recognised(name: str) -> None:
    state = outline(name, num_classes=5)
    assert identify_state(state).names == (name,)
    assert detectors._classes(name, state) == 5
    others = [other for other in detectors.NAMES if other != name]
    for other in others:
        with pytest.raises(ExportError, match=rf"not {other}; export it as {name}"):
            detectors._classes(other, state)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("maskrcnn_resnet50_fpn", "a Mask R-CNN of torchvision"),
        ("keypointrcnn_resnet50_fpn", "a Keypoint R-CNN of torchvision"),
        ("fcos_resnet50_fpn", "an FCOS of torchvision"),
        ("fasterrcnn_mobilenet_v3_large_fpn", "a Faster R-CNN of torchvision with another"),
    ],
)
def test_torchvisions_other_detectors_are_refused_by_their_name(name: str, title: str) -> None:
    identity = identify_state(outline(name))
    assert identity.title.startswith(title)
    assert identity.names == ()
    assert "RetinaNet and Faster R-CNN with resnet50_fpn only" in identity.advice


def test_a_resnet_is_no_detector_and_a_detector_no_resnet() -> None:
    assert identify_state(torchvision.models.resnet18().state_dict()).names == ("resnet18",)
    with pytest.raises(ExportError, match="a ResNet-18, not retinanet_resnet50_fpn"):
        detectors._classes("retinanet_resnet50_fpn", torchvision.models.resnet18().state_dict())


def test_a_whole_pickled_detector_is_refused_with_what_to_save(tmp_path: Path) -> None:
    torch.save(small("retinanet_resnet50_fpn"), tmp_path / "whole.pth")
    with pytest.raises(ExportError, match=r"a RetinaNet of torchvision, pickled whole; save its"):
        read_state_dict(tmp_path / "whole.pth")


def test_class_names_may_leave_out_the_background() -> None:
    assert detectors._labels(91, None) == detectors.coco_labels()
    named = ("__background__", "a", "b")
    assert detectors._labels(3, ("a", "b")) == named
    assert detectors._labels(3, named) == named
    assert detectors._labels(2, ("a", "b")) == ("a", "b")
    with pytest.raises(ExportError, match="the weights have 3 classes, not COCO's 91; name them"):
        detectors._labels(3, None)
    with pytest.raises(ExportError, match="3 classes, but --class-names names 4"):
        detectors._labels(3, ("a", "b", "c", "d"))


def test_published_weights_of_the_first_generation_have_their_own_eps(tmp_path: Path) -> None:
    from visavis_export.checkpoints.weights import Weights

    own = Weights(tmp_path, "own.pth", "0" * 64)
    for name in detectors.NAMES:
        prefix = detectors.release(name).sha256_prefix
        assert prefix is not None
        published = Weights(tmp_path, "file.pth", prefix + "0" * 56)
        assert detectors._eps(name, published) == (1e-5 if name.endswith("_v2") else 0.0)
        assert detectors._eps(name, own) == detectors._eps(name, None) == 1e-5


def test_frozen_statistics_and_old_names_are_read_as_torchvision_reads_them() -> None:
    """The published files of the first generation have neither counters nor today's names."""
    name = "retinanet_resnet50_fpn"
    plan = detectors._Plan(name, 5, 64, 128, 0.0)
    torch.manual_seed(1)
    state = {k: v for k, v in small_state(name).items() if "num_batches" not in k}
    old = {
        key.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
        if "fpn.inner_blocks" in key or "fpn.layer_blocks" in key
        else key: value
        for key, value in state.items()
    }
    image = torch.rand(1, 3, 64, 64)
    exported = detectors._exported(plan, old)
    original = detectors._torchvisions(plan, old)
    assert any(
        isinstance(m, torchvision.ops.FrozenBatchNorm2d) and m.eps == 0 for m in original.modules()
    )
    with torch.inference_mode():
        ours, theirs = exported.backbone(image), original.backbone(image)  # type: ignore[operator]
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-4, atol=1e-4)


def small_state(name: str) -> dict[str, torch.Tensor]:
    module = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=5)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.running_var, 0.5, 2.0)
    state: dict[str, torch.Tensor] = module.state_dict()
    return state


@pytest.mark.parametrize("precision", ["int8", "fp32,fp16"])
def test_other_precisions_are_refused(precision: str, tmp_path: Path) -> None:
    request = Request(
        "retinanet_resnet50_fpn", tmp_path, "random", precisions=tuple(precision.split(","))
    )
    with pytest.raises(ExportError, match="is exported as fp32 only"):
        export(request, Progress(disable=True))
    with pytest.raises(ExportError, match="--size is 2000; it must be 32 to 1600 pixels"):
        export(replace(request, precisions=("fp32",), size=2000), Progress(disable=True))


def test_cocos_80_names_are_the_91_without_those_that_are_unused() -> None:
    package = importlib.util.find_spec("ultralytics")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "cfg" / "datasets" / "coco.yaml"
    coco_80 = tuple(yaml.safe_load(file.read_text())["names"].values())
    coco_91 = detectors.coco_labels()
    shared = SharedNames(coco_91, coco_80)
    assert {shared.key(name) for name in coco_80} == {name.replace(" ", "") for name in coco_80}
    unknown = [name for name in coco_91 if shared.key(name) is None]
    assert sorted(set(unknown)) == ["N/A", "__background__"]
    assert len(coco_91) - len(unknown) == 80
