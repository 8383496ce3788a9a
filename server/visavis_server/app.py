"""Builds, starts, reloads and stops the server: the only module that wires its parts together."""

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import structlog

from visavis_server import process
from visavis_server.api.inference.service import InferenceService
from visavis_server.api.inference.views import IMAGE_VIEW
from visavis_server.api.metrics.prometheus import Metrics
from visavis_server.api.vision.service import VisionService
from visavis_server.browser import open_page
from visavis_server.doors import Doors, missing_extra
from visavis_server.errors import ModelNotFound
from visavis_server.models.current import Models
from visavis_server.models.loader import Loader
from visavis_server.models.memory_plan import MemoryPlan, expected_bytes, plan_here
from visavis_server.models.planning import planner_of
from visavis_server.models.repository import Repository
from visavis_server.models.startup import Startup, first_look
from visavis_server.models.trial import Verdicts, try_one
from visavis_server.models.watcher import Watcher, reasons
from visavis_server.runtime import memory
from visavis_server.runtime.budget import Budget, peak_bytes
from visavis_server.runtime.scheduling.scheduler import Scheduler
from visavis_server.settings import Settings
from visavis_server.supervision.membership import Member, Membership
from visavis_server.telemetry import systemd
from visavis_server.transport import listeners
from visavis_server.transport.calls import Calls

if TYPE_CHECKING:
    from visavis_server.telemetry.otlp import Tracing

_log = structlog.get_logger()

# Watchdog pings to systemd within its timeout.
_PINGS_PER_TIMEOUT = 3
# The stop takes at most this much longer than the grace period: for threads that end, and in total.
_THREADS_S, _REST_S = 0.3, 2.0
_SCHEDULER_CHECK_INTERVAL_S = 1.0


class App:
    """One server, from its start to its stop.

    Call `run`, which handles signals, or `start` and `stop`. trial: tries the models before they
    are loaded; without it, a model that hangs or crashes takes the server with it. membership: of
    this worker; None: the server is one process.
    """

    def __init__(
        self,
        settings: Settings,
        trial: Verdicts | None = None,
        membership: Membership | None = None,
    ) -> None:
        """Build the server and bind its addresses. Raises StartupError."""
        self.settings = settings
        self._membership = membership
        memory.keep_little(settings.low_memory)
        self._look = first_look(settings.models)
        self._planner, self._why_provider = planner_of(settings, len(self._look.files))
        self._startup = Startup(self._look, trial, require_all=settings.require_all_models)
        self.scheduler = Scheduler(
            self._planner.cores,
            settings.queue_size,
            self._planner.streams,
            settings.max_queue_wait_s,
            settings.stuck_s,
        )
        plan = self._memory_plan(expected_bytes(file.path for file in self._look.files))
        self._budget = Budget(plan.budget_bytes, plan.working_bytes)
        self._build_telemetry()
        self._build_services()
        self._doors = Doors(
            settings, self._service, self._inference, self._calls, self._budget, self._metrics
        )
        if not self._is_late:
            self._doors.bind()
        self._watcher: Watcher | None = None
        self._stop_requested = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()

    def _build_telemetry(self) -> None:
        settings = self.settings
        self._metrics = Metrics(self.scheduler, self._budget, settings.triton_metrics)
        if self._membership is not None:
            self._metrics.together = self._membership.together
        self._tracing = _tracing(settings.trace) if settings.trace else None
        self._calls = Calls(
            self._metrics.record,
            log_calls=settings.log_level == "debug",
            around=self._tracing.around if self._tracing else None,
        )

    def _build_services(self) -> None:
        settings = self.settings
        limits = replace(settings.image_limits, budget=self._budget)
        self._models = Models()
        # Models whose picture view has the name of another model.
        self._shadowed: set[str] = set()
        self._service = VisionService(
            self._models, self.scheduler, limits, settings.max_annotated_bytes
        )
        self._inference = InferenceService(
            self._models, self.scheduler, limits, settings.max_message_bytes
        )

    @property
    def _is_late(self) -> bool:
        """True if other workers serve already: this one listens once it can serve as well."""
        return self._membership is not None and self._membership.assignment.late

    @property
    def port(self) -> int:
        """The gRPC port; 0 on a Unix socket."""
        return self._doors.port

    @property
    def address(self) -> str:
        """The gRPC address, with the actual port where the settings have port 0."""
        return self._doors.address

    @property
    def http_address(self) -> str | None:
        """The HTTP address; None if HTTP is off."""
        return self._doors.http_address

    @property
    def metrics_address(self) -> str | None:
        """The address of the metrics listener; None if it is off."""
        return self._doors.metrics_address

    @property
    def loading(self) -> bool:
        """True while a model loads at the start, which can't be interrupted."""
        return self._startup.loading

    def unfinished(self) -> list[str]:
        """Return the work that still runs, which would block or crash the end of the process."""
        loading = ["a model is being loaded"] if self.loading else []
        return [*self.scheduler.still_running(), *loading]

    async def run(self, stopping: Callable[[int], None] = lambda code: None) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second signal ends the process at once.

        SIGHUP reloads tokens, certificates and the repository. stopping: called with the exit code
        when the stop begins.
        """
        stop = self._stop_requested
        process.handle_signals(
            asyncio.get_running_loop(), stop, lambda: self._in_background(self._reload())
        )
        if self._membership is not None:
            self._membership.attend(self._member())
        starting = asyncio.create_task(self.start())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
        try:
            if starting.done():
                await starting
                await stopped
        finally:
            stopping(0 if stop.is_set() else 1)
            stopped.cancel()
            starting.cancel()
            await self.stop()

    async def start(self) -> None:
        """Listen at once; return when every servable model is loaded and verified.

        Raises StartupError if no model can be served, or, with require_all_models, if any can't.
        """
        started = time.monotonic()
        self._log_start()
        await self._doors.health.loading()
        if not self._is_late:
            await self._doors.open()
        loader = self._loader()
        models, refused = await self._startup.load_all(loader)
        if self._membership is not None:
            await self._membership.all_loaded()
        why = reasons(refused, self.settings.models)
        await self._publish(Repository((model for _, model in models), why))
        self._metrics.loaded_at_start = len(models)
        self._resize_budget()
        await self._watch(
            Watcher(
                self._look,
                loader,
                models,
                self._publish,
                self.settings.load_timeout_s,
                refused,
                try_one if self._membership is None else self._membership.try_one,
            )
        )
        if self._is_late:
            self._doors.bind()
            await self._doors.open()
        self._report_life()
        _log.info(
            "ready",
            listen=self.address,
            http=self.http_address,
            metrics=self.metrics_address,
            models=len(models),
            refused=len(refused),
            seconds=round(time.monotonic() - started, 2),
        )
        if self.settings.open and self._membership is None and self.http_address:
            open_page(self.http_address, tls=self._doors.uses_tls)

    def _loader(self) -> Loader:
        loader = Loader(self._planner, self.scheduler, self.settings.engine_dir())
        if self._membership is None:
            return loader
        shared_dir = self._membership.assignment.shared_dir
        return replace(loader, ended=self._membership.load_ended, shared_dir=shared_dir)

    def _log_start(self) -> None:
        _log.info(
            "starting",
            visavis=version("visavis-server"),
            provider=self._planner.provider.name,
            why=self._why_provider,
            cores=self.scheduler.cores,
        )
        for note in self.settings.notes if self._membership is None else ():
            _log.warning("settings", why=note)

    async def _publish(self, repository: Repository) -> None:
        """Serve these models from now on; calls under way keep theirs."""
        shadowed = set(filter(lambda name: repository.knows(name + IMAGE_VIEW), repository.names()))
        for name in sorted(shadowed - self._shadowed):
            why = f"another model is named {name}{IMAGE_VIEW}; rename it to serve both"
            _log.warning("no picture view", model=name, why=why)
        self._shadowed = shadowed
        self._models.serve(repository)
        self._metrics.models = repository.all()
        await self._doors.health.ready(repository.names())

    def _memory_plan(self, taken_bytes: int) -> MemoryPlan:
        share = self._membership.assignment.usable_bytes if self._membership else None
        return plan_here(self.settings, taken_bytes, share)

    def _resize_budget(self) -> None:
        """Give calls the memory that the loaded models have left."""
        plan = self._memory_plan(peak_bytes())
        self._budget.resize(plan.budget_bytes, plan.working_bytes)
        write = _log.warning if plan.is_short else _log.info
        write("memory for calls", mib=plan.budget_bytes >> 20, why=plan.why)

    async def _watch(self, watcher: Watcher) -> None:
        """Let the watcher serve reloads, administration, and checks of the folder."""
        self._watcher = self._metrics.watcher = watcher
        membership = self._membership
        if self.settings.admin:
            self._inference.administration = watcher if membership is None else membership
        for name in membership.assignment.unloaded if membership else ():
            with suppress(ModelNotFound):
                await watcher.unload(name)
        if self.settings.watch_interval_s:
            self._in_background(watcher.watch(self.settings.watch_interval_s))

    def _report_life(self) -> None:
        """Report to systemd that the server is ready, and its health from now on."""
        self._in_background(self._watch_scheduler())
        if self._membership is not None:
            self._membership.ready()
            return
        systemd.notify("READY=1")
        if (timeout_s := systemd.watchdog_s()) is not None:
            self._in_background(self._ping_watchdog(timeout_s / _PINGS_PER_TIMEOUT))

    def _member(self) -> Member:
        """Return what the supervisor may ask of this worker."""
        return Member(
            request_stop=self._stop_requested.set,
            reload=self._reload,
            steer=self._doors.steer,
            families=self._metrics.families,
            administration=lambda: self._watcher,
            busy_connections=self._doors.busy_connections,
            trouble=self.scheduler.trouble,
            proves_alive=self._service.proves_alive,
        )

    async def _watch_scheduler(self) -> None:
        """Report to health when a core is stuck or its thread dead, and when that has passed."""
        known = ""
        while True:
            trouble = self.scheduler.trouble()
            if bool(trouble) != bool(known):
                if trouble:
                    _log.error("the server is stuck", why=trouble)
                else:
                    _log.info("the server is no longer stuck")
                await self._doors.health.sound(not trouble)
            known = trouble
            await asyncio.sleep(_SCHEDULER_CHECK_INTERVAL_S)

    async def _ping_watchdog(self, interval_s: float) -> None:
        """Ping systemd's watchdog whenever a model has answered within the interval."""
        while True:
            if await self._service.proves_alive(interval_s):
                systemd.notify("WATCHDOG=1")
            await asyncio.sleep(interval_s)

    async def _reload(self) -> None:
        """Reload tokens, certificates and the repository."""
        _log.info("reloading tokens, certificates and the repository")
        self._doors.reload()
        if self._watcher is not None:
            await self._watcher.reload()

    async def stop(self) -> None:
        """Reject new calls and let those in flight finish within the grace period.

        After it the remaining calls are cancelled and their runs ended; work that still does not
        end is abandoned.
        """
        systemd.notify("STOPPING=1")
        self._startup.stop()
        await self._doors.health.stopping()
        _log.info("stopping", grace_s=self.settings.grace_s)
        for task in self._background:
            task.cancel()
        await self._drain()
        self.scheduler.close(0)
        with suppress(TimeoutError):
            async with asyncio.timeout(_THREADS_S):
                while self.scheduler.still_running():
                    await asyncio.sleep(0.01)
                if self._tracing:
                    await asyncio.to_thread(self._tracing.close)
        if self._membership is not None:
            await self._membership.leave()
        _log.info("stopped")

    async def _drain(self) -> None:
        """Wait for the calls in flight, then close the listeners."""
        # The listeners stay open until the last call has its answer, so that new calls and health
        # checks are answered that the server is stopping. Afterwards they could not even connect.
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.grace_s):
                await self._calls.finish()
        await self._doors.close()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def serve(
    settings: Settings, trial: Verdicts | None, membership: Membership | None = None
) -> None:
    """Serve until a signal stops it; raises StartupError if it can't start. The rest: as in App."""
    app = App(listeners.within_descriptors(settings), trial, membership)
    # Objects that exist by now stay: exempt them from garbage collections.
    gc.freeze()

    def stopping(code: int) -> None:
        process.end_within(settings.grace_s + _REST_S, code, app.unfinished)

    await app.run(stopping)
    if app.unfinished():
        process.end(0, app.unfinished)


def _tracing(endpoint: str) -> "Tracing":
    try:
        from visavis_server.telemetry.otlp import Tracing
    except ModuleNotFoundError as error:
        raise missing_extra("trace", "trace", error) from None
    return Tracing.to(endpoint)
