"""The template: a process that has imported the server, and forks workers from itself.

Such a worker exists within milliseconds, and shares the memory of the modules with the others. It
runs the code that the server was started with, even if another version has been installed since.
The template starts no thread and uses neither gRPC nor ONNX Runtime, which do not survive a fork.
"""

import asyncio
import gc
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from visavis_server.errors import StartupError
from visavis_server.supervision.division import Assignment

# The template's end of the orders: its standard input.
_ORDERS: Final = 0
_MOST_ORDER_BYTES: Final = 1 << 20
# For the imports, on a busy machine.
_START_S: Final = 60.0
# Only the supervisor talks to systemd.
_OF_SYSTEMD: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

Work = Callable[[Assignment, socket.socket], int]
"""Serves as a worker over its end of the channel; returns the exit code."""


class Template:
    """The supervisor's handle of the template, which is started anew if it has ended.

    module: the template's main module.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._one_at_a_time = asyncio.Lock()
        self._start()

    async def fork(self, assignment: Assignment, ends: Sequence[socket.socket | int]) -> int:
        """Fork a worker; returns its process id.

        ends: the worker's of the channel and of its log; this process keeps its copies. Raises
        StartupError.
        """
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._forked, assignment, ends)

    def stop(self) -> None:
        """End the template; its workers live on."""
        self._orders.close()
        self._process.kill()
        self._process.wait()

    def _forked(self, assignment: Assignment, ends: Sequence[socket.socket | int]) -> int:
        order = pickle.dumps(assignment)
        descriptors = [end if isinstance(end, int) else end.fileno() for end in ends]
        for attempt in range(2):
            if attempt:
                self.stop()
                self._start()
            with suppress(OSError):  # it has ended
                socket.send_fds(self._orders, [order], descriptors)
                if answer := self._orders.recv(64):
                    return int(answer)
        raise StartupError("the process that workers are forked from ends at its start")

    def _start(self) -> None:
        self._orders, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.settimeout(_START_S)
        with its_end:
            try:
                # -P: it imports nothing from the working directory. A group of its own: Ctrl-C in
                # a terminal reaches the supervisor alone.
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", self._module],
                    stdin=its_end.fileno(),
                    env={n: value for n, value in os.environ.items() if n not in _OF_SYSTEMD},
                    process_group=0,
                )
            except OSError as error:
                self._orders.close()
                raise StartupError(f"can't start a process for workers ({error})") from None


def fork_workers(work: Work) -> None:
    """Fork a worker for each order, until the supervisor has gone; in a worker, do its work."""
    gc.collect()
    # The modules' objects stay: no collection in a worker touches their pages, and so copies them.
    gc.freeze()
    with socket.socket(fileno=os.dup(_ORDERS)) as orders:
        while True:
            order, descriptors, _, _ = socket.recv_fds(orders, _MOST_ORDER_BYTES, 2)
            if not order:
                return
            process = _fork()
            if not process:
                break
            for descriptor in descriptors:
                os.close(descriptor)
            orders.send(str(process).encode())
    channel, log = descriptors
    os.dup2(log, 2)
    os.close(log)
    _leave_standard_input()
    # At once: gRPC takes a second to end its threads, and the rest is the template's.
    os._exit(work(pickle.loads(order), socket.socket(fileno=channel)))


def _fork() -> int:
    """Fork a process whose parent will be the supervisor; returns its id, in itself 0."""
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        process = int(os.read(reading, 64))
        os.close(reading)
        os.waitpid(child, 0)
        return process
    if grandchild := os.fork():
        os.write(writing, str(grandchild).encode())
        # The grandchild now goes to the nearest process that takes orphans: the supervisor.
        os._exit(0)
    os.close(reading)
    os.close(writing)
    return 0


def _leave_standard_input() -> None:
    """Replace the orders, which only the template receives, and leave its group of processes."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, _ORDERS)
    os.close(nothing)
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
