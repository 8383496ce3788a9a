"""Arrays whose memory is used again: the system would hand out its pages one by one, each time."""

from collections import defaultdict, deque
from functools import partial
from math import prod

import numpy as np

from visavis_server.arrays import Tensor

_ALIGNMENT = 64  # bytes: a line of the cache, and the widest register


class _Loan:
    """Memory that goes home when the last array that looks at it is gone; numpy holds it."""

    def __init__(self, memory: Tensor, home: deque[Tensor]) -> None:
        self.__array_interface__ = memory.__array_interface__
        self._memory, self._home = memory, home

    def __del__(self) -> None:
        self._home.append(self._memory)


class Buffers:
    """Lends memory for float32 arrays, to any thread.

    kept: how many of each size are kept for the next time.
    """

    def __init__(self, kept: int) -> None:
        self._free: defaultdict[int, deque[Tensor]] = defaultdict(partial(deque, maxlen=kept))

    def empty(self, *shape: int) -> Tensor:
        """Return an array of a shape; what is in it is left from before."""
        size = prod(shape)
        home = self._free[size]
        try:
            memory = home.pop()
        except IndexError:
            memory = _aligned(size)
        return np.asarray(_Loan(memory, home)).reshape(shape)


def _aligned(size: int) -> Tensor:
    item = np.dtype(np.float32).itemsize
    memory = np.empty(size + _ALIGNMENT // item, np.float32)
    start = -memory.ctypes.data % _ALIGNMENT // item
    return memory[start : start + size]
