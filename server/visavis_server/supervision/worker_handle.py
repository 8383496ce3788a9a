"""One worker, as the supervisor sees it."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from visavis_server.supervision.channel import Channel, Handlers
from visavis_server.supervision.division import Assignment
from visavis_server.supervision.log_pipe import LogPipe
from visavis_server.supervision.template import Template
from visavis_server.telemetry.samples import Family, Samples

# A worker that ends within this time of becoming ready has ended early.
_EARLY_S: Final = 10.0
_MOST_DELAY_S: Final = 30.0
# Without a sign of life, its event loop hangs: it gets no new connections, and is then replaced.
_LATE_S: Final = 3.0
_SILENT_S: Final = 30.0


@dataclass(slots=True)
class WorkerHandle:
    """A worker's process and what it last told.

    early_ends: how often in a row it has ended before or soon after it was ready. starts: of its
    processes. busy: its connections with calls. samples: its last metrics.
    """

    number: int
    pid: int = 0
    channel: Channel | None = None
    starts: int = 0
    started_at: float = 0.0
    early_ends: int = 0
    loaded: bool = False
    ready_at: float | None = None
    heard_at: float = 0.0
    proved_at: float = 0.0
    replacing: bool = False
    busy: int = 0
    lag_s: float = 0.0
    cpu_s: float = 0.0
    rss_bytes: int = 0
    samples: list[Family] = field(default_factory=list)
    _log: LogPipe | None = None
    _running: asyncio.Task[None] | None = None

    async def start(
        self, template: Template, assignment: Assignment, handlers: Handlers, *, json_log: bool
    ) -> None:
        """Fork its process. Raises StartupError."""
        ours, its_end = socket.socketpair()
        self._log = LogPipe(self.number, is_json=json_log)
        self.started_at = time.monotonic()
        with its_end:
            try:
                self.pid = await template.fork(assignment, (its_end, self._log.writing))
            finally:
                os.close(self._log.writing)
        self.starts += 1
        self.loaded, self.ready_at, self.replacing, self.busy = False, None, False, 0
        self.heard_at = self.proved_at = time.monotonic()
        self.channel = await Channel.over(ours, handlers)
        self._running = asyncio.create_task(self.channel.run())

    def ready(self) -> None:
        """Note that it serves."""
        self.ready_at = self.heard_at = self.proved_at = time.monotonic()

    @property
    def is_late(self) -> bool:
        """True if it seems to hang."""
        return time.monotonic() - self.heard_at > _LATE_S

    def tell(self, name: str) -> None:
        """Send it a message."""
        if self.channel is not None:
            self.channel.tell(name)

    def ended(self) -> str | None:
        """Return how its process has ended; None: it has not."""
        if not self.pid:
            return None
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # the process that forked it has not left yet
            return None
        if not pid:
            return None
        self.pid = 0
        code = os.waitstatus_to_exitcode(status)
        return f"by signal {-code}" if code < 0 else f"with exit code {code}"

    async def leave(self) -> None:
        """Handle its last messages and lines, after its end."""
        if self._running is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await asyncio.wait((self._running,))
            self._running.cancel()
            self._running = self.channel = None
        if self._log is not None:
            self._log.read()
            self._log.close()
            self._log = None

    def delay_s(self) -> float:
        """Return the time to wait before its next process: none, unless it ends early again."""
        served_s = 0.0 if self.ready_at is None else time.monotonic() - self.ready_at
        self.early_ends = 0 if served_s > _EARLY_S else self.early_ends + 1
        return 0.0 if self.early_ends < 2 else min(_MOST_DELAY_S, 2.0 ** (self.early_ends - 2))

    def why_kill(self, watchdog_s: float | None) -> str:
        """Return why its process must be killed; "" if it lives."""
        if self.ready_at is None:
            return ""
        now = time.monotonic()
        if now - self.heard_at > _SILENT_S:
            return f"it has been silent for {_SILENT_S:g} s"
        if watchdog_s is not None and now - self.proved_at > watchdog_s:
            return f"no model has answered for {watchdog_s:g} s"
        return ""

    def kill(self) -> None:
        """Kill its process."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def processes(workers: Sequence[WorkerHandle]) -> list[Family]:
    """Return the metrics of the workers' processes."""

    def family(name: str, kind: str, about: str, read: str) -> Family:
        sample = f"{name}_total" if kind == "counter" else name
        samples: Samples = {
            (sample, (("worker", str(worker.number)),)): float(getattr(worker, read))
            for worker in workers
        }
        return Family(name, kind, about, "each", samples)

    up: Samples = {
        ("visavis_worker_up", (("worker", str(w.number)),)): float(w.ready_at is not None)
        for w in workers
    }
    return [
        Family("visavis_worker_up", "gauge", "1 while the worker serves.", "each", up),
        family("visavis_worker_starts", "counter", "Processes started.", "starts"),
        family("visavis_worker_connections", "gauge", "gRPC connections with calls.", "busy"),
        family("visavis_worker_lag_seconds", "gauge", "Lag of its event loop.", "lag_s"),
        family("visavis_worker_cpu_seconds", "gauge", "CPU time of its process.", "cpu_s"),
        family("visavis_worker_resident_bytes", "gauge", "Memory in RAM.", "rss_bytes"),
    ]
