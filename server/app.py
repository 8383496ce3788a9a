"""Builds, starts and drains the server: the only place where objects are wired."""

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from importlib.metadata import version

import grpc
import structlog
from grpc_reflection.v1alpha import reflection
from visavis.v1 import vision_pb2, vision_pb2_grpc

from server.errors import StartupError
from server.health import Health
from server.interceptors import Errors
from server.log import configure_logging
from server.metrics import Metrics, serve_metrics
from server.planning import planner_of
from server.repository import Loader, ModelFile, Repository, scan
from server.scheduler import Scheduler
from server.served_model import ServedModel
from server.settings import Settings
from server.vision_service import VisionService

_log = structlog.get_logger()


class App:
    """One server, from its start to its stop.

    Use `start`, then `run`; or `start` and `stop` where something else decides when.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._planner, self._why = planner_of(settings)
        self._files = _model_files(settings)
        self.scheduler = Scheduler(self._planner.cores, settings.queue_size, self._planner.streams)
        self._server = grpc.aio.server(interceptors=[Errors()], options=_options(settings))
        self._service = VisionService(self.scheduler, settings.image_limits)
        vision_pb2_grpc.add_VisionServiceServicer_to_server(  # type: ignore[no-untyped-call]
            self._service, self._server
        )
        self._health = Health(self._server)
        if settings.reflection:
            services = [s.full_name for s in vision_pb2.DESCRIPTOR.services_by_name.values()]
            reflection.enable_server_reflection(
                [*services, "grpc.health.v1.Health", reflection.SERVICE_NAME],
                self._server,
            )
        self.port = _bind(self._server, settings.grpc)
        self._metrics = Metrics(self.scheduler)
        self._stop_metrics: Callable[[], None] = lambda: None
        self.metrics_address: str | None = None

    async def start(self) -> None:
        """Listen at once, and be ready when every model is loaded and verified.

        Raises StartupError, naming the file, if one of them is not as it should be.
        """
        started = time.monotonic()
        _log.info(
            "starting",
            visavis=version("visavis-server"),
            provider=self._planner.provider.name,
            why=self._why,
            cores=self.scheduler.cores,
        )
        if self.settings.metrics is not None:
            self.metrics_address, self._stop_metrics = serve_metrics(
                self.settings.metrics, self._metrics
            )
        await self._health.loading()
        await self._server.start()
        loader = Loader(self._planner, self.scheduler, self.settings.cache_dir.expanduser())
        models = [await self._load(loader, file) for file in self._files]
        repository = Repository(models)
        self._service.serve(repository)
        self._metrics.models = models
        await self._health.ready(repository.names())
        _log.info(
            "ready",
            listen=self.address,
            metrics=self.metrics_address,
            models=len(models),
            seconds=_seconds_since(started),
        )

    @property
    def address(self) -> str:
        """Where the server listens; with the port that was found where 0 was asked for."""
        if self.settings.grpc.startswith("unix:"):
            return self.settings.grpc
        return f"{self.settings.grpc.rpartition(':')[0]}:{self.port}"

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)
        starting = asyncio.create_task(self.start())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
        try:
            if starting.done():
                await starting
                await stopped
        finally:
            stopped.cancel()
            starting.cancel()
            await self.stop()

    async def stop(self) -> None:
        """Refuse new calls, let those in flight finish within the grace period."""
        await self._health.stopping()
        _log.info("stopping", grace_s=self.settings.grace_s)
        await self._server.stop(self.settings.grace_s)
        await asyncio.to_thread(self.scheduler.close)
        await asyncio.to_thread(self._stop_metrics)
        _log.info("stopped")

    async def _load(self, loader: Loader, file: ModelFile) -> ServedModel:
        started = time.monotonic()
        model = await asyncio.to_thread(loader.load, file)
        _log.info(
            "loaded",
            model=f"{file.name}/{file.version}",
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


async def serve(settings: Settings) -> None:
    """Serve until told to stop; raises StartupError if that can't begin."""
    configure_logging(settings.log_format)
    await App(settings).run()


def _model_files(settings: Settings) -> list[ModelFile]:
    files = scan(settings.models)
    if not files:
        raise StartupError(
            f"the model repository {settings.models} holds no <name>/<version>/model.onnx; "
            f"export one with `visavis export resnet50 yolov5n --out {settings.models}`"
        )
    return files


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # Otherwise a second server on the port would take half of the calls, unnoticed.
        ("grpc.so_reuseport", 0),
    ]


def _bind(server: grpc.aio.Server, address: str) -> int:
    if address.startswith("unix:") and _somebody_listens(address.removeprefix("unix:")):
        raise StartupError(f"can't listen on {address}: another server does; choose another path")
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartupError(
            f"can't listen on {address}: it is in use, or no address of this machine; "
            "choose another with --grpc"
        ) from error


def _somebody_listens(path: str) -> bool:
    """Say whether a server answers at a Unix socket: gRPC would take its place without a word."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def _seconds_since(started: float) -> float:
    return round(time.monotonic() - started, 2)
