"""The supervisor: starts workers, replaces those that end, and speaks for all of them."""

import asyncio
import ctypes
import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import structlog

from visavis_server import process
from visavis_server.browser import open_page
from visavis_server.errors import StartupError
from visavis_server.models.trial import Verdicts
from visavis_server.runtime.budget import usable_bytes
from visavis_server.settings import Settings
from visavis_server.supervision.balance import balance
from visavis_server.supervision.channel import Channel, Closed, Handlers
from visavis_server.supervision.division import Assignment, core_ids, settings_of
from visavis_server.supervision.membership import file_of
from visavis_server.supervision.reservation import Reservation
from visavis_server.supervision.template import Template
from visavis_server.supervision.verdicts import SharedVerdicts, Verdict
from visavis_server.supervision.worker_handle import WorkerHandle, processes
from visavis_server.telemetry import systemd
from visavis_server.telemetry.samples import Family, combined, counts

_log = structlog.get_logger()

_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h
_CHECK_S: Final = 1.0
# A worker stops by itself within the grace period and 2 s; then it is killed.
_REST_S: Final = 3.0
_SAMPLES_S: Final = 2.0
# A worker that ends so often before the server is ready ends the server.
_MOST_EARLY_ENDS: Final = 3


class Supervisor:
    """Runs workers until a signal stops them.

    trial: has begun to try the models. template: the process that workers are forked from.
    shared_dir: an empty folder for weights; None: there is none. colors: of the log.
    """

    def __init__(
        self,
        settings: Settings,
        trial: Verdicts,
        template: Template,
        shared_dir: Path | None,
        *,
        colors: bool,
    ) -> None:
        assert settings.workers != "auto"
        count = settings.workers
        self._settings = settings
        self._colors = colors
        self._trial = trial
        self._template = template
        self._shared_dir = shared_dir
        self._workers = [WorkerHandle(number) for number in range(1, count + 1)]
        self._ended: list[Family] = []
        # The last load or unload by a client, with its time, by model.
        self._administered: dict[str, tuple[str, float]] = {}
        self._stop = asyncio.Event()
        self._all_loaded = asyncio.Event()
        self._all_ready = asyncio.Event()
        self._failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._child_ended = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None
        self._watchdog_s = systemd.watchdog_s()
        usable = usable_bytes()
        # The memory free now is shared; a worker's share is the same whenever it starts.
        self._share_bytes = None if usable is None else usable // count

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second signal ends all at once.

        Raises StartupError.
        """
        _adopt_orphans()
        loop = asyncio.get_running_loop()
        process.handle_signals(loop, self._stop, self._reload, self._end_workers)
        loop.add_signal_handler(signal.SIGCHLD, self._child_ended.set)
        self._reservation = Reservation(self._settings)
        self._verdicts = SharedVerdicts(
            self._trial, self._settings.load_timeout_s, self._drop_weights
        )
        self._in_background(self._reap())
        started = time.monotonic()
        try:
            for worker in self._workers:
                self._in_background(self._start(worker))
            if await self._until_ready():
                self._log_ready(started)
                self._in_background(self._check())
                address = self._reservation.settings.grpc
                self._in_background(balance(address, self._serving, self._busy, self._steer))
                await self._stop.wait()
        finally:
            await self._drain()
        if self._error is not None:
            raise self._error

    def _end_workers(self) -> None:
        """Kill all workers, and remove their weights."""
        for worker in self._workers:
            worker.kill()
        if self._shared_dir is not None:
            shutil.rmtree(self._shared_dir, ignore_errors=True)

    def _reload(self) -> None:
        _log.info("reloading all workers")
        self._tell_all("reload")

    def _tell_all(self, name: str) -> None:
        for worker in self._workers:
            worker.tell(name)

    async def _until_ready(self) -> bool:
        """Return True once all workers serve, False if a signal stops them before that."""
        ready = asyncio.ensure_future(self._all_ready.wait())
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((ready, stopped, self._failed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in (ready, stopped):
                waiting.cancel()
        if self._failed.done() and not self._stop.is_set():
            raise StartupError(self._failed.result())
        return self._all_ready.is_set() and not self._stop.is_set()

    def _log_ready(self, started: float) -> None:
        self._verdicts.start_ended()
        systemd.notify("READY=1")
        place = self._reservation.settings
        _log.info(
            "all workers ready",
            listen=place.grpc,
            http=place.http,
            metrics=place.metrics,
            workers=len(self._workers),
            seconds=round(time.monotonic() - started, 2),
        )
        if place.open and place.http:
            open_page(place.http, tls=place.tls_certificate is not None)

    # The life of a worker.

    async def _start(self, worker: WorkerHandle, delay_s: float = 0.0) -> None:
        await asyncio.sleep(delay_s)
        assignment = self._assignment(worker.number)
        json_log = self._settings.log_format == "json"
        try:
            await worker.start(
                self._template, assignment, self._handlers(worker), json_log=json_log
            )
        except StartupError as error:
            self._fail(str(error))
            _log.error("a worker can't be started", worker=worker.number, why=str(error))
            if not self._stop.is_set() and self._all_ready.is_set():
                self._in_background(self._start(worker, worker.delay_s() or 1.0))
            return
        if self._stop.is_set():
            worker.tell("stop")

    def _assignment(self, number: int) -> Assignment:
        count = len(self._workers)
        return Assignment(
            number=number,
            settings=dict(settings_of(self._reservation.settings, number, count)),
            cores=core_ids(number, count),
            usable_bytes=self._share_bytes,
            shared_dir=self._shared_dir,
            late=self._all_loaded.is_set(),
            colors=self._colors,
            watchdog_s=self._watchdog_s,
            unloaded=tuple(
                model for model, (action, _) in self._administered.items() if action == "unload"
            ),
        )

    async def _reap(self) -> None:
        """Replace workers that end."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_S):
                    await self._child_ended.wait()
            self._child_ended.clear()
            for worker in self._workers:
                pid = worker.pid
                if (how := worker.ended()) is not None:
                    await self._after_end(worker, pid, how)

    async def _after_end(self, worker: WorkerHandle, pid: int, how: str) -> None:
        await worker.leave()
        self._verdicts.ended(worker.number)
        self._ended = counts(worker.samples, worker.number, self._ended)
        worker.samples = []
        if self._stop.is_set():
            return
        delay_s = worker.delay_s()
        worker.ready_at = None
        _log.error(
            "worker ended",
            worker=worker.number,
            pid=pid,
            how=how,
            next_in_s=delay_s,
            early=worker.early_ends,
        )
        if not self._all_loaded.is_set() and worker.early_ends >= _MOST_EARLY_ENDS:
            self._fail(f"worker {worker.number} ended {how}, {worker.early_ends} times in a row")
            return
        self._in_background(self._start(worker, delay_s))

    def _drop_weights(self, identity: str) -> None:
        """Remove the shared weights of a file; sessions that have mapped them keep them."""
        if self._shared_dir is None:
            return
        folder = self._shared_dir / identity
        self._in_background(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))

    def _fail(self, why: str) -> None:
        """End the server, unless it is ready."""
        if not (self._all_ready.is_set() or self._failed.done()):
            self._failed.set_result(why)

    async def _check(self) -> None:
        """Kill workers that hang, and replace those that are stuck."""
        while True:
            await asyncio.sleep(_CHECK_S)
            for worker in self._workers:
                if worker.pid and (why := worker.why_kill(self._watchdog_s)):
                    _log.error("worker killed", worker=worker.number, why=why)
                    worker.kill()

    def _serving(self) -> dict[int, int]:
        """Return the processes of the workers that serve; empty until all do."""
        pids = {worker.number: worker.pid for worker in self._workers if worker.ready_at}
        return pids if len(pids) == len(self._workers) else {}

    def _busy(self) -> dict[int, int]:
        return {worker.number: worker.busy for worker in self._workers if not worker.is_late}

    async def _steer(self, weights: Sequence[int]) -> bool:
        # Any worker can steer for all of them, unless it hangs.
        channel = max(self._workers, key=lambda worker: worker.heard_at).channel
        if channel is None:
            return False
        try:
            return bool(await channel.ask("steer", _SAMPLES_S, weights=list(weights)))
        except Closed:
            return False

    async def _drain(self) -> None:
        """Stop all workers; kill those that do not end in time."""
        self._stop.set()
        systemd.notify("STOPPING=1")
        grace_s = self._settings.grace_s
        _log.info("stopping all workers", grace_s=grace_s)
        self._tell_all("stop")
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s + _REST_S):
                while any(worker.pid for worker in self._workers):
                    await asyncio.sleep(0.02)
        for worker in self._workers:
            if worker.pid:
                _log.error("worker killed", worker=worker.number, why="it did not stop in time")
                worker.kill()
        for task in self._background:
            task.cancel()
        for worker in self._workers:
            await worker.leave()
        _log.info("all workers stopped")

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._after_background)

    def _after_background(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A supervisor that replaces no workers any more must not seem well.
            self._error = error
            self._stop.set()

    # Messages from workers.

    def _handlers(self, worker: WorkerHandle) -> Handlers:
        named: dict[str, Callable[..., Awaitable[Any]]] = {
            "verdict": self._verdict,
            "load_ended": self._load_ended,
            "loaded": self._loaded,
            "ready": self._ready,
            "failed": self._worker_failed,
            "beat": self._beat,
            "alive": self._alive,
            "samples": self._samples,
            "last_samples": self._last_samples,
            "load": partial(self._administer, "load"),
            "unload": partial(self._administer, "unload"),
        }
        return {name: partial(handle, worker) for name, handle in named.items()}

    async def _verdict(self, worker: WorkerHandle, **file: Any) -> Verdict:
        return await self._verdicts.verdict(worker.number, file_of(**file))

    async def _load_ended(self, worker: WorkerHandle, **file: Any) -> None:
        self._verdicts.load_ended(worker.number, file_of(**file))

    async def _loaded(self, worker: WorkerHandle) -> None:
        """Answer once all workers are loaded: the health of the server is that of all."""
        worker.loaded = True
        if all(each.loaded for each in self._workers):
            self._all_loaded.set()
        await self._all_loaded.wait()

    async def _ready(self, worker: WorkerHandle) -> None:
        worker.ready()
        # Repeat the loads and unloads that it missed while it was starting.
        for model, (action, when) in self._administered.items():
            if when > worker.started_at and worker.channel is not None:
                await _asked(worker.channel, action, model)
        if self._all_ready.is_set():
            _log.info("worker replaced", worker=worker.number, pid=worker.pid)
        elif all(each.ready_at is not None for each in self._workers):
            self._all_ready.set()

    async def _worker_failed(self, worker: WorkerHandle, why: str) -> None:
        self._fail(why)
        if self._all_ready.is_set():
            _log.error("a worker can't start", why=why, worker=worker.number)

    async def _beat(
        self,
        worker: WorkerHandle,
        lag_s: float,
        busy: int,
        cpu_s: float,
        rss_bytes: int,
        trouble: str,
    ) -> None:
        worker.heard_at = time.monotonic()
        worker.lag_s, worker.busy = lag_s, busy
        worker.cpu_s, worker.rss_bytes = cpu_s, rss_bytes
        if trouble and not worker.replacing:
            _log.error("a worker is stuck and is replaced", worker=worker.number, why=trouble)
            worker.replacing = True
            worker.tell("stop")

    async def _alive(self, worker: WorkerHandle) -> None:
        worker.proved_at = time.monotonic()
        if self._all_ready.is_set():
            systemd.notify("WATCHDOG=1")

    async def _samples(self, worker: WorkerHandle, families: list[Any]) -> list[Any]:
        """Return the metrics of all workers together."""
        worker.samples = [Family.from_json(row) for row in families]
        others = [each for each in self._workers if each is not worker and each.channel]
        await asyncio.gather(*map(_refresh, others))
        by_worker = {each.number: each.samples for each in self._workers}
        total = combined(by_worker, self._ended) + processes(self._workers)
        return [family.to_json() for family in total]

    async def _last_samples(self, worker: WorkerHandle, families: list[Any]) -> None:
        worker.samples = [Family.from_json(row) for row in families]

    async def _administer(self, action: str, worker: WorkerHandle, model: str) -> dict[str, str]:
        """Load or unload a model in all workers; returns the first failure."""
        channels = [each.channel for each in self._workers if each.channel and each.ready_at]
        outcomes = await asyncio.gather(*(_asked(channel, action, model) for channel in channels))
        failures = [outcome for outcome in outcomes if outcome]
        if not failures:
            self._administered[model] = action, time.monotonic()
        return failures[0] if failures else {}


async def supervise(settings: Settings, trial: Verdicts, *, colors: bool) -> None:
    """Serve in workers until a signal stops them; raises StartupError if they can't start."""
    template = Template("visavis_server.worker")
    try:
        about = {"visavis": version("visavis-server"), "workers": settings.workers}
        _log.info("starting workers", **about)
        for note in settings.notes:
            _log.warning("settings", why=note)
        with _folder_for_weights() as folder:
            await Supervisor(settings, trial, template, folder, colors=colors).run()
    finally:
        template.stop()


@contextmanager
def _folder_for_weights() -> Iterator[Path | None]:
    """Yield a temporary folder for this user alone; None if there can't be one."""
    with ExitStack() as stack:
        folder = None
        try:
            temporary = TemporaryDirectory(prefix="visavis-", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(temporary))
            # systemd-tmpfiles empties folders that are not locked after some days.
            lock = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_SH)
        except OSError as error:
            _log.warning("each worker holds the weights", why=f"no temporary folder: {error}")
        yield folder


async def _refresh(worker: WorkerHandle) -> None:
    """Ask a worker for its metrics; if it does not answer, the last ones count."""
    assert worker.channel is not None
    with suppress(Closed):
        if (rows := await worker.channel.ask("samples", _SAMPLES_S)) is not None:
            worker.samples = [Family.from_json(row) for row in rows]


async def _asked(channel: Channel, action: str, model: str) -> dict[str, str]:
    try:
        return await channel.ask(action, model=model) or {}
    except Closed:  # it is being replaced, and its replacement reads the folder
        return {}


def _adopt_orphans() -> None:
    """Become the parent of workers: the template forks each from a process that ends at once."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
