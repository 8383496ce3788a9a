"""The card is described three times: in the document, the contract, and the SDK. They agree."""

from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from types import NoneType, SimpleNamespace
from typing import Any, cast, get_args, get_type_hints

import pytest
from google.protobuf.descriptor import Descriptor
from pydantic import BaseModel
from visavis import cards
from visavis.card_reading import read_model
from visavis.v1 import vision_pb2 as pb

from visavis_server import card
from visavis_server.api.vision.cards import model_card
from visavis_server.card import ModelDocument
from visavis_server.models.served_model import Verification
from visavis_server.vision.results import ServedBy

from . import graphs

# Fields of the document that the card does not show: they serve the model.
HIDDEN: dict[type[BaseModel], set[str]] = {
    card.ModelDocument: {"schema_version", "task", "output", "digest", "golden_sample"},
    card.ModelInput: {"tensor", "dtype", "mean", "std"},
    card.Provenance: {"random_weights"},
}
# Fields of the card that the server adds or computes.
ADDED: dict[type[BaseModel], set[str]] = {
    card.ModelDocument: {
        "version",
        "versions",
        "tasks",
        "execution_provider",
        "random_weights",
        "verification",
    },
    card.LabelSet: {"size"},
    card.Receipt: {"max_score_difference", "max_box_difference_px", "max_heat_map_difference"},
}
# Fields that the card shows in another form.
CONVERTED = {(card.ModelInput, "resize")}

Node = tuple[type[BaseModel], Descriptor, type]


def part_of(annotation: Any) -> Any:
    """Return the class in the annotation of an optional or repeated field."""
    (kind, *_) = [each for each in get_args(annotation) if each is not NoneType] or [annotation]
    return part_of(kind) if get_args(kind) else kind


def nodes(node: Node) -> Iterator[Node]:
    """Yield a class of the document with its message and its class of the SDK, and all below."""
    yield node
    document, message, sdk = node
    hints = get_type_hints(sdk)
    for name in sorted(document.model_fields.keys() & message.fields_by_name.keys() & hints.keys()):
        part = part_of(document.model_fields[name].annotation)
        is_part = isinstance(part, type) and issubclass(part, BaseModel)
        if is_part and (document, name) not in CONVERTED:
            below = message.fields_by_name[name].message_type
            yield from nodes((part, below, part_of(hints[name])))


ROOT: Node = (ModelDocument, pb.Model.DESCRIPTOR, cards.Model)


@pytest.mark.parametrize("node", list(nodes(ROOT)), ids=lambda node: node[0].__name__)
def test_the_document_the_contract_and_the_sdk_have_the_same_fields(node: Node) -> None:
    document, message, sdk = node
    shown = set(document.model_fields) - HIDDEN.get(document, set()) | ADDED.get(document, set())
    assert set(message.fields_by_name) == shown
    assert {field.name for field in fields(sdk)} - {"message"} == shown


RECEIPT = card.Receipt(
    made_at=datetime(2026, 11, 23, 12, tzinfo=UTC),
    score_tolerance=1e-3,
    box_tolerance_px=0.5,
    heat_map_tolerance=2e-3,
    rows=card.RowComparison(count=7, max_score_difference=1e-6, max_box_difference_px=2e-3),
    pictures=(
        card.ReceiptPicture(
            name="bus.jpg",
            width=810,
            height=1080,
            score_threshold=0.25,
            compared=5,
            excused=4,
            max_score_difference=4e-6,
            max_box_difference_px=1.7e-3,
            same_top1=True,
            only_here=2,
            only_in_original=3,
            max_heat_map_difference=5e-7,
        ),
    ),
)
FULL = graphs.detector_document(
    schema_version=1,
    variant_of="boxes-fp32",
    precision="int8",
    facts=card.Facts(
        architecture="X",
        organization="Y",
        category="vision",
        modality="image to boxes",
        release_date="2020-06",
        context_window=9,
        parameter_count=11,
        code_license="MIT",
        weights_license="BSD",
        real_time=True,
        sources={"architecture": "paper"},
    ),
    detection_defaults=card.DetectionDefaults(
        score_threshold=0.25, iou_threshold=0.5, max_detections=17
    ),
    provenance=card.Provenance(
        weights_source="somewhere",
        weights_sha256="ab" * 32,
        random_weights=True,
        exporter="visavis 0",
        exported_at=datetime(2026, 11, 22, 12, tzinfo=UTC),
        libraries={"torch": "2"},
        conversion="rounded",
    ),
    digest="cd" * 32,
    golden_sample=card.GoldenSample(
        outputs=(card.SampledOutput(tensor="x", indices=(0,), values=(1.0,)),),
        relative_tolerance=1e-3,
    ),
    receipt=RECEIPT,
    accuracy=card.Accuracy(
        metric="mAP50-95",
        value=0.3125,
        original=0.375,
        error=0.0078125,
        pictures=64,
        source="64 pictures",
        held_out=True,
    ),
)


def require_equal(part: Any, shown: Any, where: str) -> None:
    """Assert that the SDK shows every value of a part of the document."""
    if isinstance(part, BaseModel):
        kind = type(part)
        for name in set(kind.model_fields) - HIDDEN.get(kind, set()):
            assert name in part.model_fields_set, f"{where}.{name} has no value in this test"
            if (kind, name) not in CONVERTED:
                require_equal(getattr(part, name), getattr(shown, name), f"{where}.{name}")
    elif isinstance(part, tuple):
        assert len(part) == len(shown), where
        for each, other in zip(part, shown, strict=True):
            require_equal(each, other, where)
    else:
        assert shown == (part.isoformat() if isinstance(part, datetime) else part), where


def test_every_value_of_the_document_reaches_the_sdk() -> None:
    served_by = ServedBy(
        model=FULL.name,
        version=3,
        precision=FULL.precision,
        execution_provider="CPUExecutionProvider",
        random_weights=True,
        task=FULL.task,
    )
    model = SimpleNamespace(
        name=FULL.name,
        version=3,
        document=FULL,
        served_by=served_by,
        verification=Verification(digest=True, golden_sample=True),
    )
    message = model_card(cast(Any, model), [1, 3], whole=True)
    shown = read_model(message)
    require_equal(FULL, shown, "model")
    assert (shown.version, shown.versions) == (3, (1, 3))
    assert shown.tasks == (cards.Task.DETECTION,)
    assert shown.execution_provider == "CPUExecutionProvider"
    assert shown.random_weights
    assert shown.verification == cards.Verification(digest=True, golden_sample=True)
    assert shown.label_set.size == len(FULL.label_set.labels)
    assert shown.input.resize == FULL.input.describe_resize()
    assert shown.receipt is not None
    assert shown.receipt.max_score_difference == RECEIPT.max_score_difference
    assert shown.receipt.max_box_difference_px == RECEIPT.max_box_difference_px
    assert shown.receipt.max_heat_map_difference == RECEIPT.max_heat_map_difference == 5e-7
