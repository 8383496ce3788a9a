"""Normalisation of pixels, by a table of the 256 values of a sample."""

import cv2
import numpy as np

from visavis_server.arrays import Image, Tensor
from visavis_server.card import ModelInput


def normalized_values(model_input: ModelInput) -> Tensor:
    """Return the normalised value of each sample value, by channel: float32 [3, 256].

    Computed in the order of torchvision's ToTensor and Normalize, so that every bit is equal.
    """
    values = np.arange(256, dtype=np.float32) / np.float32(255)
    mean, std = np.array(model_input.mean, np.float32), np.array(model_input.std, np.float32)
    return (values[None, :] - mean[:, None]) / std[:, None]


def normalize(image: Image, values: Tensor, out: Tensor) -> None:
    """Write an image uint8 [H, W, 3] as float32 planes into `out` [3, H, W]."""
    # Into preallocated memory: OpenCV's allocation of each plane costs more than the split.
    planes = cv2.split(image, list(np.empty(out.shape, np.uint8)))
    for plane, table, target in zip(planes, values, out, strict=True):
        cv2.LUT(plane, table, dst=target)
