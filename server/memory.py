"""What glibc does with memory that is freed: nothing elsewhere."""

import ctypes
import sys

_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE_BYTES = 4 << 20


def give_back() -> None:
    """Return to the system what was freed; glibc would keep it."""
    _call("malloc_trim", 0)


def give_back_large_at_once() -> None:
    """Let large buffers go back to the system as soon as they are freed, from now on.

    Left alone, glibc comes to keep them: its threshold grows with what it is asked for.
    """
    _call("mallopt", _M_MMAP_THRESHOLD, _LARGE_BYTES)


def _call(function: str, *arguments: int) -> None:
    if sys.platform != "linux":
        return
    try:
        getattr(ctypes.CDLL("libc.so.6"), function)(*arguments)
    except (OSError, AttributeError):  # another libc
        return
