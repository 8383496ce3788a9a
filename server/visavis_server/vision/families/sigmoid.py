"""The sigmoid, and the logit of a threshold."""

import numpy as np

from visavis_server.arrays import Tensor


def sigmoid(values: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-values))."""
    with np.errstate(over="ignore"):  # exp of a large number is inf, and 1 / inf is right
        return np.float32(1) / (np.float32(1) + np.exp(-values))


def logit(threshold: float) -> float:
    """Return the lowest logit that may exceed a threshold, less a small margin."""
    if not 0 < threshold < 1:
        return -np.inf
    return float(np.log(threshold / (1 - threshold))) - 0.01
