"""Numbers that are none: a graph may give them for one picture, and must not for any answer."""

from typing import Any

import numpy as np
import numpy.typing as npt

from visavis_server.errors import ModelFailed


def require_finite(values: npt.NDArray[Any]) -> None:
    """Raise ModelFailed if a NaN or an infinity is among the values, float16 or float32.

    Only what an answer is made from needs to be looked at: YOLO's raw heads hold two million
    numbers, of which all but the objectness of each cell are mostly never read.
    """
    # One of them makes the sum one; float16 would overflow by itself.
    if not np.isfinite(values.sum(dtype=np.float32)):
        raise ModelFailed("the model gave numbers that are not finite for this image")
