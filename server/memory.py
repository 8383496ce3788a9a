"""What glibc does with memory that is freed: nothing elsewhere."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
# Of this size buffers go back to the system as soon as they are freed, and so does what is free
# at the end of a heap. To fetch the pages of each picture anew takes 1 ms of CPU; to keep more
# leaves holes: with 8 and 16 MiB, 700 damaged JPEGs cost 27 MiB for good, and now nothing.
_LARGE_BYTES, _KEPT_BYTES = 4 << 20, 12 << 20
_KEPT_BYTES_IF_LOW = 128 << 10


def give_back() -> None:
    """Return to the system what was freed; glibc would keep it."""
    _call("malloc_trim", 0)


def keep_little(low_memory: bool = False) -> None:
    """Let glibc keep what the next request needs, and no more; low_memory: not even that.

    Left alone, it comes to keep much: its thresholds grow with what it is asked for.
    """
    _call("mallopt", _M_MMAP_THRESHOLD, _LARGE_BYTES)
    _call("mallopt", _M_TRIM_THRESHOLD, _KEPT_BYTES_IF_LOW if low_memory else _KEPT_BYTES)


def _call(function: str, *arguments: int) -> None:
    if sys.platform != "linux":
        return
    try:
        getattr(ctypes.CDLL("libc.so.6"), function)(*arguments)
    except (OSError, AttributeError):  # another libc
        return
