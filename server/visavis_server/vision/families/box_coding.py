"""torchvision's coding of boxes as differences from anchors or proposals."""

import math

import numpy as np

from visavis_server.arrays import Tensor
from visavis_server.vision.boxes import Boxes

# torchvision's BoxCoder lets a side grow at most this much, as a logarithm.
_MOST_GROWTH = np.float32(math.log(1000 / 16))


def decode(deltas: Tensor, references: Boxes, weights: tuple[float, ...] = (1, 1, 1, 1)) -> Boxes:
    """Return the boxes xyxy [n, 4] that deltas [n, 4] describe, relative to references [n, 4].

    weights: what the deltas of centre and size are multiplied with in training.
    """
    sides = references[:, 2:] - references[:, :2]
    centers = references[:, :2] + np.float32(0.5) * sides
    moved = deltas / np.array(weights, np.float32)
    centers = moved[:, :2] * sides + centers
    half = np.float32(0.5) * (np.exp(np.minimum(moved[:, 2:], _MOST_GROWTH)) * sides)
    return np.concatenate((centers - half, centers + half), axis=1)


def clip(boxes: Boxes, width: int, height: int) -> Boxes:
    """Return boxes xyxy [n, 4], cut off at the edges of an image."""
    limit = np.array([width, height, width, height], np.float32)
    return np.clip(boxes, np.float32(0), limit)
