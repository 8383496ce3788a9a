"""Requests, built from what a caller gives; nothing here sends them.

A client's methods take these options by name. An option that isn't given is left to the server.
"""

from collections.abc import Mapping, Sequence
from typing import TypedDict, TypeVar, Unpack

from google.protobuf.message import Message

from visavis.cards import TASKS, Task
from visavis.errors import FieldViolation, InvalidRequest
from visavis.images import Channels, ImageSource, image_message
from visavis.v1 import vision_pb2 as pb

_Request = TypeVar("_Request", bound=Message)


class ClassifyOptions(TypedDict, total=False):
    """Options of `classify`: version and top_k from 1 on; annotate asks for a picture.

    channels: the order of an array's colours, "BGR" for OpenCV's; without it, "RGB".
    """

    channels: Channels
    version: int | None
    top_k: int | None
    annotate: bool


class _DetectorOptions(TypedDict, total=False):
    channels: Channels
    score_threshold: float | None
    iou_threshold: float | None
    max_detections: int | None
    labels: Sequence[str]
    class_agnostic: bool
    annotate: bool


class DetectOptions(_DetectorOptions, total=False):
    """Options of `detect`.

    score_threshold, iou_threshold: from 0 to 1. max_detections: from 1 to 1000. labels: names
    of those to keep. class_agnostic: boxes of different labels drop each other too. channels:
    as for `classify`.
    """

    version: int | None


class CompareOptions(_DetectorOptions, total=False):
    """Options of `compare`: those of both tasks, and what to compare.

    tasks: none means all. models: none means all that are capable. baseline: the model that
    the others are held against.
    """

    tasks: Sequence[Task | str]
    models: Sequence[str]
    baseline: str | None
    top_k: int | None


def classify_request(
    image: ImageSource, model: str, **options: Unpack[ClassifyOptions]
) -> pb.ClassifyRequest:
    """Return the request for one model's labels. Raises InvalidRequest, OSError."""
    given = image_message(image, options.pop("channels", "RGB"))
    return _built(pb.ClassifyRequest, image=given, model=model, **options)


def detect_request(
    image: ImageSource, model: str, **options: Unpack[DetectOptions]
) -> pb.DetectRequest:
    """Return the request for one model's boxes. Raises InvalidRequest, OSError."""
    given = image_message(image, options.pop("channels", "RGB"))
    return _built(pb.DetectRequest, image=given, model=model, **options)


def compare_request(image: ImageSource, **options: Unpack[CompareOptions]) -> pb.CompareRequest:
    """Return the request for all models' answers. Raises InvalidRequest, OSError."""
    tasks = task_values(options.pop("tasks", ()))
    given = image_message(image, options.pop("channels", "RGB"))
    return _built(pb.CompareRequest, image=given, tasks=tasks, **options)


def compare_stream_request(
    image: ImageSource, **options: Unpack[CompareOptions]
) -> pb.CompareStreamRequest:
    """Return the request for all models' answers, one by one. Raises InvalidRequest, OSError."""
    tasks = task_values(options.pop("tasks", ()))
    given = image_message(image, options.pop("channels", "RGB"))
    return _built(pb.CompareStreamRequest, image=given, tasks=tasks, **options)


def get_model_request(model: str, version: int | None) -> pb.GetModelRequest:
    """Return the request for one model's card. Raises InvalidRequest."""
    return _built(pb.GetModelRequest, model=model, version=version)


def task_values(tasks: Sequence[Task | str]) -> list[pb.Task]:
    """Return the contract's values for tasks, given by name. Raises InvalidRequest."""
    _refuse_text("tasks", tasks)
    values = {name: value for value, name in TASKS.items()}
    for task in tasks:
        if task not in values:
            known = ", ".join(values)
            raise _invalid("tasks", f"task {str(task)!r} is unknown; there are: {known}")
    return [values[Task(task)] for task in tasks]


def _built(kind: type[_Request], **fields: object) -> _Request:
    for name in ("labels", "models"):
        _refuse_text(name, fields.get(name))
    try:
        return kind(**fields)
    except (TypeError, ValueError):  # No such field, or a value of the wrong type.
        raise _misfit(kind, fields) from None


def _misfit(kind: type[Message], fields: Mapping[str, object]) -> InvalidRequest:
    """Return the error that names the field that doesn't fit; protobuf's own doesn't."""
    for name, value in fields.items():
        try:
            kind(**{name: value})
        except (TypeError, ValueError) as error:
            return _invalid(name, f"{name} can't be {value!r}: {error}")
    return InvalidRequest(f"no {kind.__name__} can be made of {', '.join(fields)}")


def _refuse_text(name: str, value: object) -> None:
    # A text is a sequence of texts too: "person" would mean the labels p, e, r, s, o, n.
    if isinstance(value, str):
        raise _invalid(name, f"{name} takes a list of names, such as [{value!r}]")


def _invalid(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, violations=(FieldViolation(field, message),))
