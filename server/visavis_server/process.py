"""The process: signals before anything is imported, the duties of process 1, and a sure end.

It imports nothing that takes time: a signal may come in the first moment.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

STOPS = (signal.SIGTERM, signal.SIGINT)
"""Signals that end the server, with grace."""

HARMLESS = (signal.SIGUSR1, signal.SIGUSR2)
"""Signals that would end a process by default, and that mean nothing here."""

_PASSED_ON = (*STOPS, *HARMLESS, signal.SIGHUP, signal.SIGQUIT)
# How long the last line of the log may take.
_LAST_LINE_S = 0.3


def take_signals() -> None:
    """Take signals until the server does: one that stops it ends the start with exit code 0."""
    for number in STOPS:
        signal.signal(number, lambda number, frame: os._exit(0))
    for number in (*HARMLESS, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)


def reserve_standard_streams() -> None:
    """Let a standard stream that is closed be /dev/null, so that nothing else gets its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
            os.set_inheritable(opened, True)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def leave_process_1() -> None:
    """Go on in a child if this is process 1, as in a container; it does what process 1 has to.

    The kernel discards signals that process 1 has no handler for, and gives it orphans that
    somebody must wait for. Here the parent passes signals on, reaps every child, and ends as the
    server does. Nothing else waits for the server's own children in its place.
    """
    if os.getpid() != 1:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    server = os.fork()
    if server:

        def pass_on(number: int, frame: FrameType | None) -> None:
            os.kill(server, number)

        for number in _PASSED_ON:
            signal.signal(number, pass_on)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        _reap_until_end_of(server)
    # A terminal sends Ctrl-C to a whole group: the server hears of it once, from its parent.
    os.setpgid(0, 0)
    take_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)


def _reap_until_end_of(server: int) -> NoReturn:
    while True:
        process, status = os.wait()
        if process == server:
            code = os.waitstatus_to_exitcode(status)
            os._exit(128 - code if code < 0 else code)


def end_within(seconds: float, code: int, unfinished: Callable[[], list[str]]) -> None:
    """End the process after some seconds, whatever its threads do, unless it has ended by then.

    unfinished: returns what still runs, for the log.
    """

    def end_late() -> None:
        time.sleep(min(seconds, threading.TIMEOUT_MAX))
        end(code, unfinished)

    threading.Thread(target=end_late, name="last resort", daemon=True).start()


def end(code: int, unfinished: Callable[[], list[str]]) -> NoReturn:
    """End the process at once and log what is unfinished.

    Python would wait for its threads, and ONNX Runtime aborts if one ends in the middle of a run.
    """

    def say() -> None:
        import structlog

        from visavis_server import log

        structlog.get_logger().error("ended with work unfinished", unfinished=unfinished())
        log.flush(_LAST_LINE_S)

    # In a thread: what can't be written must not keep the process either.
    saying = threading.Thread(target=say, name="last line", daemon=True)
    saying.start()
    saying.join(_LAST_LINE_S)
    os._exit(code)
