"""torchvision's detectors with a ResNet-50 and a feature pyramid: RetinaNet and Faster R-CNN."""

from dataclasses import dataclass
from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

from visavis_export.checkpoints.identity import identify_state
from visavis_export.checkpoints.pickled import shown
from visavis_export.checkpoints.weights import Release, Weights
from visavis_export.errors import ExportError
from visavis_export.families.original import (
    DetectorReference,
    Original,
    first_mismatch,
    parameter_count,
    weights_license,
)
from visavis_export.families.torchvision_graphs import (
    FasterRcnnGraph,
    RetinanetGraph,
    randomize,
)
from visavis_export.families.torchvision_reference import FasterRcnnReference, RetinanetReference
from visavis_server.card import (
    DetectionDefaults,
    Facts,
    FasterRcnnRows,
    LabelSet,
    ModelDocument,
    ModelInput,
    ModelOutput,
    Provenance,
    RetinanetHeads,
    ShorterSideWithin,
    Task,
)
from visavis_server.vision.labels import name_of_label_set

RETINANETS = ("retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2")
FASTER_RCNNS = ("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2")
NAMES = (*RETINANETS, *FASTER_RCNNS)
LARGEST_SIZE = 1600

_BACKGROUND = "__background__"
# torchvision's sides of the input in pixels; --size scales both.
_SHORTER, _LONGER = 800, 1333


def release(name: str) -> Release:
    """Return torchvision's release of the weights."""
    url: str = _published(name).url
    filename = url.rpartition("/")[2]
    # torchvision's file names end in the first digits of their SHA-256.
    return Release(filename, url, filename.removesuffix(".pth").rpartition("-")[2])


@dataclass(frozen=True, slots=True)
class _Plan:
    """Arguments of torchvision's builder: classes, sides of the input, BatchNorm's eps."""

    name: str
    classes: int
    shorter: int
    longer: int
    eps: float

    def sizes(self) -> dict[str, int]:
        return {"min_size": self.shorter, "max_size": self.longer}


def build(
    name: str,
    state: dict[str, Tensor] | None,
    weights: Weights | None,
    provenance: Provenance,
    labels: tuple[str, ...] | None,
    size: int | None,
) -> Original:
    """Return a detector with these weights; state None: random ones.

    name: one of NAMES. labels: by class id, with or without the background, which is class 0;
    None: COCO's. size: the shorter side of the input in pixels; None: torchvision's 800. Raises
    ExportError if weights and architecture don't fit, or the number of classes and the labels.
    """
    classes = 91 if labels is None else len(_with_background(labels))
    if state is not None:
        classes = _classes(name, state)
    labels = _labels(classes, labels)
    shorter = size or _SHORTER
    plan = _Plan(name, classes, shorter, round(shorter * _LONGER / _SHORTER), _eps(name, weights))
    module = _exported(plan, state)
    draft = ModelDocument(
        name=name,
        task=Task.OBJECT_DETECTION,
        precision="fp32",
        label_set=LabelSet(name=name_of_label_set(labels), labels=labels),
        input=ModelInput(
            tensor="image",
            width=plan.longer,
            height=plan.longer,
            resize=ShorterSideWithin(size=plan.shorter, longest=plan.longer),
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        output=_output(module),
        detection_defaults=DetectionDefaults(
            score_threshold=0.05, iou_threshold=0.5, max_detections=100
        ),
        facts=_facts(name, module, weights),
        provenance=provenance,
    )
    original = _torchvisions(plan, module.state_dict() if state is None else state)
    graph: nn.Module
    reference: DetectorReference
    if isinstance(module, RetinaNet):
        graph, reference = RetinanetGraph(module), RetinanetReference(original)
    else:
        graph, reference = FasterRcnnGraph(module), FasterRcnnReference(original)
    return Original(draft, graph.eval(), reference)


def _published(name: str) -> Any:
    return torchvision.models.get_model_weights(name)["COCO_V1"]


def coco_labels() -> tuple[str, ...]:
    """Return torchvision's names of COCO's 91 class ids, of which eleven are unused."""
    return tuple(_published(NAMES[0]).meta["categories"])


def _eps(name: str, weights: Weights | None) -> float:
    """Return BatchNorm's eps: torchvision uses 0 with its own first-generation weights only."""
    prefix = release(name).sha256_prefix or ""
    own = weights is not None and weights.sha256.startswith(prefix)
    return 0.0 if own and not name.endswith("_v2") else 1e-5


def _with_background(labels: tuple[str, ...]) -> tuple[str, ...]:
    return labels if labels[0] == _BACKGROUND else (_BACKGROUND, *labels)


def _labels(classes: int, labels: tuple[str, ...] | None) -> tuple[str, ...]:
    if labels is None and classes == len(coco_labels()):
        return coco_labels()
    if labels is None:
        raise ExportError(
            f"the weights have {classes} classes, not COCO's 91; name them with --class-names "
            "FILE, one per line; class 0 is the background and may be left out"
        )
    # A RetinaNet may have been trained without a background class.
    for named in (labels, _with_background(labels)):
        if len(named) == classes:
            return named
    raise ExportError(
        f"the weights have {classes} classes, but --class-names names {len(labels)}; name each "
        "class once, one per line; class 0 is the background and may be left out"
    )


def _exported(plan: _Plan, state: dict[str, Tensor] | None) -> nn.Module:
    """Return the module that is exported, with plain BatchNorm, which the exporter folds."""
    module: nn.Module = torchvision.models.get_model(
        plan.name, weights=None, weights_backbone=None, num_classes=plan.classes, **plan.sizes()
    )
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps = plan.eps
    if state is None:
        randomize(module, plan.shorter)
    else:
        _load(plan.name, module, state)
    return module.eval()


def _torchvisions(plan: _Plan, state: dict[str, Tensor]) -> nn.Module:
    """Return torchvision's module as it builds it itself: the reference for the receipt.

    It shares only the tensors with the exported module. Weights from training with frozen
    statistics, such as the published ones of the first generation, get frozen BatchNorm.
    """
    frozen = not any(key.endswith("num_batches_tracked") for key in state)
    if not frozen:
        module: nn.Module = torchvision.models.get_model(
            plan.name, weights=None, weights_backbone=None, num_classes=plan.classes, **plan.sizes()
        )
    else:
        resnet = torchvision.models.resnet50(norm_layer=FrozenBatchNorm2d)
        if plan.name in RETINANETS:
            pyramid = _resnet_fpn_extractor(
                resnet, 3, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)
            )
            module = RetinaNet(pyramid, plan.classes, **plan.sizes())
        else:
            pyramid = _resnet_fpn_extractor(resnet, 3)
            module = FasterRCNN(pyramid, plan.classes, **plan.sizes())
        overwrite_eps(module, plan.eps)
    _load(plan.name, module, state)
    return module.eval()


def _output(module: nn.Module) -> ModelOutput:
    if isinstance(module, FasterRCNN):
        levels = range(2, 2 + len(module.rpn.anchor_generator.sizes))
        return FasterRcnnRows(
            proposals="proposals",
            logits="logits",
            deltas="deltas",
            checked=(
                "probe_logits",
                "probe_deltas",
                *(f"objectness_p{level}" for level in levels),
            ),
        )
    assert isinstance(module, RetinaNet)
    levels = range(3, 3 + len(module.anchor_generator.cell_anchors))
    return RetinanetHeads(
        logits=tuple(f"logits_p{level}" for level in levels),
        deltas=tuple(f"deltas_p{level}" for level in levels),
        anchors=tuple(
            tuple((right - left, bottom - top) for left, top, right, bottom in cell.tolist())
            for cell in module.anchor_generator.cell_anchors
        ),
    )


def _classes(name: str, state: dict[str, Tensor]) -> int:
    """Return the number of a state_dict's classes; raises ExportError if it is another model's."""
    identity = identify_state(state)
    if name not in identity.names:
        raise ExportError(f"the weights are {identity.title}, not {name}; {identity.advice}")
    if name in RETINANETS:
        return int(state["head.classification_head.cls_logits.weight"].shape[0]) // 9
    return int(state["roi_heads.box_predictor.cls_score.weight"].shape[0])


def _load(name: str, module: nn.Module, state: dict[str, Tensor]) -> None:
    # Frozen BatchNorm has no counters, which evaluation does not use. torchvision's modules rename
    # the tensors of old files in the dict that they are given.
    plain = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    try:
        missing, unexpected = module.load_state_dict(plain, strict=False)
    except RuntimeError as error:
        raise ExportError(f"the weights don't fit {name}: {first_mismatch(error)}") from None
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ExportError(
            f"the weights don't fit {name}: {len(missing)} tensors are missing "
            f"({shown(', '.join(missing[:3]))}), {len(unexpected)} are unexpected "
            f"({shown(', '.join(unexpected[:3]))})"
        )


_LIN = "Lin et al., Focal Loss for Dense Object Detection, arXiv:1708.02002"
_REN = "Ren et al., Faster R-CNN, arXiv:1506.01497"
_V2 = "torchvision 0.13, the first with this model"


def _facts(name: str, module: nn.Module, weights: Weights | None) -> Facts:
    license_id, license_source = weights_license(
        weights, "https://download.pytorch.org", "BSD-3-Clause; trained on COCO"
    )
    dense, second = name in RETINANETS, name.endswith("_v2")
    paper = _LIN if dense else _REN
    first_version = "2017-08-07" if dense else "2015-06-04"
    return Facts(
        architecture=f"{'RetinaNet' if dense else 'Faster R-CNN'} ResNet-50 FPN"
        + (" v2" if second else ""),
        organization="Facebook AI Research" if dense else "Microsoft Research",
        category="open",
        modality="vision",
        release_date="2022-06-28" if second else first_version,
        parameter_count=parameter_count(module),
        code_license="BSD-3-Clause",
        weights_license=license_id,
        real_time=False,
        sources={
            "architecture": f"{paper}; pyramid: arXiv:1612.03144; pytorch/vision, "
            f"models/detection/{'retinanet' if dense else 'faster_rcnn'}.py",
            "organization": f"authors' affiliation in {paper}",
            "release_date": _V2 if second else f"first version of {paper.rpartition(', ')[2]}",
            "parameter_count": "counted from the PyTorch module",
            "category": "weights and code are published",
            "code_license": "pytorch/vision, LICENSE",
            "weights_license": license_source,
            "real_time": f"no such claim in {paper}"
            if dense
            else f"5 pictures per second on a GPU in {paper}",
        },
    )
