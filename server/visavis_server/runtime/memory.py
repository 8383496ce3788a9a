"""What glibc does with memory that is freed: nothing elsewhere."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
# Each arena keeps what was freed in it for itself. gRPC's threads put messages together from small
# pieces: in eight arenas for each core, messages of 32 MiB left 2 GB behind.
_ARENAS = 4
# Buffers as large as the first go back to the system as soon as they are freed: to keep larger
# ones leaves holes, with 8 MiB 27 MiB for good after 700 damaged JPEGs. What is free at the end of
# a heap goes back beyond the second: where a picture of 1280x1024 gave back all that it had had,
# fetching the pages anew cost 1 ms of CPU.
_LARGE_BYTES, _KEPT_BYTES = 4 << 20, 12 << 20
_KEPT_BYTES_IF_LOW = 128 << 10


def give_back() -> None:
    """Return to the system what was freed; glibc would keep it."""
    _call("malloc_trim", 0)


def keep_little(low_memory: bool = False) -> None:
    """Let glibc keep what the next request needs, and no more; low_memory: not even that.

    Left alone, it comes to keep much: its thresholds grow with what it is asked for.
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
