"""`python -m visavis_server.worker`: the process that workers are forked from, and each worker."""

import asyncio
import os
import socket
from contextlib import suppress

from visavis_server import process

if __name__ == "__main__":
    process.take_signals()  # before the slow imports

from visavis_server.app import serve
from visavis_server.errors import StartupError
from visavis_server.event_loop import loop_factory
from visavis_server.settings import Settings
from visavis_server.supervision.division import Assignment
from visavis_server.supervision.membership import Membership
from visavis_server.supervision.template import fork_workers
from visavis_server.telemetry.standard_error import captured

with suppress(ModuleNotFoundError):  # of an extra
    import visavis_server.transport.http.listener  # noqa: F401


def work(assignment: Assignment, end: socket.socket) -> int:
    """Serve as one of several workers; returns the exit code."""
    settings = Settings.model_construct(**assignment.settings)
    if assignment.cores is not None:
        with suppress(OSError):  # some have been taken away since the start
            os.sched_setaffinity(0, assignment.cores)
    number, colors = assignment.number, assignment.colors
    with (
        captured(settings.log_format, settings.log_level, number, colors),
        asyncio.Runner(loop_factory=loop_factory(settings)) as runner,
    ):
        return runner.run(_serve(settings, assignment, end))


async def _serve(settings: Settings, assignment: Assignment, end: socket.socket) -> int:
    membership = await Membership.join(assignment, end)
    try:
        await serve(settings, membership, membership)
    except StartupError as error:
        await membership.failed(str(error))
        return 1
    return 0


if __name__ == "__main__":
    fork_workers(work)
