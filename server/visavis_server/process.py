"""Early signal handling, the duties of process 1, and an end that no thread can prevent.

Imports only fast modules: a signal may arrive immediately after the start.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import asyncio

_STOPS = (signal.SIGTERM, signal.SIGINT)
# By default these would end the process.
_HARMLESS = (signal.SIGUSR1, signal.SIGUSR2)
_FORWARDED = (*_STOPS, *_HARMLESS, signal.SIGHUP, signal.SIGQUIT)
# Time to write the last line of the log.
_LAST_LINE_S = 0.3


def take_signals() -> None:
    """Handle signals until the server does: a stop signal ends the process with exit code 0."""
    for number in _STOPS:
        signal.signal(number, lambda number, frame: os._exit(0))
    for number in (*_HARMLESS, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)


def handle_signals(
    loop: "asyncio.AbstractEventLoop",
    stop: "asyncio.Event",
    reload: Callable[[], object],
    before_end: Callable[[], object] = lambda: None,
) -> None:
    """Handle signals in the event loop from now on.

    The first SIGTERM or SIGINT sets `stop`; the second ends the process at once, after
    `before_end`. SIGHUP calls `reload`. SIGUSR1 and SIGUSR2 are only logged.
    """
    import structlog

    from visavis_server import log

    logger = structlog.get_logger()

    def stop_or_end(number: signal.Signals) -> None:
        if stop.is_set():
            logger.warning("ended at once", signal=number.name)
            before_end()
            log.flush()
            os._exit(128 + number)
        stop.set()

    for number in _STOPS:
        loop.add_signal_handler(number, stop_or_end, number)
    for number in _HARMLESS:
        loop.add_signal_handler(number, partial(logger.info, "signal ignored", signal=number.name))
    loop.add_signal_handler(signal.SIGHUP, reload)


def reserve_standard_streams() -> None:
    """Open closed standard streams as /dev/null, so that no other file gets their descriptors."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor: this one
            os.set_inheritable(opened, True)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def leave_process_1() -> None:
    """If this is process 1, as in a container, continue in a child and act as its init.

    The kernel drops signals that process 1 does not handle, and makes it the parent of orphans,
    which it must reap. The parent forwards signals, reaps every child, and exits with the server's
    exit code. The server's own children stay the server's to reap.
    """
    if os.getpid() != 1:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    server = os.fork()
    if server:

        def forward(number: int, frame: FrameType | None) -> None:
            os.kill(server, number)

        for number in _FORWARDED:
            signal.signal(number, forward)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
        _reap_until_end_of(server)
    # A terminal sends Ctrl-C to a process group: the server gets it only once, from its parent.
    os.setpgid(0, 0)
    take_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)


def _reap_until_end_of(server: int) -> NoReturn:
    while True:
        process, status = os.wait()
        if process == server:
            code = os.waitstatus_to_exitcode(status)
            os._exit(128 - code if code < 0 else code)


def end_within(seconds: float, code: int, unfinished: Callable[[], list[str]]) -> None:
    """Force the process to end after some seconds, even if threads still run.

    unfinished: returns the work that still runs, for the log.
    """

    def end_late() -> None:
        time.sleep(min(seconds, threading.TIMEOUT_MAX))
        end(code, unfinished)

    threading.Thread(target=end_late, name="last resort", daemon=True).start()


def end(code: int, unfinished: Callable[[], list[str]]) -> NoReturn:
    """End the process at once and log the unfinished work.

    A normal exit would wait for threads, and ONNX Runtime aborts if a thread ends during a run.
    """

    def write() -> None:
        import structlog

        from visavis_server import log

        structlog.get_logger().error("ended with work unfinished", unfinished=unfinished())
        log.flush(_LAST_LINE_S)

    # In a thread: a log that blocks must not prevent the end either.
    writer = threading.Thread(target=write, name="last line", daemon=True)
    writer.start()
    writer.join(_LAST_LINE_S)
    os._exit(code)
