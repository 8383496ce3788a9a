"""Memory that is lent again, and never to two at once."""

import threading

import numpy as np

from visavis_server.runtime.buffers import Buffers


def test_memory_is_lent_again_when_the_last_view_of_it_is_gone() -> None:
    buffers = Buffers(kept=1)
    first = buffers.empty(2, 3)
    first[:] = 7
    place, view = first.ctypes.data, first[1:].reshape(3)[1:]
    del first
    assert buffers.empty(2, 3).ctypes.data != place
    assert view.tolist() == [7, 7]
    del view
    assert buffers.empty(3, 2).ctypes.data == place


def test_no_more_is_kept_than_was_said() -> None:
    none, one = Buffers(kept=0), Buffers(kept=1)
    for buffers, kept in ((none, 0), (one, 1)):
        lent = [buffers.empty(4) for _ in range(3)]
        del lent
        assert [len(home) for home in buffers._free.values()] == [kept]


def test_it_begins_where_a_line_of_the_cache_does() -> None:
    buffers = Buffers(kept=2)
    lent = [buffers.empty(1, 3, size, size) for size in (1, 7, 640)]
    assert all(array.ctypes.data % 64 == 0 for array in lent)
    assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in lent)


def test_threads_never_share_what_they_were_lent() -> None:
    buffers, wrong = Buffers(kept=2), []

    def use(number: int) -> None:
        for _ in range(2000):
            mine = buffers.empty(16)
            mine[:] = number
            if mine.min() != number or mine.max() != number:
                wrong.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
