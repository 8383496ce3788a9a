"""Buffers are reused, and never shared by two users."""

import threading

import numpy as np

from visavis_server.runtime.buffers import Buffers


def test_memory_is_reused_once_its_last_view_is_gone() -> None:
    buffers = Buffers(kept=1)
    first = buffers.empty(2, 3)
    first[:] = 7
    place, view = first.ctypes.data, first[1:].reshape(3)[1:]
    del first
    assert buffers.empty(2, 3).ctypes.data != place
    assert view.tolist() == [7, 7]
    del view
    assert buffers.empty(3, 2).ctypes.data == place


def test_no_more_buffers_are_kept_than_allowed() -> None:
    none, one = Buffers(kept=0), Buffers(kept=1)
    for buffers, kept in ((none, 0), (one, 1)):
        lent = [buffers.empty(4) for _ in range(3)]
        del lent
        assert [len(pool) for pool in buffers._free.values()] == [kept]


def test_buffers_are_aligned_to_cache_lines() -> None:
    buffers = Buffers(kept=2)
    lent = [buffers.empty(1, 3, size, size) for size in (1, 7, 640)]
    assert all(array.ctypes.data % 64 == 0 for array in lent)
    assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in lent)


def test_threads_never_share_a_buffer() -> None:
    buffers, mixed = Buffers(kept=2), []

    def use(number: int) -> None:
        for _ in range(2000):
            own = buffers.empty(16)
            own[:] = number
            if own.min() != number or own.max() != number:
                mixed.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not mixed
