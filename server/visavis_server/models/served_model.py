"""One loaded version of one model, as the services see it: its card, its answers, its timings."""

import asyncio
import copy
import time
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from visavis_server.arrays import Tensor
from visavis_server.card import (
    ClassScores,
    FasterRcnnRows,
    ModelDocument,
    RetinanetHeads,
    Yolov5Heads,
)
from visavis_server.errors import ModelFailed, VisavisError
from visavis_server.models.engine import Engine, Job, PictureJob, TensorJob, ms_since
from visavis_server.models.model_files import Stamp
from visavis_server.runtime.plan import Plan
from visavis_server.runtime.scheduling.scheduler import Scheduler
from visavis_server.runtime.scheduling.work import Caller
from visavis_server.telemetry import call_trace
from visavis_server.telemetry.histograms import StageHistograms
from visavis_server.telemetry.timings import Timings
from visavis_server.vision.families.torchvision_detector import TorchvisionDetector
from visavis_server.vision.results import Answer, Options, Picture, ServedBy

_log = structlog.get_logger()
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Verification:
    """The checks that the file allowed at load; each of them passed."""

    digest: bool
    golden_sample: bool


@dataclass(frozen=True, slots=True)
class Origin:
    """The files that a model was read from.

    identity: a digest of everything that decides how the model is served. stamp: of the opened
    files; changes when the model file or the JSON beside it does.
    """

    identity: str
    stamp: Stamp


class ServedModel:
    """One version of one model, loaded and verified."""

    def __init__(
        self,
        version: int,
        document: ModelDocument,
        engine: Engine,
        scheduler: Scheduler,
        origin: Origin,
        bf16: bool = False,
    ) -> None:
        self.name = document.name
        self.version = version
        self.document = document
        self.task = document.task
        self.engine = engine
        self.origin = origin
        self.stages = StageHistograms()
        self._scheduler = scheduler
        self.verification = Verification(
            digest=document.digest is not None, golden_sample=document.golden_sample is not None
        )
        self.served_by = ServedBy(
            model=document.name,
            version=version,
            # An int8 model keeps its precision: only its other operators compute in bfloat16.
            precision="bf16" if bf16 and document.precision != "int8" else document.precision,
            execution_provider=engine.sessions.first.provider,
            random_weights=document.provenance.random_weights,
            task=document.task,
        )

    @property
    def plan(self) -> Plan:
        """The plan that the model runs by."""
        return self.engine.plan

    def planned(self, plan: Plan) -> "ServedModel":
        """Return a copy that shares this model's sessions and runs by another plan."""
        other = copy.copy(self)
        other.engine = copy.copy(self.engine)
        other.engine.plan = plan
        return other

    async def answer(self, picture: Picture, options: Options, caller: Caller) -> Answer:
        """Return the model's answer for a picture.

        Raises InvalidRequest if the picture can't be decoded, or the answer not explained;
        Overloaded, DeadlineExceeded, ModelFailed.
        """
        (answer,) = await self.answers([picture], options, caller)
        return answer

    async def answers(
        self, pictures: Sequence[Picture], options: Options, caller: Caller
    ) -> list[Answer]:
        """Return the answers for the pictures of one request. Raises as answer does."""
        chosen = options.of(self.task)
        if chosen.explain is not None:
            self.engine.family.require_explainable(chosen.explain)
        jobs = [PictureJob(picture=picture, options=chosen) for picture in pictures]
        return [Answer(result, self.served_by, t) for result, t in await self._do(jobs, caller)]

    async def infer(self, batch: Tensor, caller: Caller) -> list[Tensor]:
        """Return the family's tensor for each input of one request [b, 3, height, width].

        Inputs share runs with pictures. Raises as answer does.
        """
        jobs = [TensorJob(tensor=tensor) for tensor in batch]
        return [result for result, _ in await self._do(jobs, caller)]

    async def _do(self, jobs: Sequence[Job], caller: Caller) -> list[tuple[Any, Timings]]:
        """Return the result and the timings of each job of a request."""
        started = time.perf_counter()

        async def one(job: Job) -> tuple[Any, Timings]:
            result, spent = await self._scheduler.submit(self.engine, job, caller)
            return result, Timings(
                queue_ms=spent.queue_ms,
                decode_ms=job.decode_ms,
                preprocess_ms=job.preprocess_ms,
                inference_ms=spent.run_ms,
                postprocess_ms=job.postprocess_ms,
                total_ms=ms_since(started),
            )

        try:
            done = [await one(jobs[0])] if len(jobs) == 1 else await _all(map(one, jobs))
        except Exception as error:
            code = error.code if isinstance(error, VisavisError) else "INTERNAL"
            self.stages.fail(time.perf_counter() - started, code)
            if isinstance(error, ModelFailed):
                _log.error("model failed", model=self.name, version=self.version, exc_info=error)
            raise
        # The slowest job's: the others ran beside it.
        timings = max((timings for _, timings in done), key=lambda t: t.total_ms)
        self.stages.add(timings, time.time())
        provider = self.served_by.execution_provider
        call_trace.note(timings, model=self.name, version=self.version, provider=provider)
        return done

    @property
    def tensor_shape(self) -> list[int]:
        """The shape of the tensors that `infer` returns; -1 where the graph doesn't tell it."""
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
        if isinstance(output, RetinanetHeads | FasterRcnnRows):
            return list(TorchvisionDetector(document).tensor_shape)
        _, *rest = self.engine.sessions.first.output_shapes[output.tensor]
        rows = rest[1] if output.layout == "ultralytics_rows" else rest[0]
        return [4 + labels, rows or -1]


async def _all(work: Iterable[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """Return all results; if one fails, cancel the others."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
