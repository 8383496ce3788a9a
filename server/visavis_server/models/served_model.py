"""What answers for one version of one model: its sessions, its family, its card."""

import asyncio
import copy
import time
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import structlog

from visavis_server.arrays import Tensor
from visavis_server.card import ClassScores, ModelDocument, Yolov5Heads
from visavis_server.errors import ModelFailed, ModelFileError, VisavisError
from visavis_server.models import golden
from visavis_server.models.model_files import Stamp
from visavis_server.runtime.buffers import Buffers
from visavis_server.runtime.plan import Plan
from visavis_server.runtime.scheduling.scheduler import Scheduler
from visavis_server.runtime.scheduling.work import Caller, Stop
from visavis_server.runtime.session import Session, Sessions
from visavis_server.telemetry import call_trace
from visavis_server.telemetry.histograms import StageHistograms
from visavis_server.telemetry.timings import Timings
from visavis_server.vision.families import Family, family_of, preprocess_one
from visavis_server.vision.results import Answer, Classified, Detected, Options, Picture, ServedBy

_log = structlog.get_logger()
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Verification:
    """What was there to be verified when the model was loaded, and was right."""

    digest: bool
    golden_sample: bool


@dataclass(frozen=True, slots=True)
class Origin:
    """What a model was read from.

    identity: a digest over all that decides how it is served. stamp: changes when the file, or the
    JSON beside it, does; that of the files that were opened.
    """

    identity: str
    stamp: Stamp


@dataclass(slots=True, eq=False)
class _Job:
    """One image on its way; its input is batch[index]."""

    batch: Tensor | None = None
    index: int = 0
    decode_ms: float = 0.0
    preprocess_ms: float = 0.0
    postprocess_ms: float = 0.0

    @property
    def input(self) -> Tensor:
        """Its place in the batch: [3, height, width]."""
        assert self.batch is not None
        return self.batch[self.index]


@dataclass(slots=True, eq=False, kw_only=True)
class _PictureJob(_Job):
    """From a picture to labels or boxes."""

    picture: Picture
    options: Options
    geometry: Any = None

    def prepare(self, family: Family) -> None:
        self.decode_ms = self.picture.decode()
        started = time.perf_counter()
        self.geometry = family.preprocess(self.picture.pixels, self.input)
        self.preprocess_ms = _ms_since(started)
        if not self.picture.keep:
            self.picture.drop()

    def finish(self, family: Family, output: list[Tensor]) -> Classified | Detected:
        return family.postprocess(output, self.geometry, self.options)


@dataclass(slots=True, eq=False, kw_only=True)
class _TensorJob(_Job):
    """From an input that is ready to the family's tensor."""

    tensor: Tensor

    def prepare(self, family: Family) -> None:
        started = time.perf_counter()
        self.input[...] = self.tensor
        self.preprocess_ms = _ms_since(started)

    def finish(self, family: Family, output: list[Tensor]) -> Tensor:
        return family.as_tensor(output)


_AnyJob = _PictureJob | _TensorJob


class ServedModel:
    """One version of one model, loaded; the scheduler's engine for it."""

    def __init__(
        self,
        version: int,
        document: ModelDocument,
        sessions: Sessions,
        plan: Plan,
        scheduler: Scheduler,
        buffers: Buffers,
        origin: Origin,
        bf16: bool = False,
    ) -> None:
        self.name = document.name
        self.version = version
        self.document = document
        self.task = document.task
        self.family: Family = family_of(document)
        self.origin = origin
        self.sessions = sessions
        self.plan = plan
        self._buffers = buffers
        self.stages = StageHistograms()
        self._scheduler = scheduler
        self._output_names = output_names(document)
        self._golden_tolerance = golden.BF16_TOLERANCE if bf16 else 0.0
        self.verification = Verification(
            digest=document.digest is not None, golden_sample=document.golden_sample is not None
        )
        self.served_by = ServedBy(
            model=document.name,
            version=version,
            # int8 stays what it is: only the rest is computed in bfloat16.
            precision="bf16" if bf16 and document.precision != "int8" else document.precision,
            execution_provider=sessions.first.provider,
            random_weights=document.provenance.random_weights,
            task=document.task,
        )

    def planned(self, plan: Plan) -> "ServedModel":
        """Return the model with its sessions, run by another plan that they fit."""
        other = copy.copy(self)
        other.plan = plan
        return other

    def warm_up(self, where: str) -> None:
        """Run a batch of golden pictures, the largest there is, through every session.

        Raises ModelFileError if graph and document don't fit each other, or if an image's outcome
        is not the golden one.
        """
        session = self.sessions.first
        if missing := set(self._output_names) - set(session.output_shapes):
            raise ModelFileError(f"{where}: its graph lacks the output {', '.join(missing)}")
        tensor, _ = preprocess_one(self.family, golden.picture())
        for expected, given in zip(session.input_shape, tensor.shape, strict=True):
            if expected not in (None, given):
                raise ModelFileError(
                    f"{where}: its graph takes {session.input_shape}, its document says "
                    f"{list(tensor.shape)}"
                )
        # It outlives this call, and must not hold the model: nobody would free that.
        check = partial(_check, self.document, self.family, self._golden_tolerance, where)
        self.sessions.check(check, self.plan.batch)

    async def answer(self, picture: Picture, options: Options, caller: Caller) -> Answer:
        """Return the model's answer on a picture.

        Raises InvalidRequest if it can't be decoded; Overloaded, DeadlineExceeded,
        ModelFailed.
        """
        (answer,) = await self.answers([picture], options, caller)
        return answer

    async def answers(
        self, pictures: Sequence[Picture], options: Options, caller: Caller
    ) -> list[Answer]:
        """Return the answers on the pictures of one request; raises as answer does."""
        jobs = [_PictureJob(picture=picture, options=options) for picture in pictures]
        return [Answer(result, self.served_by, t) for result, t in await self._do(jobs, caller)]

    async def infer(self, batch: Tensor, caller: Caller) -> list[Tensor]:
        """Return the family's tensor for each input of one request [b, 3, height, width].

        They share runs with pictures. Raises as answer does.
        """
        jobs = [_TensorJob(tensor=tensor) for tensor in batch]
        return [result for result, _ in await self._do(jobs, caller)]

    async def _do(self, jobs: Sequence[_AnyJob], caller: Caller) -> list[tuple[Any, Timings]]:
        """Return what comes of a request's jobs, and where the time of each went."""
        started = time.perf_counter()

        async def one(job: _AnyJob) -> tuple[Any, Timings]:
            result, spent = await self._scheduler.submit(self, job, caller)
            return result, Timings(
                queue_ms=spent.queue_ms,
                decode_ms=job.decode_ms,
                preprocess_ms=job.preprocess_ms,
                inference_ms=spent.run_ms,
                postprocess_ms=job.postprocess_ms,
                total_ms=_ms_since(started),
            )

        try:
            done = [await one(jobs[0])] if len(jobs) == 1 else await _all(map(one, jobs))
        except Exception as error:
            code = error.code if isinstance(error, VisavisError) else "INTERNAL"
            self.stages.fail(time.perf_counter() - started, code)
            if isinstance(error, ModelFailed):
                _log.error("model failed", model=self.name, version=self.version, exc_info=error)
            raise
        # Of several the one that took longest: the others were done beside it.
        timings = max((timings for _, timings in done), key=lambda t: t.total_ms)
        self.stages.add(timings, time.time())
        provider = self.served_by.execution_provider
        call_trace.note(timings, model=self.name, version=self.version, provider=provider)
        return done

    def allocate(self, jobs: list[_AnyJob]) -> None:
        """Give each job its place in one batch."""
        batch = self._buffers.empty(len(jobs), *self.family.input_shape)
        for index, job in enumerate(jobs):
            job.batch, job.index = batch, index

    def prepare(self, job: _AnyJob) -> None:
        """Write the job's input in its place."""
        job.prepare(self.family)

    def run(self, jobs: list[_AnyJob], exclusive: bool, stop: Stop) -> list[list[Tensor]]:
        """Return the outputs of each job, every one a batch of 1; raises as Session.run does."""
        batch = _gathered(jobs)
        outputs = self.sessions.run(batch, self._output_names, exclusive, stop)
        images = min(len(output) for output in outputs)
        return [[output[i : i + 1] for output in outputs] for i in range(images)]

    def finish(self, job: _AnyJob, output: list[Tensor]) -> Any:
        """Return labels or boxes, or the family's tensor."""
        started = time.perf_counter()
        result = job.finish(self.family, output)
        job.postprocess_ms = _ms_since(started)
        return result

    @property
    def tensor_shape(self) -> list[int]:
        """The shape of what `infer` returns; -1 where the graph's metadata doesn't say."""
        document = self.document
        labels, output = len(document.label_set.labels), document.output
        if isinstance(output, ClassScores):
            return [labels]
        if isinstance(output, Yolov5Heads):
            cells = [
                len(anchors) * (document.input.height // stride) * (document.input.width // stride)
                for anchors, stride in zip(output.anchors, output.strides, strict=True)
            ]
            return [4 + labels, sum(cells)]
        _, *rest = self.sessions.first.output_shapes[output.tensor]
        rows = rest[1] if output.layout == "ultralytics_rows" else rest[0]
        return [4 + labels, rows or -1]


def _check(
    document: ModelDocument,
    family: Family,
    tolerance: float,
    where: str,
    session: Session,
    images: int,
) -> None:
    """Raise ModelFileError unless a session gives for each of some golden pictures what it should.

    images: how many there are in the batch.
    """
    names = output_names(document)
    tensor, geometry = preprocess_one(family, golden.picture())
    # An idle model keeps its weights in memory, and little more.
    outputs = session.run(np.repeat(tensor, images, axis=0), names, give_back=True)
    for output in outputs:
        if len(output) != images:
            advice = "a fixed batch of 1, or with a batch that is truly dynamic"
            raise ModelFileError(
                f"{where}: it gives {len(output)} answers for "
                + ("one image" if images == 1 else f"{images} images; export it with {advice}")
            )
    classes, labels = _classes(document, outputs), len(document.label_set.labels)
    if classes not in (None, labels):
        raise ModelFileError(f"{where}: it has {classes} classes, its document {labels} labels")
    for image in range(images):
        own = [output[image : image + 1] for output in outputs]
        if document.golden_sample is not None:
            golden.check(document.golden_sample, names, own, where, tolerance)
        family.postprocess(own, geometry, Options())


def _classes(document: ModelDocument, outputs: list[Tensor]) -> int | None:
    """Return how many classes the outputs tell apart; None where they don't show it."""
    output, shape = document.output, outputs[0].shape
    if isinstance(output, ClassScores):
        return shape[1]
    if isinstance(output, Yolov5Heads):
        return outputs[-1].shape[1] // len(output.anchors[0]) - 5
    row = {"yolov5_rows": shape[2] - 5, "ultralytics_rows": shape[1] - 4}
    return row.get(output.layout)


async def _all(work: Iterable[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """Return all results; where one fails nobody waits for the others any more."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def _gathered(jobs: list[_AnyJob]) -> Tensor:
    """Return the inputs as one tensor [n, 3, height, width]; a copy only if they are scattered."""
    first = jobs[0]
    assert first.batch is not None
    if all(job.batch is first.batch and job.index == first.index + i for i, job in enumerate(jobs)):
        return first.batch[first.index : first.index + len(jobs)]
    return np.stack([job.batch[job.index] for job in jobs if job.batch is not None])


def output_names(document: ModelDocument) -> list[str]:
    """Return the graph's outputs that the family reads, in its order."""
    output = document.output
    if isinstance(output, Yolov5Heads):
        return [*output.objectness, *output.features, *output.weights]
    return [output.tensor]


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
