"""The array types of pictures and tensors."""

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
"""A decoded picture: uint8 RGB [height, width, 3], upright."""

Tensor = npt.NDArray[np.float32]

Bytes = npt.NDArray[np.uint8]
"""Memory: [bytes]."""
