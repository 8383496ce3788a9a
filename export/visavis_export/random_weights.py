"""Random weights whose scores vary: for tests and benchmarks, where no weights are at hand.

Untouched, a random YOLOv5 peaks at a score of 0.0002 and a random ResNet-152 gives logits
of 7e7; either would hide any error.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor, nn

from visavis_export.original import upright
from visavis_export.pictures import synthetic_pictures

SEED = 20_200_618


@dataclass(frozen=True, slots=True)
class Spread:
    """How a last layer's outputs shall lie, per channel: 999 in 1,000 within median ± reach."""

    layer: nn.Conv2d | nn.Linear
    median: Tensor
    reach: Tensor


def seed() -> None:
    """Make what is initialised next the same on every run."""
    torch.manual_seed(SEED)


@torch.no_grad()
def calibrate(module: nn.Module, spreads: Iterable[Spread], images: Tensor) -> None:
    """Set BatchNorm's statistics and the last layers so that activations and scores vary.

    module: freshly initialised; left in evaluation mode. images: inputs like those that it
    will see, [n, 3, height, width].
    """
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        # Most activations lie where SiLU and ReLU are nearly straight: a hundred random bends
        # in a row would turn the last digit of a float into a different picture.
        nn.init.constant_(norm.bias, 1.0)
    module.train()
    module(images)
    module.eval()
    for spread in spreads:
        spread.layer.weight.div_(spread.layer.weight.std() + 1e-6)
        if spread.layer.bias is not None:
            spread.layer.bias.zero_()
    inputs: dict[nn.Module, Tensor] = {}
    hooks = [
        spread.layer.register_forward_hook(
            lambda layer, _, output: inputs.__setitem__(layer, output)
        )
        for spread in spreads
    ]
    module(images)
    for hook in hooks:
        hook.remove()
    for spread in spreads:
        channels = inputs[spread.layer].movedim(1, 0).flatten(1)  # [channels, values]
        median = channels.median(1).values
        # By what is rarely exceeded, not by the deviation: edges are few, and far out.
        most = (channels - median[:, None]).abs().quantile(0.999, 1)
        scale = spread.reach / (most + 1e-6)
        assert spread.layer.bias is not None
        spread.layer.bias.copy_(spread.median - median * scale)
        spread.layer.weight.mul_(scale.view(-1, *[1] * (spread.layer.weight.ndim - 1)))


def images(fit: Callable[[PillowImage.Image], PillowImage.Image]) -> Tensor:
    """Return the synthetic pictures, each made to fit: [n, 3, height, width] in [0, 1]."""
    pictures = [np.asarray(fit(upright(encoded))) for encoded in synthetic_pictures().values()]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
