"""How glibc treats freed memory. Without glibc these functions do nothing."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
# Each arena keeps the memory freed in it. gRPC's threads assemble messages from small pieces: with
# glibc's default of eight arenas per core, messages of 32 MiB left 2 GB behind.
_ARENAS = 4
# Buffers of _LARGE_BYTES or more return to the system when freed. Keeping larger ones fragments the
# heap: a limit of 8 MiB left 27 MiB of holes after 700 damaged JPEGs. A heap keeps _KEPT_BYTES free
# at its end: without them, new pages for a picture of 1280x1024 cost 1 ms of CPU.
_LARGE_BYTES, _KEPT_BYTES = 4 << 20, 12 << 20
_KEPT_BYTES_IF_LOW = 128 << 10


def give_back() -> None:
    """Return freed memory to the system; glibc would keep it."""
    _call("malloc_trim", 0)


def keep_little(low_memory: bool = False) -> None:
    """Limit the freed memory that glibc keeps to what a request needs; low_memory: to less.

    By default glibc's thresholds grow with the sizes requested, and it keeps ever more.
    """
    _call("mallopt", _M_ARENA_MAX, _ARENAS)
    _call("mallopt", _M_MMAP_THRESHOLD, _LARGE_BYTES)
    _call("mallopt", _M_TRIM_THRESHOLD, _KEPT_BYTES_IF_LOW if low_memory else _KEPT_BYTES)


def _call(function: str, *arguments: int) -> None:
    if sys.platform != "linux":
        return
    try:
        getattr(ctypes.CDLL("libc.so.6"), function)(*arguments)
    except (OSError, AttributeError):  # another libc
        return
