"""The Open Inference Protocol v2 with Triton's additions, so that its clients work unchanged."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from importlib.metadata import version
from typing import Final, Protocol, TypeVar

from google.protobuf.message import Message

from visavis_server.api.context import Context, caller_of
from visavis_server.api.inference import grpc_service_pb2 as pb
from visavis_server.api.inference import messages as inference_messages
from visavis_server.api.inference import tensors
from visavis_server.api.inference.ordered_stream import in_order
from visavis_server.api.inference.views import IMAGE_VIEW, ImageView, TensorView, View, classified
from visavis_server.api.vision.cards import model_card
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
# Characters of the reason why a model is not served; the log has all of it.
_MAX_REASON_LENGTH: Final = 512
# Requests of one stream that are handled at once.
_STREAM_CONCURRENCY: Final = 16

Written = TypeVar("Written")

Write = Callable[[pb.ModelInferResponse, Mapping[str, tensors.Array]], Written]
"""Writes a response with outputs by name; runs in a thread, as its cost grows with them."""


class Administration(Protocol):
    """Loads and unloads models by name."""

    async def load(self, name: str) -> None:
        """Load a model from its folder in the repository; raises VisavisError."""
        ...

    async def unload(self, name: str) -> None:
        """Stop serving a model; raises VisavisError."""
        ...


def _unsupported(
    why: str,
) -> Callable[["InferenceService", Message, Context], Awaitable[Message]]:
    """Return an implementation of a method that this server doesn't support."""

    async def refuse(service: "InferenceService", request: Message, context: Context) -> Message:
        raise Unimplemented(why)

    return refuse


class InferenceService:
    """The Open Inference Protocol, for the models that are served.

    administration: None if clients may not load and unload models.
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
        """Return live unless a core is stuck."""
        return pb.ServerLiveResponse(live=not self._scheduler.trouble())

    async def ServerReady(self, request: Message, context: Context) -> pb.ServerReadyResponse:
        """Return ready if at least one model is served."""
        return pb.ServerReadyResponse(ready=self._models.ready)

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        """Return ready if the model is served."""
        try:
            self._find(request.name, request.version)
        except (InvalidRequest, ModelNotFound, Unavailable):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ServerMetadata(self, request: Message, context: Context) -> pb.ServerMetadataResponse:
        """Return the server's name, version and protocol extensions."""
        return pb.ServerMetadataResponse(
            name="visavis", version=version("visavis-server"), extensions=_EXTENSIONS
        )

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """Return a model's inputs and outputs."""
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
        """Return a model's configuration in Triton's format, with its card as a parameter."""
        model, view = self._find(request.name, request.version)
        card = model_card(model, self._models.repository.versions(model.name), whole=True)
        # In a thread: a card may hold 32,768 labels.
        config = await asyncio.to_thread(
            inference_messages.model_config, request.name, model, view, card
        )
        return pb.ModelConfigResponse(config=config)

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        """Return the statistics of one model, or of all, over every listener."""
        models = self._models.repository.all()
        if request.name:
            model, _ = self._find(request.name, request.version)
            models = [m for m in models if m.name == model.name]
        if request.version:
            models = [m for m in models if str(m.version) == request.version]
        found = await self.statistics(models)
        for each in found if request.name else ():
            each.name = request.name
        return pb.ModelStatisticsResponse(model_stats=found)

    async def statistics(self, models: Sequence[ServedModel]) -> list[pb.ModelStatistics]:
        """Return the statistics of models."""
        counted = self._scheduler.statistics()
        return [
            inference_messages.statistics(model, counted.get(model.engine, Statistics()))
            for model in models
        ]

    async def ModelInfer(self, request: tensors.Request, context: Context) -> bytes:
        """Return a model's outputs, raw if the inputs were raw, in wire format."""
        write = partial(tensors.write_response, raw=bool(request.raw))
        return await self.infer(request, context, write)

    async def infer(
        self,
        request: tensors.Request,
        context: Context,
        write: Write[Written],
        response: pb.ModelInferResponse | None = None,
    ) -> Written:
        """Return a model's outputs as `write` writes them.

        response: the message to complete; by default an empty one.
        """
        response = pb.ModelInferResponse() if response is None else response
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

        def selected() -> Written:
            labels = model.document.label_set.labels
            chosen = {
                name: classified(outputs[name], labels, best) if best else outputs[name]
                for name, best in wanted.items()
            }
            return write(response, chosen)

        return await asyncio.to_thread(selected)

    async def ModelStreamInfer(
        self, requests: AsyncIterator[tensors.Request], context: Context
    ) -> AsyncGenerator[bytes]:
        """Yield the responses in the order of the requests; an error does not end the stream."""
        responses = in_order(
            requests, lambda request: self.infer_in_stream(request, context), _STREAM_CONCURRENCY
        )
        async with aclosing(responses):
            async for response in responses:
                yield response

    async def infer_in_stream(self, request: tensors.Request, context: Context) -> bytes:
        """Return the response to one request of a stream; an expected error is in the response."""
        response = pb.ModelInferResponse()
        try:
            if inference_messages.wants_final_response(request.message):
                response.parameters["triton_final_response"].bool_param = True
            write = partial(tensors.write_response, raw=bool(request.raw))
            written = await self.infer(request, context, write, response)
        except VisavisError as error:
            # The id tells the client which request failed.
            return pb.ModelStreamInferResponse(
                error_message=message_of(error),
                infer_response=pb.ModelInferResponse(id=request.message.id),
            ).SerializeToString()
        number = pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER
        return b"".join(delimited(number, [written]))

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        """List every version of every model, in both views, with the reason if it is not served."""
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
        """Load a model from its folder."""
        if request.parameters:
            raise InvalidRequest(
                "parameters",
                "parameters are not supported; models are loaded from the repository as they are",
            )
        await self._administrator().load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        """Stop serving a model until it is loaded again."""
        await self._administrator().unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    _no_shared_memory = _unsupported(
        "shared memory is not supported: the server never reads a client's memory; send tensors in "
        "the request"
    )
    SystemSharedMemoryStatus = _no_shared_memory
    SystemSharedMemoryRegister = _no_shared_memory
    SystemSharedMemoryUnregister = _no_shared_memory
    CudaSharedMemoryStatus = _no_shared_memory
    CudaSharedMemoryRegister = _no_shared_memory
    CudaSharedMemoryUnregister = _no_shared_memory
    TraceSetting = _unsupported(
        "trace settings are not supported; start the server with --trace to send traces to an "
        "OpenTelemetry collector"
    )
    LogSettings = _unsupported(
        "log settings are not supported; start the server with --log-level and --log-format"
    )

    def _administrator(self) -> Administration:
        if self.administration is None:
            raise PermissionDenied(
                "loading and unloading models is disabled; enable it with the setting admin"
            )
        return self.administration

    def _find(self, name: str, number: str, field: str = "name") -> tuple[ServedModel, View]:
        """Return the model and the view of a name; number: its version, or empty."""
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
