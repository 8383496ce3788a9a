"""Builds the requests of both clients from the arguments of their methods.

The clients' methods take these options as keyword arguments. The server chooses the value of any
option that is left out.
"""

from collections.abc import Mapping, Sequence
from typing import TypedDict, TypeVar, Unpack

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from visavis.cards import TASKS, Task
from visavis.errors import FieldViolation, InvalidRequest
from visavis.images import Channels, ImageSource, image_message
from visavis.v1 import vision_pb2 as pb

_Request = TypeVar("_Request", bound=Message)


class ClassifyOptions(TypedDict, total=False):
    """Options of `classify`.

    channels: colour order of an array: "RGB" (the default), or "BGR" for OpenCV. version: 1 or
    above. top_k: number of labels, 1 or above. annotate: True to receive the picture with the
    answer drawn on it. explain: True to receive a heat map of the best label, or a label.
    """

    channels: Channels
    version: int | None
    top_k: int | None
    annotate: bool
    explain: bool | str


class _DetectorOptions(TypedDict, total=False):
    channels: Channels
    score_threshold: float | None
    iou_threshold: float | None
    max_detections: int | None
    labels: Sequence[str]
    class_agnostic: bool
    annotate: bool
    explain: bool | str


class DetectOptions(_DetectorOptions, total=False):
    """Options of `detect`.

    score_threshold, iou_threshold: range [0, 1]. max_detections: range [1, 1000]. labels: the
    names of the labels to keep. class_agnostic: True to let boxes of different labels suppress
    each other. The other options are those of `classify`.
    """

    version: int | None


class CompareOptions(_DetectorOptions, total=False):
    """Options of `compare`: those of both tasks, and the models to compare.

    tasks: empty for all tasks. models: empty for all capable models. baseline: the model that
    the others are compared with. annotate_difference: True to receive the answers drawn side by
    side, with the boxes in the colours of what they share with the baseline's.
    """

    tasks: Sequence[Task | str]
    models: Sequence[str]
    baseline: str | None
    top_k: int | None
    annotate_difference: bool


def classify_request(
    image: ImageSource, model: str, **options: Unpack[ClassifyOptions]
) -> pb.ClassifyRequest:
    """Return the request for one model's labels. Raises InvalidRequest, OSError."""
    message = image_message(image, options.pop("channels", "RGB"))
    return _built(pb.ClassifyRequest, image=message, model=model, **options)


def detect_request(
    image: ImageSource, model: str, **options: Unpack[DetectOptions]
) -> pb.DetectRequest:
    """Return the request for one model's boxes. Raises InvalidRequest, OSError."""
    message = image_message(image, options.pop("channels", "RGB"))
    return _built(pb.DetectRequest, image=message, model=model, **options)


def compare_request(image: ImageSource, **options: Unpack[CompareOptions]) -> pb.CompareRequest:
    """Return the request for all models' answers. Raises InvalidRequest, OSError."""
    tasks = task_values(options.pop("tasks", ()))
    message = image_message(image, options.pop("channels", "RGB"))
    return _built(pb.CompareRequest, image=message, tasks=tasks, **options)


def compare_stream_request(
    image: ImageSource, **options: Unpack[CompareOptions]
) -> pb.CompareStreamRequest:
    """Return the request for a stream of all models' answers. Raises InvalidRequest, OSError."""
    tasks = task_values(options.pop("tasks", ()))
    message = image_message(image, options.pop("channels", "RGB"))
    return _built(pb.CompareStreamRequest, image=message, tasks=tasks, **options)


def list_models_request() -> pb.ListModelsRequest:
    """Return the request for all models' cards."""
    return pb.ListModelsRequest()


def get_model_request(model: str, version: int | None) -> pb.GetModelRequest:
    """Return the request for one model's card. Raises InvalidRequest."""
    return _built(pb.GetModelRequest, model=model, version=version)


def health_request() -> health_pb2.HealthCheckRequest:
    """Return the request for the health of the whole server."""
    return health_pb2.HealthCheckRequest()


def task_values(tasks: Sequence[Task | str]) -> list[pb.Task]:
    """Return the protocol's values of the named tasks. Raises InvalidRequest."""
    _refuse_text("tasks", tasks)
    values = {name: value for value, name in TASKS.items()}
    for task in tasks:
        if task not in values:
            known = ", ".join(values)
            raise _invalid("tasks", f"unknown task {str(task)!r}; choose from: {known}")
    return [values[Task(task)] for task in tasks]


def _built(kind: type[_Request], **fields: object) -> _Request:
    for name in ("labels", "models"):
        _refuse_text(name, fields.get(name))
    if "explain" in fields:
        fields["explain"] = _explain(fields["explain"])
    try:
        return kind(**fields)
    except (TypeError, ValueError):  # No such field, or a value of the wrong type.
        raise _invalid_field(kind, fields) from None


def _explain(wanted: object) -> pb.Explain | None:
    """Return the request for a heat map: True for the best label, or a label."""
    if wanted is None or wanted is False:
        return None
    if wanted is True:
        return pb.Explain()
    if not isinstance(wanted, str):
        raise _invalid("explain", f"explain is {wanted!r}; give True, or a label as a string")
    return pb.Explain(label=wanted)


def _invalid_field(kind: type[Message], fields: Mapping[str, object]) -> InvalidRequest:
    """Return an error that names the invalid field, which protobuf's error does not."""
    for name, value in fields.items():
        try:
            kind(**{name: value})
        except (TypeError, ValueError) as error:
            return _invalid(name, f"{name} can't be {value!r}: {error}")
    return InvalidRequest(f"can't build a {kind.__name__} from {', '.join(fields)}")


def _refuse_text(name: str, value: object) -> None:
    # A string is a sequence of strings too: "person" would mean the labels p, e, r, s, o, n.
    if isinstance(value, str):
        raise _invalid(name, f"{name} takes a list of names, such as [{value!r}]")


def _invalid(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, violations=(FieldViolation(field, message),))
