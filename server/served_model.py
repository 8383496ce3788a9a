"""What answers for one version of one model: its session, its family, its card."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from server import golden
from server.card import ClassScores, ModelDocument, Yolov5Heads
from server.errors import ModelFileError
from server.families import Family, family_of
from server.results import Answer, Classified, Detected, Image, Options, ServedBy, Tensor, Timings
from server.scheduler import Scheduler
from server.session import Session


@dataclass(frozen=True, slots=True)
class Verification:
    """What was there to be verified when the model was loaded, and was right."""

    digest: bool
    golden_sample: bool


class ServedModel:
    """One version of one model, loaded."""

    def __init__(
        self,
        version: int,
        document: ModelDocument,
        session: Session,
        scheduler: Scheduler,
        digest_verified: bool,
    ) -> None:
        self.name = document.name
        self.version = version
        self.document = document
        self.task = document.task
        self.family: Family = family_of(document)
        self.session = session
        self._scheduler = scheduler
        self._output_names = output_names(document)
        self.verification = Verification(
            digest=digest_verified, golden_sample=document.golden_sample is not None
        )
        self.served_by = ServedBy(
            model=document.name,
            version=version,
            precision=document.precision,
            execution_provider=session.provider,
            random_weights=document.provenance.random_weights,
            task=document.task,
        )

    def warm_up(self, where: str) -> None:
        """Run the golden picture through the model.

        Raises ModelFileError if graph and document don't fit each other, or if the outcome
        is not the golden one.
        """
        if missing := set(self._output_names) - set(self.session.output_names):
            raise ModelFileError(f"{where}: its graph lacks the output {', '.join(missing)}")
        tensor, geometry = self.family.preprocess(golden.picture())
        for expected, given in zip(self.session.input_shape, tensor.shape, strict=True):
            if expected not in (None, given):
                raise ModelFileError(
                    f"{where}: its graph takes {self.session.input_shape}, its document says "
                    f"{list(tensor.shape)}"
                )
        outputs = self.session.run(tensor, self._output_names)
        if any(output.shape[0] != 1 for output in outputs):
            raise ModelFileError(f"{where}: it gives {len(outputs[0])} answers for one image")
        classes, labels = self._classes(outputs), len(self.document.label_set.labels)
        if classes not in (None, labels):
            raise ModelFileError(f"{where}: it has {classes} classes, its document {labels} labels")
        if self.document.golden_sample is not None:
            golden.check(self.document.golden_sample, self._output_names, outputs, where)
        self.family.postprocess(outputs, geometry, Options())

    def _classes(self, outputs: list[Tensor]) -> int | None:
        """Return how many classes the outputs tell apart; None where they don't show it."""
        output, shape = self.document.output, outputs[0].shape
        if isinstance(output, ClassScores):
            return shape[1]
        if isinstance(output, Yolov5Heads):
            return shape[1] // len(output.anchors[0]) - 5
        row = {"yolov5_rows": shape[2] - 5, "ultralytics_rows": shape[1] - 4}
        return row.get(output.layout)

    async def answer(self, image: Image, options: Options, deadline: float | None = None) -> Answer:
        """Return the model's answer on an image, uint8 RGB [H, W, 3].

        deadline: on time.monotonic()'s clock. Raises Overloaded, DeadlineExceeded,
        ModelFailed.
        """
        started = time.perf_counter()
        (result, timings), queue_ms = await self._scheduler.run(
            lambda: self._answer(image, options), deadline
        )
        total_ms = (time.perf_counter() - started) * 1e3
        timings = replace(timings, queue_ms=queue_ms, total_ms=total_ms)
        return Answer(result, self.served_by, timings)

    def _answer(self, image: Image, options: Options) -> tuple[Classified | Detected, Timings]:
        lap = _stopwatch()
        tensor, geometry = self.family.preprocess(image)
        preprocess_ms = lap()
        outputs = self.session.run(tensor, self._output_names)
        inference_ms = lap()
        result = self.family.postprocess(outputs, geometry, options)
        return result, Timings(
            preprocess_ms=preprocess_ms, inference_ms=inference_ms, postprocess_ms=lap()
        )


def output_names(document: ModelDocument) -> list[str]:
    """Return the graph's outputs that the family reads, in its order."""
    output = document.output
    if isinstance(output, Yolov5Heads):
        return list(output.tensors)
    return [output.tensor]


def _stopwatch() -> Callable[[], float]:
    """Return a function that gives the milliseconds since it was last called."""
    last = time.perf_counter()

    def lap() -> float:
        nonlocal last
        before, last = last, time.perf_counter()
        return (last - before) * 1e3

    return lap
