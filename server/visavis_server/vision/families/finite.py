"""Check for NaN and infinities, which a graph may compute but no answer may contain."""

from typing import Any

import numpy as np
import numpy.typing as npt

from visavis_server.errors import ModelFailed


def require_finite(values: npt.NDArray[Any]) -> None:
    """Raise ModelFailed if a value, float16 or float32, is NaN or infinite.

    Only the values that an answer depends on need checking: YOLO's raw heads have two million
    numbers, of which mostly only the objectness of each cell is read.
    """
    # A NaN or infinity spreads to the sum; a float16 sum could overflow without one.
    if not np.isfinite(values.sum(dtype=np.float32)):
        raise ModelFailed("the model computed NaN or infinity for this image")
