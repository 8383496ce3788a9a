"""What a peer may answer: it is another's server, and its words end up in terminals and reports.

Numbers are finite, texts short and without control characters, lists as long as was asked for, and
every answer is of a model that has a card. What breaks a rule is that server's failure.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from google.protobuf.message import Message

from visavis.errors import ServerFailed
from visavis.merging import ALL_LABELS
from visavis.v1 import vision_pb2 as pb

PEER_BYTES_MAX: Final = 16 << 20
"""The largest message of a peer: a parsed message takes many times its bytes."""

MOST_MODELS: Final = 1000
"""The models that a peer may have."""

MOST_DETECTIONS: Final = 1000
"""The detections of a picture; the contract's largest value."""

# Of all answers for one picture together.
_MOST_ROWS: Final = 1 << 19
_MOST_CHARACTERS: Final = 4096
_MOST_CELLS: Final = 1 << 20
_MOST_MS: Final = 1e9
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# Messages of several lines are allowed.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def require_usable(answer: Any, asked: Any, address: str) -> None:
    """Raise ServerFailed if a peer's answer, a message of the contract, breaks a rule."""
    if isinstance(answer, pb.CompareResponse):
        _require_comparison(answer, asked, address)
    elif isinstance(answer, pb.ListModelsResponse):
        _require_models(answer.models, address)
    elif isinstance(answer, pb.GetModelResponse):
        _require_card(answer.model, address)
        if answer.model.name != asked.model:
            raise ServerFailed(
                f"the server at {address} answers with the card of {answer.model.name}, not of "
                f"{asked.model}"
            )
    _require_plain(answer, address)


def require_usable_card(card: pb.Model, address: str) -> None:
    """Raise ServerFailed if a peer's card breaks a rule."""
    _require_card(card, address)
    _require_plain(card, address)


def _require_card(card: pb.Model, address: str) -> None:
    if not _NAME.fullmatch(card.name):
        raise ServerFailed(
            f"the server at {address} has a model called {card.name[:80]!r}; a name has at most "
            "128 of A-Z a-z 0-9 . _ - and begins with a letter or digit"
        )
    labels = card.label_set
    if not 0 <= labels.size <= ALL_LABELS or len(labels.labels) not in (0, labels.size):
        raise ServerFailed(
            f"the server at {address} says that {card.name} has {labels.size} labels, and sends "
            f"{len(labels.labels)}; a model may have {ALL_LABELS}"
        )


def _require_models(cards: Sequence[pb.Model], address: str) -> None:
    if len(cards) > MOST_MODELS:
        raise ServerFailed(
            f"the server at {address} lists {len(cards)} models; a peer may have {MOST_MODELS}"
        )
    for card in cards:
        _require_card(card, address)
    if len({card.name for card in cards}) < len(cards):
        raise ServerFailed(f"the server at {address} lists a model twice")


def _require_comparison(answer: pb.CompareResponse, asked: pb.CompareRequest, address: str) -> None:
    _require_models(answer.models, address)
    size = answer.image_size
    if min(size.width, size.height) < 1:
        raise ServerFailed(
            f"the server at {address} says that the picture has {size.width} × {size.height} pixels"
        )
    if len(answer.left_out) > MOST_MODELS:
        raise ServerFailed(f"the server at {address} leaves out {len(answer.left_out)} models")
    sizes = {card.name: card.label_set.size for card in answer.models}
    seen: set[tuple[int, str]] = set()
    rows = 0
    for task in answer.comparisons:
        for one in task.answers:
            name = one.served_by.model
            if name not in sizes or (asked.models and name not in asked.models):
                raise ServerFailed(
                    f"the server at {address} answers for the model {name[:80]!r}, which it was "
                    "not asked for or has no card of"
                )
            if (task.task, name) in seen:
                raise ServerFailed(f"the server at {address} answers twice for {name}")
            seen.add((task.task, name))
            rows += len(one.classifications) + len(one.detections)
            if rows > _MOST_ROWS:
                raise ServerFailed(
                    f"the server at {address} answers with more than {_MOST_ROWS} labels and boxes"
                )
            _require_answer(one, task.task, asked, sizes[name], address)
    _require_times(answer.timings, address)


def _require_answer(
    one: pb.ModelAnswer, task: int, asked: pb.CompareRequest, labels: int, address: str
) -> None:
    name = one.served_by.model
    most = asked.max_detections if asked.HasField("max_detections") else MOST_DETECTIONS
    if len(one.detections) > most:
        raise ServerFailed(
            f"{name} at {address} answers with {len(one.detections)} boxes; the most are {most}"
        )
    if task == pb.TASK_CLASSIFICATION and not one.status.code and not one.classifications:
        raise ServerFailed(f"{name} at {address} answers without a label")
    items: Iterable[pb.Classification | pb.Detection] = chain(one.classifications, one.detections)
    for found in items:
        if not 0 <= found.class_id < labels:
            raise ServerFailed(
                f"{name} at {address} answers with class id {found.class_id}; its card has "
                f"{labels} labels"
            )
        if not found.score >= 0:
            raise ServerFailed(f"{name} at {address} answers with the score {found.score:g}")
    if one.HasField("heat_map"):
        cells = one.heat_map.width * one.heat_map.height
        if not 0 < cells <= _MOST_CELLS or cells != len(one.heat_map.values):
            raise ServerFailed(
                f"{name} at {address} answers with a heat map of {one.heat_map.width} × "
                f"{one.heat_map.height} cells and {len(one.heat_map.values)} values"
            )
    _require_times(one.timings, address)


def _require_times(timings: pb.Timings, address: str) -> None:
    for field, ms in timings.ListFields():
        if not 0 <= ms <= _MOST_MS:
            raise ServerFailed(f"the server at {address} says that {field.name} is {ms:g}")


def _require_plain(value: Any, address: str) -> None:
    """Raise ServerFailed unless all numbers inside are finite and all texts can be shown."""
    if isinstance(value, str):
        if len(value) > _MOST_CHARACTERS:
            raise ServerFailed(
                f"the server at {address} sends a text of {len(value)} characters; it may have "
                f"{_MOST_CHARACTERS}"
            )
        if _CONTROL.search(value):
            raise ServerFailed(f"the server at {address} sends control characters: {value[:80]!r}")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ServerFailed(f"the server at {address} sends the number {value}")
    elif isinstance(value, Message):
        for _, each in value.ListFields():
            _require_plain(each, address)
    elif isinstance(value, Mapping):
        for pair in value.items():
            _require_plain(pair, address)
    elif not isinstance(value, int | bytes):
        for each in value:
            _require_plain(each, address)
