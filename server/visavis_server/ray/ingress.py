"""The deployment that calls reach first: reads requests, asks the models, writes responses."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from ray.exceptions import RayTaskError
from ray.serve import metrics
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.grpc_util import RayServegRPCContext
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from visavis_server.api.inference import grpc_service_pb2 as oip
from visavis_server.api.inference import tensors
from visavis_server.api.inference.messages import total
from visavis_server.api.inference.service import InferenceService
from visavis_server.api.vision.service import VisionService
from visavis_server.errors import InvalidRequest, ModelNotFound, Unimplemented
from visavis_server.log import configure_logging
from visavis_server.models.current import Models
from visavis_server.models.repository import Repository
from visavis_server.models.served_model import ServedModel
from visavis_server.ray.limits import allotted, image_limits
from visavis_server.ray.methods import (
    DETAILS,
    HEALTH,
    INFERENCE,
    TIMEOUT,
    UNSUPPORTED,
    VISION,
    Method,
    methods_of,
)
from visavis_server.ray.remote import Pictures, remote_model
from visavis_server.ray.wire import Description
from visavis_server.runtime.scheduling.scheduler import Scheduler
from visavis_server.settings import ImageLimits, MessageLimits
from visavis_server.telemetry.histograms import BOUNDS_S
from visavis_server.transport.calls import REQUEST_ID, Call, Calls, request_id_of
from visavis_server.transport.statuses import code_of, status_of
from visavis_server.transport.wire import require_few_fields

# Between two looks at a model whose replicas are being replaced.
_LOOK_AGAIN_S = 1.0
# Their contents are views of the received bytes.
_REQUEST_CLASSES = {"ModelInfer": tensors.Request, "ModelStreamInfer": tensors.Request}
# What answers one request of a stream.
_BEHAVIORS = {"ModelStreamInfer": "infer_in_stream"}


class Ingress:
    """The services of a server, over models on other replicas.

    models: the handles of their deployments, by name. versions: those to serve, by name. settings:
    by name.
    """

    def __init__(
        self,
        models: Mapping[str, DeploymentHandle],
        versions: Mapping[str, Sequence[int]],
        settings: Mapping[str, Any],
    ) -> None:
        read = allotted(settings)
        configure_logging(read.log_format, read.log_level)
        self._handles = dict(models)
        self._versions = {name: sorted(numbers) for name, numbers in versions.items()}
        self._message_limits = read.message_limits
        self._scheduler = Scheduler(
            read.core_count, read.queue_size, max_queue_wait_s=read.max_queue_wait_s
        )
        self._pictures = Pictures(self._scheduler)
        self._models = Models()
        limits = image_limits(read)
        self._services = {
            VISION.full_name: VisionService(
                self._models, self._scheduler, limits, read.max_annotated_bytes
            ),
            INFERENCE.full_name: _Inference(
                self._models, self._scheduler, limits, read.max_message_bytes, self._handles
            ),
            HEALTH.full_name: _Health(self._models),
        }
        self._calls = Calls(_recorder())
        self._looking: asyncio.Task[None] | None = None

    async def __call__(self, request: Request) -> Response:
        """Refuse a request over HTTP; Ray Serve's HTTP proxy calls this."""
        return PlainTextResponse("call this application over gRPC\n", 501)

    async def answer(self, method: Method, data: bytes, context: RayServegRPCContext) -> "Written":
        """Return the response of a method that has one, or the status of its error."""
        with self._under_way(method, context) as call:
            try:
                await self._know_models(method)
                request = _read(method, data, self._message_limits)
                response = await self._behavior(method)(request, _Context.of(context))
                call.code = "OK"
                return Written.of(response)
            except Exception as error:  # noqa: BLE001  all errors of the method end here
                return _failed(method, call, error, context)

    async def stream(
        self, method: Method, data: bytes, context: RayServegRPCContext
    ) -> AsyncGenerator["Written", None]:
        """Yield the responses of a method that streams them; at last, the status of its error."""
        with self._under_way(method, context) as call:
            try:
                await self._know_models(method)
                request = _read(method, data, self._message_limits)
                responses = self._behavior(method)(request, _Context.of(context))
                async with aclosing(responses):
                    async for response in responses:
                        yield Written.of(response)
                call.code = "OK"
            except Exception as error:  # noqa: BLE001  all errors of the method end here
                yield _failed(method, call, error, context)

    def _behavior(self, method: Method) -> Any:
        if why := UNSUPPORTED.get(method.name):
            raise Unimplemented(why)
        return getattr(self._services[method.service], _BEHAVIORS.get(method.name, method.name))

    def _under_way(
        self, method: Method, context: RayServegRPCContext
    ) -> AbstractContextManager[Call]:
        headers = dict(context.invocation_metadata())
        request_id = request_id_of(headers.get(REQUEST_ID))
        return self._calls.under_way("ray", method.path, request_id, headers)

    async def _know_models(self, method: Method) -> None:
        """Wait until the models have been described; a health check does not wait."""
        if self._models.ready:
            return
        self._look()
        if method.service != HEALTH.full_name:
            assert self._looking is not None
            await asyncio.shield(self._looking)

    def _look(self) -> None:
        """Ask for the descriptions of the models, if they are not being asked for."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._describe_all())

    async def _describe_all(self) -> None:
        """Serve the models as their replicas describe them."""
        names = list(self._handles)
        found: list[list[Description]] = await asyncio.gather(
            *(self._handles[name].describe.remote() for name in names)
        )
        models = [
            remote_model(each, self._handles[name], self._pictures, self._look)
            for name, versions in zip(names, found, strict=True)
            for each in versions
        ]
        self._models.serve(Repository(models))
        served = {
            name: sorted(each.version for each in every)
            for name, every in zip(names, found, strict=True)
        }
        if served != self._versions:  # a replica of the release before, which will be replaced
            loop = asyncio.get_running_loop()
            loop.call_later(_LOOK_AGAIN_S, self._look)


def _endpoint(method: Method) -> Any:
    """Return a method of Ingress with the signature that Ray Serve calls."""

    async def answer(self: Ingress, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        return await self.answer(method, request, grpc_context)

    async def stream(
        self: Ingress, request: bytes, grpc_context: RayServegRPCContext
    ) -> AsyncGenerator[Any, None]:
        async with aclosing(self.stream(method, request, grpc_context)) as responses:
            async for response in responses:
                yield response

    return stream if method.streams else answer


for _service in (VISION, INFERENCE, HEALTH):
    for _method in methods_of(_service):
        setattr(Ingress, _method.name, _endpoint(_method))


@dataclass(frozen=True, slots=True)
class Written:
    """A response in wire format; Ray Serve asks for it as of a message."""

    data: bytes

    @classmethod
    def of(cls, response: Any) -> "Written":
        """Return a message, or bytes, in wire format."""
        return cls(response if isinstance(response, bytes) else response.SerializeToString())

    def SerializeToString(self) -> bytes:  # noqa: N802  as protobuf's
        """Return the bytes."""
        return self.data


@dataclass(frozen=True, slots=True)
class _Context:
    """A call's deadline; timeout_s: the time that it had left at the proxy."""

    timeout_s: float | None
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, context: RayServegRPCContext) -> "_Context":
        """Return the deadline in a call's headers."""
        timeout_s = dict(context.invocation_metadata()).get(TIMEOUT)
        return cls(None if timeout_s is None else float(timeout_s))

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline; None: there is none."""
        if self.timeout_s is None:
            return None
        return self.timeout_s - (time.monotonic() - self.began)


class _Inference(InferenceService):
    """The Open Inference Protocol, with the statistics of the models' replicas."""

    def __init__(
        self,
        models: Models,
        scheduler: Scheduler,
        limits: ImageLimits,
        max_message_bytes: int,
        handles: Mapping[str, DeploymentHandle],
    ) -> None:
        super().__init__(models, scheduler, limits, max_message_bytes)
        self._handles = handles

    async def statistics(self, models: Sequence[ServedModel]) -> list[oip.ModelStatistics]:
        """Return the statistics of models, each the sum of its replicas that run now."""
        names = {model.name for model in models}
        found = await asyncio.gather(*map(self._of_replicas, names))
        parts: defaultdict[tuple[str, str], list[oip.ModelStatistics]] = defaultdict(list)
        for each in chain.from_iterable(found):
            parts[each.name, each.version].append(each)
        return [
            total(
                oip.ModelStatistics(name=model.name, version=version), *parts[model.name, version]
            )
            for model in models
            for version in [str(model.version)]
        ]

    async def _of_replicas(self, name: str) -> list[oip.ModelStatistics]:
        """Return the statistics of each version from each replica, but for those that end now."""
        try:
            asked = self._handles[name].broadcast("statistics")
            found = await asked.results_async(return_exceptions=True)
        except DeploymentUnavailableError:
            return []
        if faults := [each for each in found if isinstance(each, RayTaskError)]:
            raise faults[0]
        return [
            oip.ModelStatistics.FromString(data)
            for each in found
            if not isinstance(each, Exception)
            for data in each
        ]


class _Health:
    """grpc.health.v1, for the server, our service, and each model by name."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def Check(  # noqa: N802  named by the contract
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> health_pb2.HealthCheckResponse:
        """Return SERVING once the models are known; raises ModelNotFound for an unknown name."""
        if (status := self._statuses().get(request.service)) is None:
            name = request.service[:128]
            raise ModelNotFound(f"there is no service or model {name!r}", "service")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(  # noqa: N802  named by the contract
        self, request: health_pb2.HealthListRequest, context: _Context
    ) -> health_pb2.HealthListResponse:
        """Return all statuses."""
        return health_pb2.HealthListResponse(
            statuses={
                name: health_pb2.HealthCheckResponse(status=status)
                for name, status in self._statuses().items()
            }
        )

    def _statuses(self) -> dict[str, int]:
        status, ready = health_pb2.HealthCheckResponse, self._models.ready
        names = self._models.repository.names() if ready else ()
        overall = status.SERVING if ready else status.NOT_SERVING
        return {
            **dict.fromkeys(names, status.SERVING),
            **dict.fromkeys(("", VISION.full_name), overall),
        }


def _recorder() -> Any:
    """Return a function that adds a finished call to Ray's metrics."""
    calls = metrics.Counter(
        "visavis_calls_total",
        description="Calls that have ended, by method and gRPC status.",
        tag_keys=("method", "code"),
    )
    seconds = metrics.Histogram(
        "visavis_call_seconds",
        description="Seconds of a call in the ingress.",
        boundaries=list(BOUNDS_S),
        tag_keys=("method",),
    )

    def record(listener: str, path: str, code: str, call_s: float) -> None:
        name = path.rpartition("/")[2]
        calls.inc(1, {"method": name, "code": code})
        seconds.observe(call_s, {"method": name})

    return record


def _read(method: Method, data: bytes, limits: MessageLimits) -> Any:
    """Return a request; raises InvalidRequest if it exceeds the limits, or is no such message."""
    message_class = _REQUEST_CLASSES.get(method.name, method.request_class)
    require_few_fields(data, message_class, limits)
    try:
        return message_class.FromString(data)
    except (DecodeError, ValueError):
        raise InvalidRequest(
            "request", "the request is not a message of the method's request type"
        ) from None


def _failed(method: Method, call: Call, error: Exception, context: RayServegRPCContext) -> Written:
    """Set the status of an error; returns a response in its place, which is not sent."""
    call.code = code_of(error)
    status = status_of(error, method.path, call.request_id)
    context.set_code(grpc.StatusCode[call.code])
    context.set_details(status.message)
    context.set_trailing_metadata(
        [(REQUEST_ID, call.request_id), (DETAILS, status.SerializeToString())]
    )
    return Written(b"")
