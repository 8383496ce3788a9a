"""The Open Inference Protocol v2 with Triton's additions, so that its clients work unchanged."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from importlib.metadata import version
from typing import Final, Protocol

from google.protobuf.message import Message

from visavis_server.api.context import Context, caller_of
from visavis_server.api.inference import grpc_service_pb2 as pb
from visavis_server.api.inference import messages as inference_messages
from visavis_server.api.inference import tensors
from visavis_server.api.inference.views import IMAGE_VIEW, ImageView, TensorView, View, classified
from visavis_server.errors import (
    InvalidRequest,
    ModelNotFound,
    PermissionDenied,
    Unavailable,
    Unimplemented,
    VisavisError,
)
from visavis_server.models.current import Models
from visavis_server.models.model_files import version_of
from visavis_server.models.served_model import ServedModel
from visavis_server.runtime.scheduling.scheduler import Scheduler, Statistics
from visavis_server.settings import ImageLimits
from visavis_server.transport.calls import cancel
from visavis_server.transport.statuses import message_of
from visavis_server.transport.wire import delimited

_EXTENSIONS: Final = (
    "model_repository",
    "model_configuration",
    "binary_tensor_data",
    "classification",
    "parameters",
    "statistics",
)
# Of the reason why a model is not served: the log has the whole.
_MAX_REASON_LENGTH: Final = 512
# Of one stream: asked before the first is answered.
_AT_ONCE: Final = 16


class Administration(Protocol):
    """Loads and unloads models by name."""

    async def load(self, name: str) -> None:
        """Serve a model as the repository's folder has it now; raises VisavisError."""
        ...

    async def unload(self, name: str) -> None:
        """Serve a model no more; raises VisavisError."""
        ...


def _not_served(
    why: str,
) -> Callable[["InferenceService", Message, Context], Awaitable[Message]]:
    """Return a method that the protocol has and this server has not."""

    async def refuse(service: "InferenceService", request: Message, context: Context) -> Message:
        raise Unimplemented(why)

    return refuse


class InferenceService:
    """Answers for the models that are served.

    administration: None where clients may not load and unload models.
    """

    def __init__(
        self, models: Models, scheduler: Scheduler, limits: ImageLimits, max_message_bytes: int
    ) -> None:
        self.administration: Administration | None = None
        self._max_message_bytes = max_message_bytes
        self._scheduler = scheduler
        self._limits = limits
        self._models = models

    async def ServerLive(self, request: Message, context: Context) -> pb.ServerLiveResponse:
        """Say that the server answers, and that none of its cores is stuck."""
        return pb.ServerLiveResponse(live=not self._scheduler.trouble())

    async def ServerReady(self, request: Message, context: Context) -> pb.ServerReadyResponse:
        """Say whether there are models to answer with."""
        return pb.ServerReadyResponse(ready=self._models.ready)

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        """Say whether a model answers."""
        try:
            self._find(request.name, request.version)
        except (InvalidRequest, ModelNotFound, Unavailable):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ServerMetadata(self, request: Message, context: Context) -> pb.ServerMetadataResponse:
        """Say what the server is, and what it speaks."""
        return pb.ServerMetadataResponse(
            name="visavis", version=version("visavis-server"), extensions=_EXTENSIONS
        )

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """Say what a model takes and gives."""
        model, view = self._find(request.name, request.version)
        return pb.ModelMetadataResponse(
            name=request.name,
            versions=map(str, self._models.repository.versions(model.name)),
            platform=inference_messages.PLATFORM,
            inputs=map(inference_messages.tensor_metadata, view.inputs),
            outputs=map(inference_messages.tensor_metadata, view.outputs),
        )

    async def ModelConfig(
        self, request: pb.ModelConfigRequest, context: Context
    ) -> pb.ModelConfigResponse:
        """Say the same in Triton's own words, and how the model is run."""
        model, view = self._find(request.name, request.version)
        config = inference_messages.model_config(request.name, model, view)
        return pb.ModelConfigResponse(config=config)

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        """Say what became of a model's requests, or of all models', through every door."""
        counted = self._scheduler.statistics()
        models = self._models.repository.all()
        if request.name:
            model, _ = self._find(request.name, request.version)
            models = [m for m in models if m.name == model.name]
        if request.version:
            models = [m for m in models if str(m.version) == request.version]
        return pb.ModelStatisticsResponse(
            model_stats=[
                inference_messages.statistics(
                    request.name or model.name, model, counted.get(model.engine, Statistics())
                )
                for model in models
            ]
        )

    async def ModelInfer(self, request: tensors.Request, context: Context) -> bytes:
        """Answer with a model's outputs, in the form in which its inputs came; in wire form."""
        return await self._infer(request, context, pb.ModelInferResponse())

    async def ModelStreamInfer(
        self, requests: AsyncIterator[tensors.Request], context: Context
    ) -> AsyncGenerator[bytes]:
        """Answer as ModelInfer does, in the order of the requests; an error ends nothing."""
        room = asyncio.Semaphore(_AT_ONCE)
        # Unbounded, so that asking ends at once when the caller leaves: it never waits for a place.
        asked: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()

        async def ask() -> None:
            try:
                async for request in requests:
                    await room.acquire()
                    asked.put_nowait(asyncio.create_task(self._streamed(request, context)))
            finally:
                asked.put_nowait(None)

        asking = asyncio.create_task(ask())
        answering: asyncio.Task[bytes] | None = None
        try:
            while (answering := await asked.get()) is not None:
                yield await answering
                room.release()
            await asking
        finally:
            await cancel([asking])
            left = [answering, *(asked.get_nowait() for _ in range(asked.qsize()))]
            await cancel(filter(None, left))

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        """List every version of every model, in both views; those that are not served say why."""
        repository = self._models.repository
        states = {(m.name, m.version): "READY" for m in repository.all()}
        if not request.ready:
            states = dict.fromkeys(repository.not_served, "UNAVAILABLE") | states
        return pb.RepositoryIndexResponse(
            models=[
                pb.RepositoryIndexResponse.ModelIndex(
                    name=name + view,
                    version=str(number),
                    state=state,
                    reason=repository.not_served.get((name, number), "")[:_MAX_REASON_LENGTH],
                )
                for (name, number), state in sorted(states.items())
                for view in ("", IMAGE_VIEW)
                if not (view and repository.knows(name + view))
            ]
        )

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        """Serve a model as its folder has it now."""
        if request.parameters:
            raise InvalidRequest(
                "parameters",
                "models are loaded from the repository as they are, without parameters",
            )
        await self._administrator().load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        """Serve a model no more, until it is loaded again."""
        await self._administrator().unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    _no_shared_memory = _not_served(
        "shared memory is not served: the server reads no memory of its callers; send tensors in "
        "the request itself"
    )
    SystemSharedMemoryStatus = _no_shared_memory
    SystemSharedMemoryRegister = _no_shared_memory
    SystemSharedMemoryUnregister = _no_shared_memory
    CudaSharedMemoryStatus = _no_shared_memory
    CudaSharedMemoryRegister = _no_shared_memory
    CudaSharedMemoryUnregister = _no_shared_memory
    TraceSetting = _not_served(
        "trace settings are not served: start the server with --trace, and it sends traces to an "
        "OpenTelemetry collector"
    )
    LogSettings = _not_served(
        "log settings are not served: start the server with other --log-level and --log-format"
    )

    async def _infer(
        self, request: tensors.Request, context: Context, response: pb.ModelInferResponse
    ) -> bytes:
        """Return `response` in wire form, with the answer added."""
        message = request.message
        model, view = self._find(message.model_name, message.model_version, "model_name")
        parameters = inference_messages.read_parameters(message.parameters)
        wanted = inference_messages.read_wanted(message, view, model.task)
        timeout_s = inference_messages.read_timeout_s(parameters)
        caller = caller_of("ModelInfer", context, timeout_s)
        inputs = await asyncio.to_thread(tensors.read_inputs, request)
        outputs = await view.infer(inputs, parameters, caller)
        response.model_name, response.model_version = message.model_name, str(model.version)
        response.id = message.id

        def write() -> bytes:
            labels = model.document.label_set.labels
            given = {
                name: classified(outputs[name], labels, best) if best else outputs[name]
                for name, best in wanted.items()
            }
            return tensors.write_response(response, given, raw=bool(request.raw))

        return await asyncio.to_thread(write)

    async def _streamed(self, request: tensors.Request, context: Context) -> bytes:
        response = pb.ModelInferResponse()
        try:
            if inference_messages.wants_final_response(request.message):
                response.parameters["triton_final_response"].bool_param = True
            written = await self._infer(request, context, response)
        except VisavisError as error:
            # By its id the client knows whose error it is.
            return pb.ModelStreamInferResponse(
                error_message=message_of(error),
                infer_response=pb.ModelInferResponse(id=request.message.id),
            ).SerializeToString()
        number = pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER
        return b"".join(delimited(number, [written]))

    def _administrator(self) -> Administration:
        if self.administration is None:
            raise PermissionDenied(
                "clients may not load and unload models here; see the setting admin"
            )
        return self.administration

    def _find(self, name: str, number: str, field: str = "name") -> tuple[ServedModel, View]:
        """Return the model and the view that a name stands for; number: "", or its version."""
        repository = self._models.repository
        version = version_of(number)
        if number and version is None:
            raise InvalidRequest(
                "model_version", f"the version is {number[:32]!r}; it must be a positive integer"
            )
        of_image = name.endswith(IMAGE_VIEW) and not repository.knows(name)
        model = repository.get(name.removesuffix(IMAGE_VIEW) if of_image else name, version, field)
        if of_image:
            return model, ImageView(model, self._limits)
        return model, TensorView(model, self._max_message_bytes)
