"""ResNet, as torchvision ships it (v1.5: the stride sits in the 3x3 convolution)."""

from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import ResNet

from visavis_export.checkpoints.identity import identify_state
from visavis_export.checkpoints.pickled import shown
from visavis_export.checkpoints.weights import Release, Weights
from visavis_export.errors import ExportError
from visavis_export.families import random_weights
from visavis_export.families.original import (
    Floats,
    Original,
    activation_map,
    first_mismatch,
    parameter_count,
    upright,
    weights_license,
)
from visavis_server.card import (
    ClassActivation,
    ClassScores,
    Facts,
    LabelSet,
    ModelDocument,
    ModelInput,
    Provenance,
    ShorterSide,
    Task,
)
from visavis_server.vision.labels import name_of_label_set

NAMES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
TRANSFORMS = ("V1", "V2")
DEFAULT_TRANSFORMS = "V1"

# Length of the shorter side before the crop, by version of the transforms.
RESIZES = {"V1": 256, "V2": 232}

_PAPER = "He et al., Deep Residual Learning for Image Recognition, arXiv:1512.03385"


def release(name: str, transforms: str) -> Release:
    """Return torchvision's release of the weights; raises ExportError if there is none."""
    url: str = _enum(name, transforms).url
    filename = url.rpartition("/")[2]
    # torchvision's file names end in the first digits of their SHA-256.
    return Release(filename, url, filename.removesuffix(".pth").rpartition("-")[2])


def build(
    name: str,
    state: dict[str, Tensor] | None,
    weights: Weights | None,
    provenance: Provenance,
    transforms: str,
    labels: tuple[str, ...] | None,
) -> Original:
    """Return a ResNet with these weights; state None: random ones.

    name: one of NAMES. transforms: "V1" (resize 256) or "V2" (resize 232). labels: by class
    id; None: ImageNet's. Raises ExportError if weights and architecture don't fit, or the
    number of classes and the labels.
    """
    classes = len(labels) if labels else 1000
    if state is not None:
        classes = _classes(name, state)
    if labels is None:
        if classes != 1000:
            raise ExportError(
                f"the weights have {classes} classes, not ImageNet's 1000; name them with "
                "--class-names FILE, one per line"
            )
        labels = imagenet_labels()
    if len(labels) != classes:
        raise ExportError(
            f"the weights have {classes} classes, but --class-names names {len(labels)}; name each "
            "class once, one per line"
        )
    random_weights.seed()
    module: ResNet = torchvision.models.get_model(name, weights=None, num_classes=classes)
    if state is None:
        spread = random_weights.Spread(module.fc, torch.zeros(classes), torch.full((classes,), 6.0))
        images = random_weights.images(lambda picture: picture.resize((224, 224)))
        random_weights.calibrate(module, [spread], (images - 0.45) / 0.225)
    else:
        _load(name, module, state)
    module.eval()
    resize = RESIZES[transforms]
    draft = ModelDocument(
        name=name,
        task=Task.CLASSIFICATION,
        precision="fp32",
        label_set=LabelSet(name=name_of_label_set(labels), labels=labels),
        input=ModelInput(
            tensor="image",
            width=224,
            height=224,
            resize=ShorterSide(size=resize),
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        output=ClassScores(
            layout="logits",
            tensor="logits",
            activation=ClassActivation(features="features", weights=""),
        ),
        facts=_facts(name, module, weights),
        provenance=provenance,
    )
    reference = with_state(name, classes, module.state_dict() if state is None else state)
    return Original(draft, _Explained(module), _Reference(reference, resize))


class _Explained(nn.Module):
    """A ResNet that returns, beside its logits, the features before the mean over the image."""

    def __init__(self, module: ResNet) -> None:
        super().__init__()
        self.module = module
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        return self.logits(features), features

    def features(self, x: Tensor) -> Tensor:
        module = self.module
        x = module.maxpool(module.relu(module.bn1(module.conv1(x))))
        features: Tensor = module.layer4(module.layer3(module.layer2(module.layer1(x))))
        return features

    def logits(self, features: Tensor) -> Tensor:
        logits: Tensor = self.module.fc(self.module.avgpool(features).flatten(1))
        return logits


def with_state(name: str, classes: int, state: dict[str, Tensor]) -> ResNet:
    """Return a second instance of torchvision's module: the reference for the receipt.

    It shares only the tensors with the exported module.
    """
    with torch.device("meta"):
        module: ResNet = torchvision.models.get_model(name, weights=None, num_classes=classes)
    module.load_state_dict(state, strict=False, assign=True)
    return module.eval()


def imagenet_labels() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes, in torchvision's spelling."""
    return tuple(_enum("resnet50", "V1").meta["categories"])


@dataclass(frozen=True, slots=True)
class _Reference:
    """torchvision's pipeline: Pillow, its transforms, the module, softmax."""

    module: ResNet
    resize: int

    @torch.inference_mode()
    def probabilities(self, encoded: bytes) -> Floats:
        probabilities: Floats = self.module(self._input(encoded)).softmax(1)[0].numpy()
        return probabilities

    @torch.inference_mode()
    def heat_map(self, encoded: bytes, class_id: int) -> Floats:
        return activation_map(
            self.module, self.module.layer4, self.module.fc, self._input(encoded), class_id
        )

    def _input(self, encoded: bytes) -> Tensor:
        transform = torchvision.transforms._presets.ImageClassification(
            crop_size=224, resize_size=self.resize
        )
        tensor: Tensor = transform(upright(encoded))
        return tensor[None]


def _enum(name: str, transforms: str) -> Any:
    """Return torchvision's weights entry; raises ExportError if there is no such entry."""
    enum = torchvision.models.get_model_weights(name)
    try:
        return enum[f"IMAGENET1K_{transforms}"]
    except KeyError:
        raise ExportError(
            f"torchvision has no {transforms} weights for {name}; it has "
            f"{', '.join(entry.name.removeprefix('IMAGENET1K_') for entry in enum)}"
        ) from None


def _classes(name: str, state: dict[str, Tensor]) -> int:
    """Return the number of a state_dict's classes; raises ExportError if it is another model's."""
    identity = identify_state(state)
    if name not in identity.names:
        raise ExportError(f"the weights are {identity.title}, not {name}; {identity.advice}")
    if "fc.weight" in state:
        return int(state["fc.weight"].shape[0])
    if head := [key for key in state if key.startswith("fc.")]:
        raise ExportError(
            f"this {name} has another head than torchvision's single linear layer: "
            f"{shown(', '.join(head), 120)}. If it is a Dropout before a linear layer, save the "
            "linear layer's tensors as fc.weight and fc.bias"
        )
    raise ExportError(
        f"the weights are a {name} without its head, fc.weight and fc.bias; give the weights of "
        "the whole classifier"
    )


def _load(name: str, module: nn.Module, state: dict[str, Tensor]) -> None:
    # Files from before 2018 lack the counters, which evaluation does not use.
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ExportError(f"the weights don't fit {name}: {first_mismatch(error)}") from None
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ExportError(
            f"the weights don't fit {name}: {len(missing)} tensors are missing "
            f"({shown(', '.join(missing[:3]))}), {len(unexpected)} are unexpected "
            f"({shown(', '.join(unexpected[:3]))})"
        )


def _facts(name: str, module: nn.Module, weights: Weights | None) -> Facts:
    license_id, license_source = weights_license(
        weights, "https://download.pytorch.org", "BSD-3-Clause; trained on ImageNet"
    )
    return Facts(
        architecture=f"ResNet-{name.removeprefix('resnet')} v1.5",
        organization="Microsoft Research",
        category="open",
        modality="vision",
        release_date="2015-12-10",
        parameter_count=parameter_count(module),
        code_license="MIT",
        weights_license=license_id,
        real_time=False,
        sources={
            "architecture": f"{_PAPER}; v1.5: torchvision's documentation of ResNet",
            "organization": f"authors' affiliation in {_PAPER}",
            "release_date": "first version of arXiv:1512.03385",
            "parameter_count": "counted from the PyTorch module",
            "category": "weights and code are published",
            "code_license": "the authors' release, KaimingHe/deep-residual-networks, LICENSE; "
            "these weights are trained with pytorch/vision, which is BSD-3-Clause",
            "weights_license": license_source,
            "real_time": f"no such claim in {_PAPER}",
        },
    )
