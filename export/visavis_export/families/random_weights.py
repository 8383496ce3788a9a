"""Random weights with varied scores, for tests and benchmarks without real weights.

A freshly initialised YOLOv5 peaks at a score of 0.0002, and a ResNet-152 gives logits of 7e7;
either would hide errors.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor, nn

from visavis_export.families.original import upright
from visavis_export.pictures.synthetic import synthetic_pictures

SEED = 20_200_618


@dataclass(frozen=True, slots=True)
class Spread:
    """The target range of a last layer's outputs, per channel: 99.9 % in median ± reach."""

    layer: nn.Conv2d | nn.Linear
    median: Tensor
    reach: Tensor


def seed() -> None:
    """Make the following initialisation reproducible."""
    torch.manual_seed(SEED)


@torch.no_grad()
def calibrate(module: nn.Module, spreads: Iterable[Spread], images: Tensor) -> None:
    """Set BatchNorm's statistics and the last layers so that activations and scores vary.

    module: freshly initialised; left in evaluation mode. images: typical inputs,
    [n, 3, height, width].
    """
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        # Keep most activations where SiLU and ReLU are nearly linear: a hundred random
        # nonlinearities in a row would amplify rounding errors into different answers.
        nn.init.constant_(norm.bias, 1.0)
    module.train()
    module(images)
    module.eval()
    for spread in spreads:
        spread.layer.weight.div_(spread.layer.weight.std() + 1e-6)
        if spread.layer.bias is not None:
            spread.layer.bias.zero_()
    outputs: dict[nn.Module, Tensor] = {}
    hooks = [
        spread.layer.register_forward_hook(
            lambda layer, _, output: outputs.setdefault(layer, output)
        )
        for spread in spreads
    ]
    module(images)  # a layer's first output counts: a pyramid's largest level comes first
    for hook in hooks:
        hook.remove()
    for spread in spreads:
        channels = outputs[spread.layer].movedim(1, 0).flatten(1)  # [channels, values]
        median = channels.median(1).values
        # Use a high quantile, not the standard deviation: edges give few but extreme values.
        extent = (channels - median[:, None]).abs().quantile(0.999, 1)
        scale = spread.reach / (extent + 1e-6)
        assert spread.layer.bias is not None
        spread.layer.bias.copy_(spread.median - median * scale)
        spread.layer.weight.mul_(scale.view(-1, *[1] * (spread.layer.weight.ndim - 1)))


def images(fit: Callable[[PillowImage.Image], PillowImage.Image]) -> Tensor:
    """Return the synthetic pictures, resized by `fit`: [n, 3, height, width] in [0, 1]."""
    pictures = [np.asarray(fit(upright(encoded))) for encoded in synthetic_pictures().values()]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
