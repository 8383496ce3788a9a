"""The script `visavis`, and `python -m visavis`: what comes before all imports that take time.

A server takes signals. In a container it is process 1, for which the kernel discards signals that
have no handler: a server that is stopped in its first second would hear nothing of it.
"""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

_STOPPING = (signal.SIGTERM, signal.SIGINT)
_IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# glibc takes its own variable away from a program with more rights than its user.
_STARTED_AGAIN = "_VISAVIS_STARTED_AGAIN"
_LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def main() -> int:
    """Run the command and return its exit code."""
    if sys.argv[1:2] == ["serve"]:  # it takes the signals over when it can drain
        _ask_for_large_pages()
        for number in _STOPPING:
            signal.signal(number, lambda number, frame: os._exit(0))
        for number in _IGNORED:
            signal.signal(number, lambda number, frame: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_STOPPING, *_IGNORED))
    from visavis.commands import main as run

    return run()


def _ask_for_large_pages() -> None:
    """Start the script again, so that memory comes in pages of 2 MiB instead of 4 KiB.

    Where the system gives them to who asks, glibc's allocator asks if its environment says so when
    a process begins. A message of 32 MiB is then copied in 8 ms instead of 29.
    """
    try:
        only_if_asked = "[madvise]" in _LARGE_PAGES.read_text("ascii")
    except OSError:
        return
    is_second_start = os.environ.pop(_STARTED_AGAIN, None) is not None
    if is_second_start or not only_if_asked or "GLIBC_TUNABLES" in os.environ:
        return
    os.environ |= {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", _STARTED_AGAIN: "1"}
    # A signal that comes meanwhile waits for its handler.
    signal.pthread_sigmask(signal.SIG_BLOCK, (*_STOPPING, *_IGNORED))
    with suppress(OSError):
        os.execv(sys.argv[0], sys.argv)  # so that the process is still called visavis
    with suppress(OSError):
        os.execv(sys.executable, sys.orig_argv)
