"""VisionService: reads a request into a query, asks the models, writes the response."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from visavis.v1 import vision_pb2 as pb

from visavis_server.api.context import Context, caller_of
from visavis_server.api.vision import messages, queries
from visavis_server.api.vision.cards import model_card
from visavis_server.api.vision.drawings import comparison_panels, drawing
from visavis_server.card import Task
from visavis_server.errors import InvalidRequest, VisavisError, drop_traceback, listed
from visavis_server.models import golden
from visavis_server.models.current import Models
from visavis_server.models.repository import Repository
from visavis_server.models.served_model import ServedModel
from visavis_server.runtime.scheduling.scheduler import Caller, Scheduler
from visavis_server.settings import ImageLimits
from visavis_server.telemetry import call_trace
from visavis_server.telemetry.timings import Timings
from visavis_server.vision import annotate, comparison
from visavis_server.vision.results import Answer, Options, Picture

_SingleQuery = queries.ClassifyQuery | queries.DetectQuery
_TASKS = {"Classify": Task.CLASSIFICATION, "Detect": Task.OBJECT_DETECTION}


class VisionService:
    """Our RPCs, for the models that are served.

    limits: of pictures. max_annotated_bytes: of an annotated picture.
    """

    def __init__(
        self,
        models: Models,
        scheduler: Scheduler,
        limits: ImageLimits,
        max_annotated_bytes: int,
    ) -> None:
        self._models = models
        self._scheduler = scheduler
        self._limits = limits
        self._max_annotated_bytes = max_annotated_bytes

    @property
    def ready(self) -> bool:
        """True if at least one model is served."""
        return self._models.ready

    @property
    def trouble(self) -> str:
        """The fault that only a restart of the server repairs; empty: no fault."""
        return self._scheduler.trouble()

    async def proves_alive(self, within_s: float) -> bool:
        """Return True if no core is stuck and a model answers the golden picture in time."""
        if self.trouble:
            return False
        if not self._models.ready:  # a watched folder may be empty for a while
            return True
        (model, *_) = self._models.repository.latest()
        picture, caller = Picture(golden.picture), Caller("Watchdog", time.monotonic() + within_s)
        try:
            async with asyncio.timeout(within_s):
                await model.answer(picture, Options(), caller)
        except (TimeoutError, VisavisError) as error:
            drop_traceback(error)
            # Under heavy load, other requests that finished are proof enough.
            return self._scheduler.ran_within(within_s)
        return True

    def admission(self) -> Mapping[str, Callable[[Context], None]]:
        """Return checks by method path that raise Overloaded if every model would reject.

        They run before a request is received, when a rejection costs least.
        """
        service = pb.DESCRIPTOR.services_by_name["VisionService"].full_name
        return {
            f"/{service}/{method}": partial(self._require_room, method, task)
            for method, task in _TASKS.items()
        }

    async def Classify(self, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
        """Return one model's labels for a picture."""
        started, caller = time.monotonic(), caller_of("Classify", context)
        query = queries.read_classify(request, self._limits)
        model = self._capable(query, Task.CLASSIFICATION)
        answer, timings = await self._ask(
            model, query.picture, Options(classify=query.options), caller, started
        )
        response = messages.classify_response(answer, timings, messages.image_size(query.picture))
        if query.annotate:
            await self._annotate(response, query, answer, caller)
        return response

    async def Detect(self, request: pb.DetectRequest, context: Context) -> pb.DetectResponse:
        """Return one model's boxes for a picture."""
        started, caller = time.monotonic(), caller_of("Detect", context)
        query = queries.read_detect(request, self._limits)
        model = self._capable(query, Task.OBJECT_DETECTION)
        _require_labels(model, query.options.labels)
        answer, timings = await self._ask(
            model, query.picture, Options(detect=query.options), caller, started
        )
        response = messages.detect_response(answer, timings, messages.image_size(query.picture))
        if query.annotate:
            await self._annotate(response, query, answer, caller)
        return response

    async def Compare(self, request: pb.CompareRequest, context: Context) -> pb.CompareResponse:
        """Return the answers of all capable models, side by side."""
        async with aclosing(self._compare(request, context)) as events:
            async for event in events:
                if event.HasField("summary"):
                    return event.summary
        raise AssertionError("a comparison ends with its summary")

    async def CompareStream(
        self, request: pb.CompareStreamRequest, context: Context
    ) -> AsyncGenerator[pb.CompareStreamResponse, None]:
        """Yield each model's answer as soon as it is ready, then the summary."""
        async with aclosing(self._compare(request, context)) as events:
            async for event in events:
                yield event

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """Return the cards of all models."""
        repository = self._models.repository
        return pb.ListModelsResponse(models=[_card(repository, m) for m in repository.latest()])

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Return one model's card, with labels and receipt."""
        query = queries.read_get_model(request)
        self._require_name(query.model)
        repository = self._models.repository
        model = repository.get(query.model, query.version)
        return pb.GetModelResponse(model=_card(repository, model, whole=True))

    def _require_room(self, method: str, task: Task, context: Context) -> None:
        if self._scheduler.something_waits:
            models = self._models.repository.all()
            engines = (model.engine for model in models if model.task is task)
            self._scheduler.require_room(engines, caller_of(method, context))

    def _require_name(self, name: str) -> None:
        if not name:
            names = listed(self._models.repository.names())
            raise InvalidRequest("model", f"the request names no model; choose one of {names}")

    def _capable(self, query: _SingleQuery, task: Task) -> ServedModel:
        self._require_name(query.model)
        return self._models.repository.capable(query.model, query.version, task)

    async def _ask(
        self,
        model: ServedModel,
        picture: Picture,
        options: Options,
        caller: Caller,
        started: float,
    ) -> tuple[Answer, Timings]:
        """Return the model's answer, and its timings with the call's total time."""
        answer = await model.answer(picture, options, caller)
        return answer, replace(answer.timings, total_ms=_ms_since(started))

    async def _annotate(
        self,
        response: pb.ClassifyResponse | pb.DetectResponse,
        query: _SingleQuery,
        answer: Answer,
        caller: Caller,
    ) -> None:
        """Add the annotated picture to a response."""
        encoded, _ = await self._scheduler.run(
            lambda: annotate.annotate(
                query.picture.pixels,
                answer.result,
                answer.served_by.random_weights,
                self._max_annotated_bytes,
            ),
            caller,
        )
        response.annotated_image.CopyFrom(drawing(encoded))

    async def _compare(
        self, request: queries.ComparisonRequest, context: Context
    ) -> AsyncGenerator[pb.CompareStreamResponse, None]:
        """Yield each model's answer, then the summary."""
        started, caller = time.monotonic(), caller_of("Compare", context)
        query = queries.read_compare(request, self._limits)
        # The repository may be replaced at every await; answers and cards must be of one.
        repository = self._models.repository
        selection = _select(repository, query)
        decode_ms, queue_ms = await self._scheduler.run(query.picture.decode, caller)
        call_trace.note(Timings(queue_ms, decode_ms, total_ms=queue_ms + decode_ms))
        received = []
        async with aclosing(
            comparison.answers(selection, query.picture, query.options, caller)
        ) as answers:
            async for answer in answers:
                received.append(answer)
                yield pb.CompareStreamResponse(answer=messages.streamed_answer(answer))
        summary = await self._summary(query, repository, selection, received, caller)
        timings = Timings(queue_ms=queue_ms, decode_ms=decode_ms, total_ms=_ms_since(started))
        summary.timings.CopyFrom(messages.timings_message(timings))
        yield pb.CompareStreamResponse(summary=summary)

    async def _summary(
        self,
        query: queries.CompareQuery,
        repository: Repository,
        selection: comparison.Selection,
        answers: Sequence[comparison.ModelAnswer],
        caller: Caller,
    ) -> pb.CompareResponse:
        """Return the response to a comparison, without its timings."""
        # The cost grows with the numbers of models and detections: too much for the event loop.
        compared = await asyncio.to_thread(comparison.conclude, selection, answers)
        comparisons = await asyncio.to_thread(
            lambda: [messages.task_comparison(each) for each in compared]
        )
        names = {model.name for model in selection.models}
        summary = pb.CompareResponse(
            comparisons=comparisons,
            left_out=[
                pb.LeftOutModel(model=name, reason=reason)
                for name, reason in selection.left_out.items()
            ],
            models=[
                _card(repository, model) for model in repository.latest() if model.name in names
            ],
            image_size=messages.image_size(query.picture),
        )
        if query.annotate:
            panels, baseline = comparison_panels(compared, difference=query.difference)
            encoded, _ = await self._scheduler.run(
                lambda: annotate.side_by_side(
                    query.picture.pixels, panels, self._max_annotated_bytes, baseline
                ),
                caller,
            )
            summary.annotated_image.CopyFrom(drawing(encoded))
        return summary


def _card(repository: Repository, model: ServedModel, whole: bool = False) -> pb.Model:
    return model_card(model, repository.versions(model.name), whole)


def _select(repository: Repository, query: queries.CompareQuery) -> comparison.Selection:
    for name in query.models:
        repository.get(name, field="models")
    return comparison.select(repository.latest(), query.tasks, query.models, query.baseline)


def _require_labels(model: ServedModel, labels: Sequence[str]) -> None:
    known = model.document.label_set.labels
    if unknown := set(labels) - set(known):
        raise InvalidRequest(
            "labels",
            f"model {model.name} has no label {listed(map(repr, unknown))}; its labels are "
            f"{listed(known)}",
        )


def _ms_since(started: float) -> float:
    return (time.monotonic() - started) * 1e3
