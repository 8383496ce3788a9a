"""Arrays in reused memory. New memory would cost a page fault for each page, every time."""

from collections import defaultdict, deque
from functools import partial
from math import prod

import numpy as np

from visavis_server.arrays import Tensor

_ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


class _Loan:
    """Memory that returns to its pool once NumPy drops the last array that uses it."""

    def __init__(self, memory: Tensor, pool: deque[Tensor]) -> None:
        self.__array_interface__ = memory.__array_interface__
        self._memory, self._pool = memory, pool

    def __del__(self) -> None:
        self._pool.append(self._memory)


class Buffers:
    """A pool of memory for float32 arrays. Thread-safe.

    kept: the most free buffers kept of each size.
    """

    def __init__(self, kept: int) -> None:
        self._free: defaultdict[int, deque[Tensor]] = defaultdict(partial(deque, maxlen=kept))

    def empty(self, *shape: int) -> Tensor:
        """Return an uninitialised array of a shape."""
        size = prod(shape)
        pool = self._free[size]
        try:
            memory = pool.pop()
        except IndexError:
            memory = _aligned(size)
        return np.asarray(_Loan(memory, pool)).reshape(shape)


def _aligned(size: int) -> Tensor:
    item = np.dtype(np.float32).itemsize
    memory = np.empty(size + _ALIGNMENT // item, np.float32)
    start = -memory.ctypes.data % _ALIGNMENT // item
    return memory[start : start + size]
