"""The entry point of `visavis` and `python -m visavis`: the steps before the slow imports.

`visavis serve` installs signal handlers first. In a container it is process 1, for which the
kernel discards signals without a handler: a stop in the first second would go unnoticed.
"""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

_STOPPING = (signal.SIGTERM, signal.SIGINT)
_IGNORED: tuple[signal.Signals, ...] = ()
if sys.platform != "win32":  # It has none of these, and no masks of signals.
    _IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# A separate marker, because glibc removes GLIBC_TUNABLES from programs with elevated privileges.
_STARTED_AGAIN = "_VISAVIS_STARTED_AGAIN"
_LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def main() -> int:
    """Run the command and return its exit code."""
    if sys.argv[1:2] == ["serve"]:  # The server replaces the handlers once it can drain.
        _ask_for_large_pages()
        for number in _STOPPING:
            signal.signal(number, lambda number, frame: os._exit(0))
        for number in _IGNORED:
            signal.signal(number, lambda number, frame: None)
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_STOPPING, *_IGNORED))
    from visavis.commands import main as run

    return run()


def _ask_for_large_pages() -> None:
    """Restart the script with memory pages of 2 MiB instead of 4 KiB, if the system allows it.

    On systems in `madvise` mode glibc's allocator requests large pages if GLIBC_TUNABLES says so
    at process start. A message of 32 MiB is then copied in 8 ms instead of 29.
    """
    if sys.platform == "win32":
        return
    try:
        on_request = "[madvise]" in _LARGE_PAGES.read_text("ascii")
    except OSError:
        return
    is_second_start = os.environ.pop(_STARTED_AGAIN, None) is not None
    if is_second_start or not on_request or "GLIBC_TUNABLES" in os.environ:
        return
    os.environ |= {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", _STARTED_AGAIN: "1"}
    # Signals that arrive during the restart stay pending until the handlers are installed.
    signal.pthread_sigmask(signal.SIG_BLOCK, (*_STOPPING, *_IGNORED))
    with suppress(OSError):
        os.execv(sys.argv[0], sys.argv)  # Keeps the process name `visavis`.
    with suppress(OSError):
        os.execv(sys.executable, sys.orig_argv)
