"""The scheduler's engine for one model: from pictures or tensors to batches, and to results."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from visavis_server.arrays import Tensor
from visavis_server.card import ModelDocument, graph_outputs, output_names
from visavis_server.runtime.buffers import Buffers
from visavis_server.runtime.plan import Plan
from visavis_server.runtime.scheduling.work import Stop
from visavis_server.runtime.session import Sessions
from visavis_server.vision.families import Family, family_of
from visavis_server.vision.results import (
    Classified,
    ClassifyOptions,
    Detected,
    DetectOptions,
    Picture,
)


@dataclass(slots=True, eq=False)
class _Job:
    """One image on its way through the engine.

    Its input is the beginning of batch[index], as much as its shape takes.
    """

    batch: Tensor | None = None
    index: int = 0
    shape: tuple[int, ...] = ()
    decode_ms: float = 0.0
    preprocess_ms: float = 0.0
    postprocess_ms: float = 0.0

    @property
    def input(self) -> Tensor:
        """The job's input, [3, height, width], once its shape is known."""
        assert self.batch is not None
        return self.batch[self.index].reshape(-1)[: prod(self.shape)].reshape(self.shape)


@dataclass(slots=True, eq=False, kw_only=True)
class PictureJob(_Job):
    """Turns a picture into labels or boxes."""

    picture: Picture
    options: ClassifyOptions | DetectOptions
    geometry: Any = None

    @property
    def explained(self) -> bool:
        """True if the job needs the outputs for heat maps."""
        return self.options.explain is not None

    def prepare(self, family: Family) -> None:
        """Decode the picture and write the model's input."""
        self.decode_ms = self.picture.decode()
        started = time.perf_counter()
        self.shape = family.shape_for(self.picture.pixels)
        self.geometry = family.preprocess(self.picture.pixels, self.input)
        self.preprocess_ms = ms_since(started)
        if not self.picture.keep:
            self.picture.drop()

    def finish(
        self, family: Family, outputs: list[Tensor], for_maps: Sequence[Tensor]
    ) -> Classified | Detected:
        """Return labels or boxes, with a heat map if one is asked for."""
        answer = family.postprocess(outputs, self.geometry, self.options)
        if not self.explained:
            return answer
        explained = [*outputs, *for_maps]
        return replace(
            answer, heat_map=family.explain(explained, self.geometry, answer, self.options)
        )


@dataclass(slots=True, eq=False, kw_only=True)
class TensorJob(_Job):
    """Turns a ready-made input [3, height, width] into the family's tensor."""

    tensor: Tensor
    explained = False

    def prepare(self, family: Family) -> None:
        """Copy the input into the batch."""
        started = time.perf_counter()
        self.shape = self.tensor.shape
        self.input[...] = self.tensor
        self.preprocess_ms = ms_since(started)

    def finish(self, family: Family, outputs: list[Tensor], for_maps: Sequence[Tensor]) -> Tensor:
        """Return the family's tensor."""
        return family.as_tensor(outputs)


Job = PictureJob | TensorJob


class Engine:
    """Runs one model's jobs for the scheduler; its methods are called on several threads.

    constants: the graph's initializers that heat maps need.
    """

    def __init__(
        self,
        document: ModelDocument,
        sessions: Sessions,
        plan: Plan,
        buffers: Buffers,
        constants: Sequence[Tensor] = (),
    ) -> None:
        self.name = document.name
        self.family: Family = family_of(document)
        self.sessions = sessions
        self.plan = plan
        self._buffers = buffers
        self._constants = constants
        self._output_names = output_names(document)
        self._all_output_names = graph_outputs(document)

    def allocate(self, jobs: list[Job]) -> None:
        """Allocate one batch for the jobs and give each its row."""
        batch = self._buffers.empty(len(jobs), *self.family.input_shape)
        for index, job in enumerate(jobs):
            job.batch, job.index = batch, index

    def prepare(self, job: Job) -> None:
        """Write the job's input into its row of the batch."""
        job.prepare(self.family)

    def run(self, jobs: list[Job], exclusive: bool, stop: Stop) -> list[list[Tensor]]:
        """Return the outputs of each job, each a batch of 1. Raises as Session.run does."""
        images = _images(jobs)
        explained = any(job.explained for job in jobs)
        names = self._all_output_names if explained else self._output_names
        outputs = self.sessions.run(images, names, exclusive, stop)
        count = min(len(output) for output in outputs)
        return [[output[i : i + 1] for output in outputs] for i in range(count)]

    def finish(self, job: Job, output: list[Tensor]) -> Any:
        """Return the job's labels or boxes, or the family's tensor."""
        started = time.perf_counter()
        count = len(self._output_names)
        result = job.finish(self.family, output[:count], (*output[count:], *self._constants))
        job.postprocess_ms = ms_since(started)
        return result


def _images(jobs: list[Job]) -> Tensor | Sequence[Tensor]:
    """Return the inputs, each [3, height, width]: as one tensor if that needs no copy.

    Inputs whose shapes vary run one at a time.
    """
    first = jobs[0]
    if len(jobs) == 1:
        return first.input[None]
    assert first.batch is not None
    if all(job.batch is first.batch and job.index == first.index + i for i, job in enumerate(jobs)):
        return first.batch[first.index : first.index + len(jobs)]
    return [job.input for job in jobs]


def ms_since(started: float) -> float:
    """Return the milliseconds since a reading of time.perf_counter()."""
    return (time.perf_counter() - started) * 1e3
