"""Requests of VisionService, each read once into a validated query.

Field paths of errors are decided here: the domain knows no wire names.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from visavis.v1 import vision_pb2 as pb

from visavis_server.api.vision.cards import TASKS
from visavis_server.arrays import Image
from visavis_server.card import Task
from visavis_server.errors import InvalidRequest
from visavis_server.runtime.budget import Held
from visavis_server.settings import ImageLimits
from visavis_server.vision.heat_maps import Explain
from visavis_server.vision.image import decode, from_raw
from visavis_server.vision.results import (
    ClassifyOptions,
    DetectOptions,
    InvalidOption,
    Options,
    Picture,
)

ComparisonRequest = pb.CompareRequest | pb.CompareStreamRequest

_ImageRequest = pb.ClassifyRequest | pb.DetectRequest | ComparisonRequest
_TASKS: dict[int, Task] = {number: task for task, number in TASKS.items()}
_PIXEL_FORMATS = {
    pb.PIXEL_FORMAT_RGB: "RGB",
    pb.PIXEL_FORMAT_BGR: "BGR",
    pb.PIXEL_FORMAT_GRAY: "GRAY",
    pb.PIXEL_FORMAT_NV12: "NV12",
}


@dataclass(frozen=True, slots=True)
class ModelQuery:
    """A model by name; version: None selects the highest."""

    model: str
    version: int | None


@dataclass(frozen=True, slots=True)
class ClassifyQuery(ModelQuery):
    """One picture for one classifier."""

    picture: Picture
    options: ClassifyOptions
    annotate: bool


@dataclass(frozen=True, slots=True)
class DetectQuery(ModelQuery):
    """One picture for one detector."""

    picture: Picture
    options: DetectOptions
    annotate: bool


@dataclass(frozen=True, slots=True)
class CompareQuery:
    """One picture for several models.

    tasks, models: empty selects all. baseline: None selects the first model of each task.
    difference: draw how the answers differ from the baseline's.
    """

    picture: Picture
    tasks: tuple[Task, ...]
    models: tuple[str, ...]
    baseline: str | None
    options: Options
    annotate: bool
    difference: bool


def read_classify(request: pb.ClassifyRequest, limits: ImageLimits) -> ClassifyQuery:
    """Return a Classify request as a query. Raises InvalidRequest.

    Decoding the picture raises InvalidRequest or Overloaded.
    """
    return ClassifyQuery(
        picture=read_picture(request, limits, keep=request.annotate),
        model=request.model,
        version=_version(request),
        options=_classify_options(request),
        annotate=request.annotate,
    )


def read_detect(request: pb.DetectRequest, limits: ImageLimits) -> DetectQuery:
    """Return a Detect request as a query; raises as read_classify does."""
    return DetectQuery(
        picture=read_picture(request, limits, keep=request.annotate),
        model=request.model,
        version=_version(request),
        options=_detect_options(request),
        annotate=request.annotate,
    )


def read_compare(request: ComparisonRequest, limits: ImageLimits) -> CompareQuery:
    """Return a Compare or CompareStream request as a query; raises as read_classify does."""
    return CompareQuery(
        picture=read_picture(request, limits, keep=True),
        options=Options(_classify_options(request), _detect_options(request)),
        tasks=tuple(map(_task, request.tasks)),
        models=tuple(request.models),
        baseline=request.baseline if request.HasField("baseline") else None,
        annotate=request.annotate or request.annotate_difference,
        difference=request.annotate_difference,
    )


def read_get_model(request: pb.GetModelRequest) -> ModelQuery:
    """Return a GetModel request as a query. Raises InvalidRequest."""
    return ModelQuery(request.model, _version(request))


def read_picture(request: _ImageRequest, limits: ImageLimits, keep: bool) -> Picture:
    """Return the picture of a request. Raises InvalidRequest if it has none.

    keep: the pixels are needed after preprocessing, too.
    """
    image = request.image
    source = image.WhichOneof("source")
    if source is None:
        raise InvalidRequest(
            "image",
            "the request has no image; send image.encoded (JPEG, PNG, WebP) or image.raw",
        )
    held = Held(limits.budget, "decoded")
    picture = Picture(
        (lambda: decode(image.encoded, limits, hold=held.wait_for))
        if source == "encoded"
        else (lambda: _decode_raw(image.raw, limits, held.wait_for)),
        held,
        (lambda: image.encoded) if source == "encoded" else None,
    )
    picture.keep = keep
    return picture


def _decode_raw(raw: pb.RawImage, limits: ImageLimits, hold: Callable[[int], None]) -> Image:
    name = _PIXEL_FORMATS.get(raw.format)
    if name is None:
        raise InvalidRequest(
            "image.raw.format", f"format is {raw.format}; choose RGB, BGR, GRAY or NV12"
        )
    return from_raw(name, raw.width, raw.height, raw.data, limits, hold)


def _version(request: pb.ClassifyRequest | pb.DetectRequest | pb.GetModelRequest) -> int | None:
    if not request.HasField("version"):
        return None
    if request.version < 1:
        raise InvalidRequest("version", f"version is {request.version}; it must be at least 1")
    return request.version


def _classify_options(request: pb.ClassifyRequest | ComparisonRequest) -> ClassifyOptions:
    with _fields_of_options():
        if not request.HasField("top_k"):
            return ClassifyOptions(explain=_explain(request))
        return ClassifyOptions(top_k=request.top_k, explain=_explain(request))


def _detect_options(request: pb.DetectRequest | ComparisonRequest) -> DetectOptions:
    with _fields_of_options():
        return DetectOptions(
            score_threshold=_threshold(request, "score_threshold"),
            iou_threshold=_threshold(request, "iou_threshold"),
            max_detections=request.max_detections if request.HasField("max_detections") else None,
            labels=tuple(request.labels),
            class_agnostic=request.class_agnostic,
            explain=_explain(request),
        )


def _explain(
    request: pb.ClassifyRequest | pb.DetectRequest | ComparisonRequest,
) -> Explain | None:
    if not request.HasField("explain"):
        return None
    return Explain(request.explain.label if request.explain.HasField("label") else None)


@contextmanager
def _fields_of_options() -> Iterator[None]:
    """Report an invalid option as an invalid field: fields are named like their options."""
    try:
        yield
    except InvalidOption as error:
        raise InvalidRequest(error.option, str(error)) from None


def _threshold(request: pb.DetectRequest | ComparisonRequest, field: str) -> float | None:
    """Return a threshold in the sender's decimals: 0.45 arrives as the float32 0.449999988."""
    if not request.HasField(field):
        return None
    value: float = getattr(request, field)
    return round(value, 7) if math.isfinite(value) else value


def _task(number: int) -> Task:
    if number not in _TASKS:
        names = ", ".join(map(pb.Task.Name, TASKS.values()))
        raise InvalidRequest("tasks", f"task {number} is unknown; choose {names}")
    return _TASKS[number]
