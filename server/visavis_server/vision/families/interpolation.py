"""PyTorch's bilinear interpolation without antialiasing, normalised, in floating point."""

import numpy as np
import numpy.typing as npt

from visavis_server.arrays import Image, Tensor

# Rows computed at a time: they fit the L2 cache.
_ROWS_AT_ONCE = 16


def interpolate(image: Image, scale: Tensor, offset: Tensor, out: Tensor) -> None:
    """Write an image uint8 [H, W, 3], resized and normalised, into `out` [3, height, width].

    As torch.nn.functional.interpolate with mode="bilinear" and align_corners=False. Reads only the
    pixels that the result depends on. scale, offset: [3]; a value becomes value * scale + offset.
    """
    height, width = out.shape[1:]
    top, bottom, down = _taps(image.shape[0], height)
    left, right, across = _taps(image.shape[1], width)
    for start in range(0, height, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        mixed = _mix(image[top[rows]], image[bottom[rows]], down[rows, None, None])
        mixed = _mix(mixed[:, left], mixed[:, right], across[:, None])  # [rows, width, 3]
        mixed *= scale
        mixed += offset
        out[:, rows] = mixed.transpose(2, 0, 1)


def _mix(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic], share: Tensor) -> Tensor:
    """Return one * (1 - share) + other * share as float32."""
    first = one.astype(np.float32)
    difference = np.subtract(other, first, dtype=np.float32)
    difference *= share
    first += difference
    return first


def _taps(size: int, new_size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Tensor]:
    """Return the two pixels that each new pixel mixes, and the share of the second: [new_size]."""
    # In float32, as PyTorch computes it.
    step = np.float32(size) / np.float32(new_size)
    at = step * (np.arange(new_size, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    at = np.maximum(at, np.float32(0))
    first = np.minimum(at.astype(np.intp), size - 1)
    return first, np.minimum(first + 1, size - 1), at - first.astype(np.float32)
