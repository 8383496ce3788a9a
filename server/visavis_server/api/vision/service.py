"""Our RPCs: from message to domain, to the models, and back."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from visavis.v1 import vision_pb2 as pb

from visavis_server.api.context import Context, caller_of
from visavis_server.api.vision import messages
from visavis_server.card import Task
from visavis_server.errors import InvalidRequest, VisavisError, drop_traceback, listed
from visavis_server.models import golden
from visavis_server.models.current import Models
from visavis_server.models.served_model import ServedModel
from visavis_server.runtime.scheduling.scheduler import Caller, Scheduler
from visavis_server.settings import ImageLimits
from visavis_server.telemetry import call_trace
from visavis_server.telemetry.timings import Timings
from visavis_server.vision import annotate, comparison
from visavis_server.vision.results import Answer, Classified, Detected, Options, Picture

Single = pb.ClassifyResponse | pb.DetectResponse

_TASKS = {"Classify": Task.CLASSIFICATION, "Detect": Task.OBJECT_DETECTION}


class VisionService:
    """Answers for the models that are served."""

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
        """Whether it has models to answer with."""
        return self._models.ready

    @property
    def trouble(self) -> str:
        """What keeps the server from working until it is started again; nothing if all is well."""
        return self._scheduler.trouble()

    async def proves_alive(self, within_s: float) -> bool:
        """Say whether a model answers about the golden picture in a time, and no core is stuck."""
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
            # Perhaps there is much to do, and it is being done: then that is the proof.
            return self._scheduler.ran_within(within_s)
        return True

    def admission(self) -> Mapping[str, Callable[[Context], None]]:
        """Return, by a method's path, what raises Overloaded where every model would refuse.

        To ask that before a request is read costs less than to read it first.
        """
        service = pb.DESCRIPTOR.services_by_name["VisionService"].full_name
        return {
            f"/{service}/{method}": partial(self._require_room, method, task)
            for method, task in _TASKS.items()
        }

    async def Classify(self, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
        """Answer with one model's labels."""
        started, caller = time.monotonic(), caller_of("Classify", context)
        model = self._model(request, Task.CLASSIFICATION)
        options = messages.read_classification_options(request)
        picture, answer, timings = await self._ask(request, model, options, caller, started)
        response = messages.classify_response(answer, timings, messages.image_size(picture))
        await self._annotate(request.annotate, response, picture, answer.result, caller)
        return response

    async def Detect(self, request: pb.DetectRequest, context: Context) -> pb.DetectResponse:
        """Answer with one model's boxes."""
        started, caller = time.monotonic(), caller_of("Detect", context)
        model = self._model(request, Task.OBJECT_DETECTION)
        options = messages.read_detection_options(request)
        if unknown := set(options.labels) - set(model.document.label_set.labels):
            raise InvalidRequest(
                "labels",
                f"model {model.name} has no label {listed(map(repr, unknown))}; it has "
                f"{listed(model.document.label_set.labels)}",
            )
        picture, answer, timings = await self._ask(request, model, options, caller, started)
        response = messages.detect_response(answer, timings, messages.image_size(picture))
        await self._annotate(request.annotate, response, picture, answer.result, caller)
        return response

    async def Compare(self, request: pb.CompareRequest, context: Context) -> pb.CompareResponse:
        """Answer with what every capable model sees."""
        async with aclosing(self._compare(request, context)) as events:
            async for event in events:
                if event.HasField("summary"):
                    return event.summary
        raise AssertionError("a comparison ends with its summary")

    async def CompareStream(
        self, request: pb.CompareStreamRequest, context: Context
    ) -> AsyncGenerator[pb.CompareStreamResponse, None]:
        """Answer with what each capable model sees as soon as it is there, then all of it."""
        async with aclosing(self._compare(request, context)) as events:
            async for event in events:
                yield event

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """Answer with the cards of all models."""
        repository = self._models.repository
        return pb.ListModelsResponse(
            models=[
                messages.model_card(model, repository.versions(model.name), whole=False)
                for model in repository.latest()
            ]
        )

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Answer with one model's card, labels and receipt."""
        repository = self._models.repository
        self._require_model(request.model)
        model = repository.get(request.model, messages.read_version(request))
        card = messages.model_card(model, repository.versions(model.name), whole=True)
        return pb.GetModelResponse(model=card)

    def _require_room(self, method: str, task: Task, context: Context) -> None:
        if self._scheduler.something_waits:
            models = self._models.repository.all()
            engines = (model.engine for model in models if model.task is task)
            self._scheduler.require_room(engines, caller_of(method, context))

    def _require_model(self, name: str) -> None:
        if not name:
            raise InvalidRequest(
                "model",
                f"no model was named; there are {listed(self._models.repository.names())}",
            )

    def _model(self, request: pb.ClassifyRequest | pb.DetectRequest, task: Task) -> ServedModel:
        repository = self._models.repository
        messages.require_image(request)
        self._require_model(request.model)
        return repository.capable(request.model, messages.read_version(request), task)

    async def _ask(
        self,
        request: pb.ClassifyRequest | pb.DetectRequest,
        model: ServedModel,
        options: Options,
        caller: Caller,
        started: float,
    ) -> tuple[Picture, Answer, Timings]:
        """Return the picture, the model's answer, and where the whole time went."""
        picture = messages.read_picture(request.image, self._limits)
        picture.keep = request.annotate
        answer = await model.answer(picture, options, caller)
        return picture, answer, replace(answer.timings, total_ms=_ms_since(started))

    async def _compare(
        self, request: messages.ComparisonRequest, context: Context
    ) -> AsyncGenerator[pb.CompareStreamResponse, None]:
        started = time.monotonic()
        repository = self._models.repository
        messages.require_image(request)
        options = messages.read_detection_options(
            request, messages.read_classification_options(request).top_k
        )
        for name in request.models:
            repository.get(name, field="models")
        selection = comparison.select(
            repository.latest(),
            messages.read_tasks(request),
            request.models,
            request.baseline if request.HasField("baseline") else None,
        )
        caller = caller_of("Compare", context)
        picture = messages.read_picture(request.image, self._limits)
        picture.keep = True
        decode_ms, queue_ms = await self._scheduler.run(picture.decode, caller)
        call_trace.note(Timings(queue_ms, decode_ms, total_ms=queue_ms + decode_ms))
        given = []
        async with aclosing(comparison.answers(selection, picture, options, caller)) as answers:
            async for answer in answers:
                given.append(answer)
                yield pb.CompareStreamResponse(answer=messages.streamed_answer(answer))
        # Grows with models and detections, whose number the request chooses.
        compared = await asyncio.to_thread(comparison.conclude, selection, given)
        comparisons = await asyncio.to_thread(
            lambda: [messages.task_comparison(each) for each in compared]
        )
        asked = {model.name for model in selection.models}
        summary = pb.CompareResponse(
            comparisons=comparisons,
            left_out=[
                pb.LeftOutModel(model=name, reason=reason)
                for name, reason in selection.left_out.items()
            ],
            models=[
                messages.model_card(model, repository.versions(model.name), whole=False)
                for model in repository.latest()
                if model.name in asked
            ],
            image_size=messages.image_size(picture),
        )
        if request.annotate:
            panels = [_panel(a, c) for c in compared for a in c.answers]
            encoded, _ = await self._scheduler.run(
                lambda: annotate.side_by_side(picture.pixels, panels, self._max_annotated_bytes),
                caller,
            )
            summary.annotated_image.CopyFrom(_drawing(encoded))
        timings = Timings(queue_ms=queue_ms, decode_ms=decode_ms, total_ms=_ms_since(started))
        summary.timings.CopyFrom(messages.timings_message(timings))
        yield pb.CompareStreamResponse(summary=summary)

    async def _annotate(
        self,
        asked: bool,
        response: Single,
        picture: Picture,
        result: Classified | Detected,
        caller: Caller,
    ) -> None:
        if asked:
            random_weights = response.served_by.random_weights
            max_bytes = self._max_annotated_bytes
            encoded, _ = await self._scheduler.run(
                lambda: annotate.annotate(picture.pixels, result, random_weights, max_bytes), caller
            )
            response.annotated_image.CopyFrom(_drawing(encoded))


def _drawing(encoded: bytes) -> pb.AnnotatedImage:
    width, height = annotate.size_of(encoded)
    size = pb.ImageSize(width=width, height=height)
    return pb.AnnotatedImage(encoded=encoded, media_type=annotate.MEDIA_TYPE, size=size)


def _panel(
    answer: comparison.ModelAnswer, compared: comparison.TaskComparison
) -> tuple[str, str, Classified | Detected | None]:
    """Return title, note and result of one answer, for the picture of all."""
    by, baseline = answer.model.served_by, compared.baseline
    title = f"{by.model} · {annotate.RANDOM_MARK}" if by.random_weights else by.model
    if isinstance(answer.outcome, VisavisError):
        return title, str(answer.outcome), None
    took = f"{answer.outcome.timings.inference_ms:.0f} ms"
    agreement = answer.agreement
    if isinstance(agreement, comparison.ClassificationAgreement):
        same = "same" if agreement.same_top1 else "other"
        note = f"{same} top-1 as {baseline}, top-k overlap {agreement.top_k_overlap:.0%}"
    elif isinstance(agreement, comparison.DetectionAgreement):
        note = f"F1 {agreement.f1:.2f} with {baseline}, {len(agreement.matches)} matched"
    else:
        alone = bool(compared.nothing_to_compare)
        note = "baseline" if by.model == baseline and not alone else ""
    return (
        title,
        " · ".join(filter(None, (note, by.precision, took))),
        answer.outcome.result,
    )


def _ms_since(started: float) -> float:
    return (time.monotonic() - started) * 1e3
