"""A deployment's replica: one model, in all its versions."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import structlog
from ray import get_runtime_context
from ray.serve import metrics

from visavis_server.api.inference import messages
from visavis_server.arrays import Image, Tensor
from visavis_server.card import Task
from visavis_server.errors import VisavisError, drop_traceback
from visavis_server.log import configure_logging
from visavis_server.models.engine import ms_since
from visavis_server.models.loader import Loader
from visavis_server.models.model_files import ModelFile
from visavis_server.models.planning import Planner, planner_of
from visavis_server.models.served_model import ServedModel
from visavis_server.ray.limits import allotted, image_limits
from visavis_server.ray.wire import (
    Description,
    Failure,
    Outcome,
    PictureAnswer,
    TensorAnswer,
    UnknownVersion,
    Work,
)
from visavis_server.runtime.budget import Held
from visavis_server.runtime.scheduling.scheduler import Scheduler, Statistics
from visavis_server.runtime.scheduling.work import Caller
from visavis_server.settings import ImageLimits, Settings
from visavis_server.telemetry.histograms import BOUNDS_S
from visavis_server.telemetry.timings import Timings
from visavis_server.vision.image import decode
from visavis_server.vision.results import Options, Picture

_log = structlog.get_logger()

_STAGES = ("queue", "decode", "preprocess", "inference", "postprocess")


class Replica:
    """Loads a model and answers for it.

    files: the model's versions. settings: by name. Raises StartupError if any version can't be
    served.
    """

    def __init__(self, files: Sequence[ModelFile], settings: Mapping[str, Any]) -> None:
        read = allotted(settings)
        configure_logging(read.log_format, read.log_level)
        planner = _planner(read)
        self._limits = image_limits(read)
        self._bf16 = planner.bf16
        self._scheduler = Scheduler(
            planner.cores, read.queue_size, planner.streams, read.max_queue_wait_s, read.stuck_s
        )
        loader = Loader(planner, self._scheduler, read.engine_dir())
        self._models = {file.version: _loaded(loader, file) for file in files}
        self._stages = metrics.Histogram(
            "visavis_stage_seconds",
            description="Seconds of each stage of answered requests.",
            boundaries=list(BOUNDS_S),
            tag_keys=("model", "version", "stage"),
        )

    def check_health(self) -> None:
        """Raise if a core is stuck; Ray Serve then replaces the replica."""
        if trouble := self._scheduler.trouble():
            raise RuntimeError(trouble)

    def describe(self) -> list[Description]:
        """Return the model's versions."""
        return [
            Description(
                version=version,
                document=model.document,
                plan=model.plan,
                provider=model.served_by.execution_provider,
                output_shapes=list(model.engine.sessions.first.output_shapes),
                origin=model.origin,
                bf16=self._bf16,
            )
            for version, model in self._models.items()
        ]

    async def answer(self, work: Work, sent: bytes | Image) -> Outcome:
        """Return the answer for a picture; sent: its file, or its pixels."""
        if (model := self._models.get(work.version)) is None:
            return UnknownVersion()
        assert work.options is not None
        options = (
            Options(classify=work.options)  # type: ignore[arg-type]  # by the model's task
            if model.task is Task.CLASSIFICATION
            else Options(detect=work.options)  # type: ignore[arg-type]
        )
        picture = _picture(sent, self._limits)
        try:
            answer = await model.answer(picture, options, _caller(work))
        except VisavisError as error:
            return _failure(error)
        self._record(model, answer.timings)
        return PictureAnswer(answer, picture.width, picture.height)

    async def infer(self, work: Work, tensor: Tensor) -> Outcome:
        """Return the family's tensor for one input [3, height, width]."""
        if (model := self._models.get(work.version)) is None:
            return UnknownVersion()
        started = time.perf_counter()
        try:
            (result,) = await model.infer(tensor[None], _caller(work))
        except VisavisError as error:
            return _failure(error)
        return TensorAnswer(result, ms_since(started))

    def statistics(self) -> list[bytes]:
        """Return the ModelStatistics of each version since this replica started, as wire format."""
        counted = self._scheduler.statistics()
        return [
            messages.statistics(model, counted.get(model.engine, Statistics())).SerializeToString()
            for model in self._models.values()
        ]

    def _record(self, model: ServedModel, timings: Timings) -> None:
        for stage in _STAGES:
            tags = {"model": model.name, "version": str(model.version), "stage": stage}
            self._stages.observe(getattr(timings, f"{stage}_ms") / 1e3, tags)


def _loaded(loader: Loader, file: ModelFile) -> ServedModel:
    model = loader.load(file)
    provider = model.served_by.execution_provider
    _log.info(
        "loaded", model=str(file), provider=provider, plan=str(model.plan), why=model.plan.why
    )
    return model


def _planner(settings: Settings) -> Planner:
    share = get_runtime_context().get_assigned_resources().get("GPU", 0.0)
    planner, _ = planner_of(settings, gpu_share=min(share, 1.0) or 1.0)
    return planner


def _caller(work: Work) -> Caller:
    timeout_s = work.timeout_s
    return Caller(work.method, None if timeout_s is None else time.monotonic() + timeout_s)


def _picture(sent: bytes | Image, limits: ImageLimits) -> Picture:
    if isinstance(sent, np.ndarray):
        # Ray's object store holds the pixels, and counts them.
        return Picture(lambda: sent)
    held = Held(limits.budget, "decoded")
    return Picture(lambda: decode(sent, limits, hold=held.wait_for), held)


def _failure(error: VisavisError) -> Failure:
    drop_traceback(error)
    return Failure.of(error)
