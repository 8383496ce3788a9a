"""Builds, starts and drains the server: the only place where objects are wired."""

import asyncio
import gc
import os
import signal
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from grpc_reflection.v1alpha import reflection
from visavis.v1 import vision_pb2

from visavis_server import log, process
from visavis_server.api.inference import grpc_service_pb2, tensors
from visavis_server.api.inference.service import InferenceService
from visavis_server.api.inference.views import IMAGE_VIEW
from visavis_server.api.metrics.prometheus import Metrics
from visavis_server.api.vision.service import VisionService
from visavis_server.errors import StartupError
from visavis_server.models.current import Models
from visavis_server.models.memory_plan import expected_bytes, health_bytes, plan_here
from visavis_server.models.model_files import Look, ModelFile, look_at, within_a_model
from visavis_server.models.planning import planner_of
from visavis_server.models.repository import Loader, Repository
from visavis_server.models.served_model import ServedModel
from visavis_server.models.trial import Trial
from visavis_server.models.watcher import Refusal, Watcher, reasons
from visavis_server.runtime import memory
from visavis_server.runtime.budget import Budget, peak_bytes
from visavis_server.runtime.scheduling.scheduler import Scheduler
from visavis_server.settings import Settings
from visavis_server.telemetry import systemd
from visavis_server.transport import listeners
from visavis_server.transport.calls import Calls
from visavis_server.transport.certificates import Certificates
from visavis_server.transport.grpc.authentication import Authentication
from visavis_server.transport.grpc.handlers import handlers_of
from visavis_server.transport.grpc.health import Health
from visavis_server.transport.grpc.interceptors import CallInterceptor
from visavis_server.transport.intake import Intake
from visavis_server.transport.tokens import Tokens

if TYPE_CHECKING:
    from visavis_server.telemetry.otlp import Tracing
    from visavis_server.transport.http.server import HttpServer

_log = structlog.get_logger()

# How often the server proves to itself that it is alive within the time that systemd allows.
_PROOFS = 3
# How long a health check's message may take while others wait.
_HEALTH_TURN_S = 0.1
# For what is on its way to clients when the last call has ended.
_LAST_WORDS_S = 0.5
# What the stop takes beyond the grace period at most: of the doors, of threads that end, in all.
_DOORS_S, _THREADS_S, _REST_S = 1.4, 0.3, 2.0
# How often the scheduler is asked whether its threads live.
_SOUND_EVERY_S = 1.0


class App:
    """One server, from its start to its stop.

    Use `start`, then `run`; or `start` and `stop` where something else decides when. trial: tries
    the models before they are loaded; without it they are trusted not to hang or crash the start.
    """

    def __init__(self, settings: Settings, trial: Trial | None = None) -> None:
        self.settings = settings
        self._trial = trial
        memory.keep_little(settings.low_memory)
        self._planner, self._why = planner_of(settings)
        self._look = _model_files(settings)
        self.scheduler = Scheduler(
            self._planner.cores,
            settings.queue_size,
            self._planner.streams,
            settings.max_queue_wait_s,
            settings.stuck_s,
        )
        plan = plan_here(settings, expected_bytes(file.path for file in self._look.files))
        self._budget = Budget(plan.budget_bytes, plan.working_bytes)
        self._metrics = Metrics(self.scheduler, self._budget, settings.triton_metrics)
        self._tracing = _tracing(settings.trace) if settings.trace else None
        self._calls = Calls(
            self._metrics.record,
            log_calls=settings.log_level == "debug",
            around=self._tracing.around if self._tracing else None,
        )
        intake = Intake(
            self._budget,
            settings.message_timeout_s,
            settings.max_arriving,
            settings.max_arriving_per_connection,
            settings.contended_turn_s,
        )
        # Messages of health are small: one turn is enough, and none that stalls keeps it.
        health_intake = Intake(
            Budget(health_bytes(settings)),
            settings.message_timeout_s,
            at_once=1,
            per_connection=1,
            turn_s=_HEALTH_TURN_S,
        )
        limits = replace(settings.image_limits, budget=self._budget)
        self._models = Models()
        # Models whose picture view has the name of another model.
        self._shadowed: set[str] = set()
        self._service = VisionService(
            self._models, self.scheduler, limits, settings.max_annotated_bytes
        )
        interceptors: list[grpc.aio.ServerInterceptor] = [  # type: ignore[type-arg]
            CallInterceptor(
                self._calls,
                intake,
                health_intake,
                self._service.admission(),
                settings.max_message_bytes,
                settings.message_limits,
            )
        ]
        tokens = Tokens(settings.tokens) if settings.tokens else None
        if tokens:
            # First: who may not come in learns nothing else.
            interceptors.insert(0, Authentication(tokens, settings.open_health))
        self._server = grpc.aio.server(
            interceptors=interceptors, options=listeners.grpc_options(settings)
        )
        self._inference = InferenceService(
            self._models, self.scheduler, limits, settings.max_message_bytes
        )
        vision = vision_pb2.DESCRIPTOR.services_by_name["VisionService"]
        inference = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        self._server.add_generic_rpc_handlers(
            (
                handlers_of(vision, self._service),
                handlers_of(inference, self._inference, {"ModelInferRequest": tensors.Request}),
            )
        )
        self._health = Health(self._server)
        if settings.reflection:
            reflection.enable_server_reflection(
                [
                    vision.full_name,
                    inference.full_name,
                    "grpc.health.v1.Health",
                    reflection.SERVICE_NAME,
                ],
                self._server,
            )
        certificates = Certificates.of(settings)
        self._watched_files = [each.files for each in (tokens, certificates) if each]
        self.port = listeners.bind(self._server, settings, certificates)
        self._http = self._http_door(intake, tokens, certificates) if settings.http else None
        self._metrics_door = self._new_metrics_door() if settings.metrics else None
        self._http_servers = [door for door in (self._http, self._metrics_door) if door]
        self._watcher: Watcher | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._loads = ThreadPoolExecutor(1, "load")
        self._loading: Future[ServedModel] | None = None

    async def start(self) -> None:
        """Listen at once, and be ready when every model that can be served is loaded and verified.

        Raises StartupError if none can be served, or, with require_all_models, if any can't.
        """
        started = time.monotonic()
        _log.info(
            "starting",
            visavis=version("visavis-server"),
            provider=self._planner.provider.name,
            why=self._why,
            cores=self.scheduler.cores,
        )
        for note in self.settings.notes:
            _log.warning("settings", why=note)
        await self._health.loading()
        await self._server.start()
        for door in self._http_servers:
            await door.start()
        loader = Loader(self._planner, self.scheduler, self.settings.engine_dir())
        models: list[tuple[ModelFile, ServedModel]] = []
        refused: dict[ModelFile, Refusal] = {}
        for file, seen in self._look.files.items():
            try:
                models.append((file, await self._load(loader, file)))
            except StartupError as error:
                if self.settings.require_all_models:
                    raise
                refused[file] = Refusal.of(seen, error)
                _log.error("refused", model=str(file), why=str(error))
        if not models:
            raise StartupError(
                f"none of the models in {self.settings.models} can be served; "
                f"the first: {next(iter(refused.values())).why}"
            )
        why = reasons(refused, self.settings.models)
        await self._publish(Repository((model for _, model in models), why))
        self._metrics.loaded_at_start = len(models)
        self._plan_memory()
        self._watcher = self._metrics.watcher = watcher = Watcher(
            self._look,
            loader,
            models,
            self._publish,
            self.settings.load_timeout_s,
            refused,
        )
        if self.settings.admin:
            self._inference.administration = watcher
        if self.settings.watch_interval_s:
            self._in_background(watcher.watch(self.settings.watch_interval_s))
        self._in_background(self._watch_scheduler())
        systemd.notify("READY=1")
        if (within_s := systemd.watchdog_s()) is not None:
            self._in_background(self._prove_alive(within_s / _PROOFS))
        _log.info(
            "ready",
            listen=self.address,
            http=self.http_address,
            metrics=self.metrics_address,
            models=len(models),
            refused=len(refused),
            seconds=_seconds_since(started),
        )

    @property
    def address(self) -> str:
        """Where the server listens; with the port that was found where 0 was asked for."""
        if self.settings.grpc.startswith("unix:"):
            return self.settings.grpc
        return f"{self.settings.grpc.rpartition(':')[0]}:{self.port}"

    @property
    def http_address(self) -> str | None:
        """Where HTTP is served; None: nowhere."""
        return self._http.address if self._http else None

    @property
    def metrics_address(self) -> str | None:
        """Where Prometheus reads; None: nowhere, or over HTTP alone."""
        return self._metrics_door.address if self._metrics_door else None

    @property
    def loading(self) -> bool:
        """Whether a model is being loaded for the start, which nothing can interrupt."""
        return self._loading is not None and self._loading.running()

    def unfinished(self) -> list[str]:
        """Return what still runs that Python would wait for, or that would break its end."""
        loading = ["a model is being loaded"] if self.loading else []
        return [*self.scheduler.still_running(), *loading]

    async def run(self, stopping: Callable[[int], None] = lambda code: None) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second one ends it at once.

        SIGHUP reads tokens, certificates and the repository again. stopping: is told the exit
        code when the stop begins.
        """
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def signalled(number: signal.Signals) -> None:
            if stop.is_set():
                _log.warning("ended at once", signal=number.name)
                log.flush()
                os._exit(128 + number)
            stop.set()

        for name in process.STOPS:
            loop.add_signal_handler(name, signalled, name)
        for name in process.HARMLESS:
            loop.add_signal_handler(name, partial(_log.info, "signal ignored", signal=name.name))
        loop.add_signal_handler(signal.SIGHUP, lambda: self._in_background(self._reload()))
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

    async def stop(self) -> None:
        """Refuse new calls, let those in flight finish within the grace period.

        Those that haven't finished by then are cancelled, and their runs ended; what goes on
        nevertheless is left to itself.
        """
        systemd.notify("STOPPING=1")
        if self._trial:
            self._trial.stop()
        await self._health.stopping()
        _log.info("stopping", grace_s=self.settings.grace_s)
        for task in self._background:
            task.cancel()
        # Until the last is answered, new calls hear that the server stops, and health says so:
        # once gRPC itself stops, they could only try to connect.
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.grace_s):
                await self._calls.finish()
        with suppress(TimeoutError):
            async with asyncio.timeout(_DOORS_S):
                await asyncio.gather(
                    self._server.stop(_LAST_WORDS_S),
                    *(door.stop() for door in self._http_servers),
                )
        self._loads.shutdown(wait=False)
        self.scheduler.close(0)
        with suppress(TimeoutError):
            async with asyncio.timeout(_THREADS_S):
                while self.scheduler.still_running():
                    await asyncio.sleep(0.01)
                if self._tracing:
                    await asyncio.to_thread(self._tracing.close)
        _log.info("stopped")

    async def _reload(self) -> None:
        """Read tokens, certificates and the repository again."""
        _log.info("reading tokens, certificates and the repository again")
        for files in self._watched_files:
            files.look_soon()
        if self._watcher is not None:
            await self._watcher.reload()

    def _http_door(
        self, intake: Intake, tokens: Tokens | None, certificates: Certificates | None
    ) -> "HttpServer":
        try:
            from visavis_server.transport.http.listener import http_listener
        except ModuleNotFoundError as error:
            raise _missing("http", "http", error) from None
        return http_listener(
            self.settings,
            self._service,
            self._calls,
            intake,
            tokens,
            certificates,
            self._metrics.rendered,
        )

    def _new_metrics_door(self) -> "HttpServer":
        try:
            from visavis_server.transport.http.server import metrics_listener
        except ModuleNotFoundError as error:
            raise _missing("metrics", "http", error) from None
        return metrics_listener(self.settings, self._metrics.rendered)

    def _plan_memory(self) -> None:
        """Give calls the memory that the models, now loaded, have left."""
        plan = plan_here(self.settings, peak_bytes())
        self._budget.resize(plan.budget_bytes, plan.working_bytes)
        say = _log.warning if plan.is_short else _log.info
        say("memory for calls", mib=plan.budget_bytes >> 20, why=plan.why)

    async def _publish(self, repository: Repository) -> None:
        """Answer from these models from now on; calls under way keep those that they have."""
        shadowed = set(filter(lambda name: repository.knows(name + IMAGE_VIEW), repository.names()))
        for name in sorted(shadowed - self._shadowed):
            why = f"{name}{IMAGE_VIEW} is a model of its own; rename it to serve both"
            _log.warning("no picture view", model=name, why=why)
        self._shadowed = shadowed
        self._models.serve(repository)
        self._metrics.models = repository.all()
        await self._health.ready(repository.names())

    async def _load(self, loader: Loader, file: ModelFile) -> ServedModel:
        """Load a model once it has passed its trial; raises StartupError."""
        started = time.monotonic()
        tried = self._trial.verdict(file) if self._trial else None
        self._loading = self._loads.submit(loader.load, file, tried)
        try:
            model = await asyncio.wrap_future(self._loading)
        finally:
            if self._loading.done():  # It holds the model, which a reload is to free.
                self._loading = None
        _log.info(
            "loaded",
            model=str(file),
            task=str(model.task),
            precision=model.document.precision,
            provider=model.served_by.execution_provider,
            plan=str(model.plan),
            why=model.plan.why,
            seconds=_seconds_since(started),
        )
        if not (model.verification.digest and model.verification.golden_sample):
            _log.warning(
                "not verified",
                model=file.name,
                why="the file has no digest or no golden sample",
            )
        if model.served_by.random_weights:
            _log.warning("RANDOM WEIGHTS", model=file.name, meaning="its answers mean nothing")
        return model

    async def _watch_scheduler(self) -> None:
        """Let health tell when a core is stuck, or its thread dead, and when it no longer is."""
        known = ""
        while True:
            trouble = self.scheduler.trouble()
            if bool(trouble) != bool(known):
                if trouble:
                    _log.error("the server is stuck", why=trouble)
                else:
                    _log.info("the server is stuck no more")
                await self._health.sound(not trouble)
            known = trouble
            await asyncio.sleep(_SOUND_EVERY_S)

    async def _prove_alive(self, every_s: float) -> None:
        """Tell systemd that the server is alive, each time that a model has just answered."""
        while True:
            if await self._service.proves_alive(every_s):
                systemd.notify("WATCHDOG=1")
            await asyncio.sleep(every_s)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def serve(settings: Settings, trial: Trial | None) -> None:
    """Serve until told to stop; raises StartupError if that can't begin. trial: as of App."""
    app = App(listeners.within_descriptors(settings), trial)
    # What is there by now stays: the garbage collector need not look at it again and again.
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
        raise _missing("trace", "trace", error) from None
    return Tracing.to(endpoint)


def _missing(setting: str, extra: str, error: ModuleNotFoundError) -> StartupError:
    return StartupError(f"--{setting} needs {error.name}: pip install 'visavis-server[{extra}]'")


def _model_files(settings: Settings) -> Look:
    look = look_at(settings.models)
    passed_over = look.not_served()
    for why in passed_over:
        _log.warning("passed over", why=why)
    if not look.files and within_a_model(settings.models):
        raise StartupError(
            f"{settings.models} is the folder of one model, or of one version; name the model "
            "repository above it with --models"
        )
    if not look.files:
        first = f" ({passed_over[0]})" if passed_over else ""
        raise StartupError(
            f"the model repository {settings.models} holds no <name>/<version>/model.onnx{first}; "
            f"export one with `visavis export resnet50 yolov5n --out {settings.models}`"
        )
    return look


def _seconds_since(started: float) -> float:
    return round(time.monotonic() - started, 2)
