"""A worker's side of the supervision."""

import asyncio
import resource
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

from visavis_server.errors import CannotLoad, ModelNotFound, Unavailable
from visavis_server.models.model_files import ModelFile
from visavis_server.models.trial import KINDS
from visavis_server.supervision.channel import Channel, Closed
from visavis_server.supervision.division import Assignment
from visavis_server.telemetry.samples import Family

BEAT_S: Final = 0.5
"""How often a worker tells the supervisor about itself."""

_ERRORS: Final[dict[str, type[ModelNotFound | CannotLoad]]] = {
    kind.__name__: kind for kind in (ModelNotFound, CannotLoad)
}
# For the other workers to report their metrics.
_SAMPLES_S: Final = 5.0
_LAST_SAMPLES_S: Final = 0.2
_PINGS_PER_TIMEOUT: Final = 3


class Administration(Protocol):
    """Loads and unloads models by name, in this worker alone."""

    async def load(self, name: str) -> None:
        """Load a model; raises VisavisError."""
        ...

    async def unload(self, name: str) -> None:
        """Stop serving a model; raises VisavisError."""
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """The requests of the supervisor to the server in this worker.

    request_stop: drains and ends. reload: reads tokens, certificates and the repository. steer:
    spreads new connections by weights. families: its metrics. administration: None until it serves.
    busy_connections: those with calls since the last question. trouble: why it can't work, or "".
    proves_alive: True if a model answers within so many seconds.
    """

    request_stop: Callable[[], None]
    reload: Callable[[], Awaitable[None]]
    steer: Callable[[Sequence[int]], bool]
    families: Callable[[], list[Family]]
    administration: Callable[[], Administration | None]
    busy_connections: Callable[[], int]
    trouble: Callable[[], str]
    proves_alive: Callable[[float], Awaitable[bool]]


class Membership:
    """A worker's side of the connection to the supervisor. assignment: given at its start."""

    def __init__(self, assignment: Assignment, channel: Channel) -> None:
        self.assignment = assignment
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._member: asyncio.Future[Member] = self._loop.create_future()
        self._running = asyncio.create_task(channel.run())
        self._beating: asyncio.Task[None] | None = None

    @classmethod
    async def join(cls, assignment: Assignment, end: socket.socket) -> Self:
        """Return the membership over a worker's end of the channel."""
        handlers: dict[str, Callable[..., Awaitable[Any]]] = {}
        new = cls(assignment, await Channel.over(end, handlers))
        for name in ("stop", "reload", "steer", "samples", "load", "unload"):
            handlers[name] = getattr(new, f"_{name}")
        return new

    def attend(self, member: Member) -> None:
        """Do what the supervisor says from now on; if the supervisor ends, stop."""
        self._member.set_result(member)
        self._running.add_done_callback(lambda _: member.request_stop())
        self._beating = asyncio.create_task(self._beat(member))

    # Requests of the server in this worker.

    def try_one(self, file: ModelFile, timeout_s: float) -> Self:
        """Return the trials of the supervisor, which tries each file once for all workers."""
        return self

    def verdict(self, file: ModelFile) -> Future[str]:
        """Return a future of the identity of the file that was tried, or of the error."""
        return asyncio.run_coroutine_threadsafe(self._verdict(file), self._loop)

    async def _verdict(self, file: ModelFile) -> str:
        try:
            verdict = await self._channel.ask("verdict", **_as_json(file))
        except Closed as error:
            raise KINDS["CannotLoadNow"](f"{file.path}: not tried: {error}") from None
        if verdict is None:
            raise KINDS["CannotLoadNow"](f"{file.path}: its trial failed; see the server's log")
        if "identity" in verdict:
            return str(verdict["identity"])
        raise KINDS[verdict["kind"]](verdict["why"])

    def stop(self) -> None:
        """Nothing: the supervisor ends its trials."""

    def load_ended(self, file: ModelFile) -> None:
        """Tell that the load of a file has ended, from any thread."""
        with suppress(RuntimeError):  # the loop is closed: the worker ends
            self._loop.call_soon_threadsafe(
                lambda: self._channel.tell("load_ended", **_as_json(file))
            )

    async def all_loaded(self) -> None:
        """Return once this worker and, at the start of the server, all others can serve."""
        with suppress(Closed):  # the supervisor has ended, and so will this worker
            await self._channel.ask("loaded")

    def ready(self) -> None:
        """Tell that this worker serves."""
        self._channel.tell("ready")

    async def failed(self, why: str) -> None:
        """Tell why this worker can't start."""
        with suppress(Closed):
            await self._channel.ask("failed", why=why)

    async def together(self, own: list[Family]) -> list[Family]:
        """Return the metrics of all workers."""
        try:
            rows = [family.to_json() for family in own]
            total = await self._channel.ask("samples", _SAMPLES_S, families=rows)
        except Closed:
            return own
        return [Family.from_json(row) for row in total] if total else own

    async def load(self, name: str) -> None:
        """Load a model in all workers; raises ModelNotFound or CannotLoad."""
        await self._administer("load", name)

    async def unload(self, name: str) -> None:
        """Stop serving a model in all workers; raises ModelNotFound."""
        await self._administer("unload", name)

    async def _administer(self, action: str, name: str) -> None:
        try:
            failure = await self._channel.ask(action, model=name)
        except Closed as error:
            raise Unavailable(f"can't reach the other workers: {error}; retry") from None
        if failure:
            kind = _ERRORS.get(failure["kind"], CannotLoad)
            failed = kind(failure["why"])
            failed.field = "model_name"
            raise failed

    async def leave(self) -> None:
        """Tell the last metrics, and close the channel."""
        if self._beating is not None:
            self._beating.cancel()
            rows = [family.to_json() for family in self._member.result().families()]
            with suppress(Closed):
                await self._channel.ask("last_samples", _LAST_SAMPLES_S, families=rows)
        self._running.cancel()

    # Requests of the supervisor.

    async def _stop(self) -> None:
        (await self._member).request_stop()

    async def _reload(self) -> None:
        await (await self._member).reload()

    async def _steer(self, weights: list[int]) -> bool:
        return (await self._member).steer(weights)

    async def _samples(self) -> list[Any]:
        families = await asyncio.to_thread((await self._member).families)
        return [family.to_json() for family in families]

    async def _load(self, model: str) -> dict[str, str]:
        return await self._outcome(lambda administration: administration.load(model))

    async def _unload(self, model: str) -> dict[str, str]:
        return await self._outcome(lambda administration: administration.unload(model))

    async def _outcome(self, action: Callable[[Administration], Awaitable[None]]) -> dict[str, str]:
        """Return the kind and the reason of a failure; empty if there is none."""
        administration = (await self._member).administration()
        if administration is None:
            return {}
        try:
            await action(administration)
        except (ModelNotFound, CannotLoad) as error:
            return {"kind": type(error).__name__, "why": str(error)}
        return {}

    async def _beat(self, member: Member) -> None:
        """Tell how this worker is, again and again."""
        timeout_s = self.assignment.watchdog_s
        proof_s = timeout_s / _PINGS_PER_TIMEOUT if timeout_s else None
        proving: asyncio.Task[None] | None = None
        if proof_s is not None:
            proving = asyncio.create_task(self._prove(member, proof_s))
        try:
            while True:
                expected = time.monotonic() + BEAT_S
                await asyncio.sleep(BEAT_S)
                used = resource.getrusage(resource.RUSAGE_SELF)
                self._channel.tell(
                    "beat",
                    lag_s=max(0.0, time.monotonic() - expected),
                    busy=member.busy_connections(),
                    cpu_s=used.ru_utime + used.ru_stime,
                    rss_bytes=rss_bytes(),
                    trouble=member.trouble(),
                )
        finally:
            if proving is not None:
                proving.cancel()

    async def _prove(self, member: Member, interval_s: float) -> None:
        while True:
            if await member.proves_alive(interval_s):
                self._channel.tell("alive")
            await asyncio.sleep(interval_s)


def file_of(name: str, version: int, path: str) -> ModelFile:
    """Return a file from its form in a message."""
    return ModelFile(name, version, Path(path))


def _as_json(file: ModelFile) -> dict[str, Any]:
    return {"name": file.name, "version": file.version, "path": str(file.path)}


def rss_bytes(statm: Path = Path("/proc/self/statm")) -> int:
    """Return the memory of this process that is in RAM; 0: the system does not report it."""
    try:
        return int(statm.read_text("ascii").split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0
