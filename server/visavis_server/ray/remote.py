"""The ingress's models: their work runs on the replicas of other deployments."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

import ray
import structlog
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from visavis_server.errors import DeadlineExceeded, Overloaded, Unavailable
from visavis_server.models.engine import Engine, Job, PictureJob, TensorJob
from visavis_server.models.served_model import ServedModel
from visavis_server.ray.wire import (
    Description,
    Failure,
    Outcome,
    PictureAnswer,
    TensorAnswer,
    UnknownVersion,
    Work,
)
from visavis_server.runtime.plan import Plan
from visavis_server.runtime.scheduling.scheduler import Scheduler
from visavis_server.runtime.scheduling.work import Caller, WorkTimings
from visavis_server.vision.families import Family, family_of
from visavis_server.vision.results import ClassifyOptions, DetectOptions, Picture

_log = structlog.get_logger()

# Between the attempts of a call whose replica has ended, or has another version.
_PAUSES_S: Final = (0.0, 0.1, 0.4, 1.0)
_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Session:
    """The facts of a session on another node."""

    provider: str
    output_shapes: list[Any]


@dataclass(frozen=True, slots=True)
class _Sessions:
    first: _Session


@dataclass(frozen=True, eq=False)
class _Engine:
    """The facts of an engine on another node."""

    name: str
    family: Family
    plan: Plan
    sessions: _Sessions


class Pictures:
    """Puts decoded pictures into Ray's object store, each once, however many models look at it.

    scheduler: decodes them.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._references: WeakKeyDictionary[Picture, asyncio.Task[Any]] = WeakKeyDictionary()

    async def reference(self, picture: Picture, caller: Caller) -> Any:
        """Return a reference to a picture's pixels. Raises as Picture.decode does."""
        task = self._references.get(picture)
        if task is None:
            task = asyncio.create_task(self._put(picture, caller))
            self._references[picture] = task
        # One model's caller may leave while others wait.
        return await asyncio.shield(task)

    async def _put(self, picture: Picture, caller: Caller) -> Any:
        reference, _ = await self._scheduler.run(lambda: ray.put(picture.pixels), caller)
        return reference


@dataclass(frozen=True, slots=True)
class Replicas:
    """Runs the work of one version of a model; takes the place of its scheduler.

    outdated: called when a replica does not have this version.
    """

    handle: DeploymentHandle
    version: int
    pictures: Pictures
    outdated: Callable[[], None]
    name: str = field(default="")

    async def submit(self, engine: Engine, job: Job, caller: Caller) -> tuple[Any, WorkTimings]:
        """Return a replica's result for a job, and its timings; sets those of the job.

        Raises VisavisError. A call whose replica ends is repeated on another one.
        """
        if isinstance(job, PictureJob):
            return await self._picture(job, caller)
        return await self._tensor(job, caller)

    async def _picture(self, job: PictureJob, caller: Caller) -> tuple[Any, WorkTimings]:
        picture = job.picture
        # A picture for one model is decoded where the model is: its file is smaller.
        file = picture.encoded() if picture.encoded and not picture.keep else None
        sent = file if file is not None else await self.pictures.reference(picture, caller)
        outcome = await self._call("answer", caller, sent, job.options)
        assert isinstance(outcome, PictureAnswer)
        picture.width, picture.height = outcome.width, outcome.height
        timings = outcome.answer.timings
        job.decode_ms, job.preprocess_ms = timings.decode_ms, timings.preprocess_ms
        job.postprocess_ms = timings.postprocess_ms
        return outcome.answer.result, WorkTimings(timings.queue_ms, timings.inference_ms, 1)

    async def _tensor(self, job: TensorJob, caller: Caller) -> tuple[Any, WorkTimings]:
        outcome = await self._call("infer", caller, job.tensor)
        assert isinstance(outcome, TensorAnswer)
        return outcome.tensor, WorkTimings(0.0, outcome.total_ms, 1)

    async def _call(
        self,
        method: str,
        caller: Caller,
        sent: Any,
        options: ClassifyOptions | DetectOptions | None = None,
    ) -> Outcome:
        """Return the outcome of a call that succeeded. Raises VisavisError."""
        why = ""
        for pause_s in _PAUSES_S:
            await asyncio.sleep(pause_s)
            work = Work(self.version, caller.method, _timeout_s(caller), options)
            try:
                outcome = await self._once(method, work, sent)
            except RayTaskError:
                raise  # a fault in our own code: logged in full, and "internal error" to the client
            except BackPressureError:
                raise Overloaded(
                    f"too many requests are waiting for model {self.name}; try again later",
                    _RETRY_S,
                ) from None
            except (RayError, DeploymentUnavailableError) as error:
                why = f"a replica of model {self.name} ended; retry"
                _log.warning("call repeated", model=self.name, why=type(error).__name__)
                continue
            if isinstance(outcome, Failure):
                raise outcome.error()
            if not isinstance(outcome, UnknownVersion):
                return outcome
            why = f"version {self.version} of model {self.name} is being replaced; retry"
            self.outdated()
        raise Unavailable(why)

    async def _once(self, method: str, work: Work, sent: Any) -> Outcome:
        response = getattr(self.handle, method).remote(work, sent)
        try:
            async with asyncio.timeout(work.timeout_s):
                outcome: Outcome = await response
                return outcome
        except TimeoutError:
            response.cancel()
            raise DeadlineExceeded(
                f"the deadline passed while model {self.name} worked on the request"
            ) from None
        except asyncio.CancelledError:
            response.cancel()
            raise


def remote_model(
    description: Description,
    handle: DeploymentHandle,
    pictures: Pictures,
    outdated: Callable[[], None],
) -> ServedModel:
    """Return a model whose work runs on the replicas behind a handle."""
    document = description.document
    sessions = _Sessions(_Session(description.provider, description.output_shapes))
    engine = _Engine(document.name, family_of(document), description.plan, sessions)
    replicas = Replicas(handle, description.version, pictures, outdated, document.name)
    # It uses these for no more than their facts, and to submit work.
    return ServedModel(
        description.version,
        document,
        cast(Engine, engine),
        cast(Scheduler, replicas),
        description.origin,
        bf16=description.bf16,
    )


def _timeout_s(caller: Caller) -> float | None:
    """Return the seconds until a caller's deadline. Raises DeadlineExceeded if it has passed."""
    if caller.deadline is None:
        return None
    if (left_s := caller.deadline - time.monotonic()) <= 0:
        raise DeadlineExceeded("the deadline has passed")
    return left_s
