"""A comparison over the Open Inference Protocol: requests for pictures, and what answers mean.

A model takes part if its configuration carries our card (the parameter `visavis.card`, as Triton's
config.pbtxt has it too), and if it takes encoded pictures: an input IMAGE of BYTES [b, 1], and the
outputs `scores` and `class_ids` [b, n], of detectors also `boxes` [b, n, 4] in pixels of the
picture. So do visavis' own models called NAME_image. The protocol has no stages' times and no
picture's size, so answers have neither.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import json_format
from google.rpc import code_pb2  # Ships no py.typed.

from visavis.errors import (
    FieldViolation,
    InvalidRequest,
    InvalidSettings,
    ModelNotFound,
    ServerFailed,
    VisavisError,
)
from visavis.inference_messages import message
from visavis.merging import ALL_LABELS
from visavis.peer_answers import (
    MOST_DETECTIONS,
    MOST_MODELS,
    PEER_BYTES_MAX,
    require_usable_card,
)
from visavis.v1 import vision_pb2 as pb

CARD: Final = "visavis.card"
_INPUT: Final = "IMAGE"
_SUFFIX: Final = "_image"
_DEFAULT_TOP_K: Final = 5
_DEFAULT_DETECTIONS: Final = 300
# Rows of an answer: a server may ignore how many it is asked for.
_MOST_ROWS: Final = ALL_LABELS
_NAMED: Final = 5
# Of a shape, for the message; one more than any output has.
_MOST_DIMENSIONS: Final = 4
_MOST_ERROR: Final = 300
# Of a name, for the message.
_MOST_CHARACTERS: Final = 80


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model of such a server. name: what it is called there. card: with its labels."""

    name: str
    card: pb.Model


def index_request() -> Any:
    """Return the request for the models that are ready."""
    return message("RepositoryIndexRequest")(ready=True)


def ready_models(index: Any, address: str) -> list[str]:
    """Return the names in an index, each once. Raises InvalidSettings for too many."""
    names = list(dict.fromkeys(one.name for one in index.models if one.state in ("READY", "")))
    if len(names) > MOST_MODELS:
        raise InvalidSettings(
            f"the server at {address} lists {len(names)} models; a peer may have {MOST_MODELS}"
        )
    return names


class Configs:
    """The configurations of a server's models, of which only what a comparison needs is kept."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._found: list[OpenModel] = []
        self._without: list[str] = []
        self._tensors: list[str] = []
        self._bytes = 0

    def add(self, config: Any) -> None:
        """Read a configuration.

        Raises InvalidSettings if its card cannot be read, or if all together are too large;
        ServerFailed if its card breaks a rule of `peer_answers`.
        """
        text = config.parameters[CARD].string_value if CARD in config.parameters else ""
        self._bytes += len(text)
        if self._bytes > PEER_BYTES_MAX:
            raise InvalidSettings(
                f"the cards of the server at {self._address} exceed {PEER_BYTES_MAX} bytes; a peer "
                "may not have more"
            )
        if not text:
            self._without.append(config.name)
        elif [one.name for one in config.input] != [_INPUT]:
            self._tensors.append(config.name)
        else:
            card = _card(text, config.name, self._address)
            require_usable_card(card, self._address)
            self._found.append(OpenModel(config.name, card))

    def models(self) -> tuple[OpenModel, ...]:
        """Return the models that can be compared. Raises InvalidSettings if there is none."""
        if self._found:
            return tuple(self._found)
        why = "it serves no model"
        if self._tensors:
            why = (
                f"{_listed(self._tensors)} take{'s' * (len(self._tensors) == 1)} tensors; a "
                f"compared model takes encoded pictures, as an input {_INPUT} of TYPE_STRING"
            )
        elif self._without:
            why = (
                f"no card can be read: the configuration of {_listed(self._without)} lacks the "
                f"parameter {CARD}; put the model's card there, which `visavis models NAME --json` "
                "prints as `model`"
            )
        raise InvalidSettings(
            f"the server at {self._address} speaks the Open Inference Protocol, but none of its "
            f"models can be compared: {why}"
        )


def chosen(models: Sequence[OpenModel], asked: pb.CompareRequest) -> list[OpenModel]:
    """Return the models that a comparison is of. Raises ModelNotFound."""
    by_name = {one.card.name: one for one in models}
    if unknown := [name for name in asked.models if name not in by_name]:
        raise ModelNotFound(f"no model {unknown[0][:128]!r}; there are {_listed(list(by_name))}")
    wanted = [by_name[name] for name in dict.fromkeys(asked.models)] or list(models)
    return [one for one in wanted if not asked.tasks or {*one.card.tasks} & {*asked.tasks}]


def infer_request(model: OpenModel, asked: pb.CompareRequest) -> Any:
    """Return the request for one model's answer. Raises InvalidRequest for what it can't send."""
    encoded = asked.image.encoded
    if not encoded:
        raise _invalid("image", "a server of the Open Inference Protocol takes encoded pictures")
    if asked.HasField("explain"):
        raise _invalid("explain", "the Open Inference Protocol has no heat maps")
    request = message("ModelInferRequest")(model_name=model.name)
    request.inputs.add(name=_INPUT, datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(struct.pack("<I", len(encoded)) + encoded)
    given = request.parameters
    if pb.TASK_CLASSIFICATION in model.card.tasks:
        given["top_k"].int64_param = _top_k(model, asked)
        return request
    for name in ("score_threshold", "iou_threshold"):
        if asked.HasField(name):
            given[name].double_param = getattr(asked, name)
    # All of them where labels are chosen: those of other labels are left out here.
    given["max_detections"].int64_param = MOST_DETECTIONS if asked.labels else _most_boxes(asked)
    if asked.class_agnostic:
        given["class_agnostic"].bool_param = True
    return request


def answer(model: OpenModel, response: Any, asked: pb.CompareRequest) -> pb.ModelAnswer:
    """Return a model's answer, best first. Raises ServerFailed if it is not one of its card's."""
    columns = _Columns(model, response)
    scores, class_ids = columns.floats("scores"), columns.integers("class_ids")
    if len(scores) != len(class_ids):
        raise ServerFailed(
            f"{model.name} answers with {len(scores)} scores and {len(class_ids)} class ids"
        )
    labels = model.card.label_set.labels
    rows = [row for row in zip(scores, class_ids, range(len(scores)), strict=True) if row[1] >= 0]
    if wrong_scores := [score for score, _, _ in rows if not 0 <= score < math.inf]:
        raise ServerFailed(f"{model.name} answers with the score {wrong_scores[0]}")
    if wrong := [class_id for _, class_id, _ in rows if class_id >= len(labels)]:
        raise ServerFailed(
            f"{model.name} answers with class id {wrong[0]}; its card has {len(labels)} labels"
        )
    rows.sort(key=lambda row: -row[0])
    found = pb.ModelAnswer(served_by=_served_by(model, response.model_version))
    if pb.TASK_CLASSIFICATION in model.card.tasks:
        for score, class_id, _ in rows[: _top_k(model, asked)]:
            found.classifications.add(class_id=class_id, label=labels[class_id], score=score)
        return found
    boxes = columns.floats("boxes", 4)
    if len(boxes) != 4 * len(scores):
        raise ServerFailed(
            f"{model.name} answers with {len(boxes) // 4} boxes and {len(scores)} scores"
        )
    kept = [row for row in rows if not asked.labels or labels[row[1]] in asked.labels]
    for score, class_id, k in kept[: _most_boxes(asked)]:
        x_min, y_min, x_max, y_max = edges = boxes[4 * k : 4 * k + 4]
        if not all(map(math.isfinite, edges)):
            raise ServerFailed(f"{model.name} answers with the box {[*edges]}")
        box = pb.BoundingBox(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)
        found.detections.add(box=box, class_id=class_id, label=labels[class_id], score=score)
    return found


def failed(model: OpenModel, error: VisavisError) -> pb.ModelAnswer:
    """Return the answer of a model that has none."""
    known = error.code in code_pb2.Code.keys()  # noqa: SIM118  an enum, no dict
    code = code_pb2.Code.Value(error.code) if known else code_pb2.UNKNOWN
    return pb.ModelAnswer(
        served_by=_served_by(model, ""), status=pb.AnswerStatus(code=code, message=error.message)
    )


def comparison(
    models: Sequence[OpenModel], answers: Sequence[pb.ModelAnswer]
) -> pb.CompareResponse:
    """Return the answers as a comparison, without agreements and without the picture's size."""
    response = pb.CompareResponse(models=[card_in_list(one) for one in models])
    for task in (pb.TASK_CLASSIFICATION, pb.TASK_OBJECT_DETECTION):
        capable = {one.card.name for one in models if task in one.card.tasks}
        own = [one for one in answers if one.served_by.model in capable]
        if own:
            response.comparisons.add(task=task, baseline=own[0].served_by.model, answers=own)
    return response


def card_in_list(model: OpenModel) -> pb.Model:
    """Return a card as lists have it, without labels and receipt."""
    card = pb.Model()
    card.CopyFrom(model.card)
    del card.label_set.labels[:]
    card.ClearField("receipt")
    return card


class _Columns:
    """The outputs of a response by name, as plain numbers."""

    def __init__(self, model: OpenModel, response: Any) -> None:
        self._model = model
        raw = response.raw_output_contents
        self._outputs = {
            one.name: (one, raw[k] if k < len(raw) else None)
            for k, one in enumerate(response.outputs)
        }

    def floats(self, name: str, width: int = 1) -> Sequence[float]:
        """Return an output FP32 [1, n], or [1, n, width], row by row."""
        return self._numbers(name, "FP32", "f", "fp32_contents", width)

    def integers(self, name: str) -> Sequence[int]:
        """Return an output INT64 [1, n]."""
        return self._numbers(name, "INT64", "q", "int64_contents", 1)

    def _numbers(
        self, name: str, datatype: str, code: str, contents: str, width: int
    ) -> Sequence[Any]:
        if name not in self._outputs:
            raise self._failure(f"has no output {name}, but {_listed(list(self._outputs))}")
        tensor, raw = self._outputs[name]
        sent = len(getattr(tensor.contents, contents))
        count = sent if raw is None else len(raw) // struct.calcsize(code)
        if count > _MOST_ROWS * width:
            raise self._failure(
                f"sends {count} numbers as {name}; it may send {_MOST_ROWS * width}"
            )
        values: Sequence[Any]
        if raw is None:
            values = list(getattr(tensor.contents, contents))
        elif len(raw) % struct.calcsize(code) == 0:
            values = struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw)
        else:
            raise self._failure(f"sends {len(raw)} bytes as {name}, {tensor.datatype[:16]}")
        shape = list(tensor.shape[:_MOST_DIMENSIONS])
        wanted = [1, len(values) // width, *([width] if width > 1 else [])]
        if tensor.datatype != datatype or shape != wanted:
            raise self._failure(
                f"sends {name} as {tensor.datatype[:16]} {shape} for one picture; it must be "
                f"{datatype} [1, n{f', {width}' if width > 1 else ''}]"
            )
        return values

    def _failure(self, why: str) -> ServerFailed:
        return ServerFailed(f"{self._model.name} {why}")


def _card(text: str, name: str, address: str) -> pb.Model:
    """Return the card of a model. Raises InvalidSettings."""
    where = f"the parameter {CARD} of {name[:_MOST_CHARACTERS]} at {address}"
    try:
        card = json_format.Parse(text, pb.Model(), ignore_unknown_fields=True)
    except (json_format.ParseError, RecursionError) as error:
        raise InvalidSettings(f"{where} is no card: {str(error)[:_MOST_ERROR]}") from None
    known = {pb.TASK_CLASSIFICATION, pb.TASK_OBJECT_DETECTION} & {*card.tasks}
    if len(known) != 1 or not card.label_set.labels:
        raise InvalidSettings(f"{where} has no task or no labels; GetModel returns whole cards")
    if name != card.name + _SUFFIX:
        card.name = name
    card.label_set.size = len(card.label_set.labels)
    return card


def _served_by(model: OpenModel, version: str) -> pb.ServedBy:
    card = model.card
    return pb.ServedBy(
        model=card.name,
        version=int(version) if version.isdecimal() and len(version) < 10 else card.version,
        precision=card.precision,
        execution_provider=card.execution_provider,
        random_weights=card.random_weights,
    )


def _top_k(model: OpenModel, asked: pb.CompareRequest) -> int:
    wanted = asked.top_k if asked.HasField("top_k") else _DEFAULT_TOP_K
    return min(wanted, len(model.card.label_set.labels))


def _most_boxes(asked: pb.CompareRequest) -> int:
    return asked.max_detections if asked.HasField("max_detections") else _DEFAULT_DETECTIONS


def _listed(names: Sequence[str]) -> str:
    left = len(names) - _NAMED
    shown = (name[:_MOST_CHARACTERS] for name in names[:_NAMED])
    return ", ".join(shown) + (f" and {left} more" if left > 0 else "")


def _invalid(field: str, why: str) -> InvalidRequest:
    return InvalidRequest(why, violations=(FieldViolation(field, why),))
