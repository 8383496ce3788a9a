"""Arrays in reused memory. New memory would cost a page fault for each page, every time."""

from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from visavis_server.arrays import Bytes, Tensor

_ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


def aligned(size_bytes: int) -> Bytes:
    """Return new memory that begins at a cache line."""
    memory = np.empty(size_bytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size_bytes]


class _Loan:
    """Memory that returns to its pool once NumPy drops the last array that uses it."""

    def __init__(self, memory: Bytes, pool: deque[Bytes]) -> None:
        self.__array_interface__ = memory.__array_interface__
        self._memory, self._pool = memory, pool

    def __del__(self) -> None:
        self._pool.append(self._memory)


class Buffers:
    """A pool of memory for arrays. Thread-safe.

    kept: the most free buffers kept of each size. allocate: returns new memory of a size.
    """

    def __init__(self, kept: int, allocate: Callable[[int], Bytes] = aligned) -> None:
        self._allocate = allocate
        self._free: defaultdict[int, deque[Bytes]] = defaultdict(partial(deque, maxlen=kept))

    def empty(self, *shape: int, dtype: Any = np.float32) -> Tensor:
        """Return an uninitialised array of a shape."""
        size_bytes = prod(shape) * np.dtype(dtype).itemsize
        pool = self._free[size_bytes]
        try:
            memory = pool.pop()
        except IndexError:
            memory = self._allocate(size_bytes)
        return np.asarray(_Loan(memory, pool)).view(dtype).reshape(shape)
