"""The card: what a model says of itself, as frozen, typed values.

The fields are those of `protos/visavis/v1/vision.proto`, which says what each one means. An
empty text is unknown; None is absent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from visavis.v1 import vision_pb2 as pb


class Task(StrEnum):
    """What a model can do with an image."""

    CLASSIFICATION = "classification"
    DETECTION = "detection"


TASKS = {
    pb.TASK_CLASSIFICATION: Task.CLASSIFICATION,
    pb.TASK_OBJECT_DETECTION: Task.DETECTION,
}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What people compare models by; `sources` says where each fact comes from."""

    architecture: str
    organization: str
    category: str
    modality: str
    release_date: str
    context_window: int | None
    parameter_count: int
    code_license: str
    weights_license: str
    real_time: bool | None
    sources: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LabelSet:
    """A named list of classes; `labels` is empty in lists."""

    name: str
    size: int
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelInput:
    """How an image becomes a model's input."""

    width: int
    height: int
    resize: str


@dataclass(frozen=True, slots=True)
class DetectionDefaults:
    """Thresholds that hold where a request names none."""

    score_threshold: float
    iou_threshold: float
    max_detections: int


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model file comes from."""

    weights_source: str
    weights_sha256: str
    exporter: str
    exported_at: str
    libraries: Mapping[str, str]
    conversion: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What was verified when the model was loaded."""

    digest: bool
    golden_sample: bool


@dataclass(frozen=True, slots=True)
class RowComparison:
    """A detector's candidates before NMS, compared row by row."""

    count: int
    max_score_difference: float
    max_box_difference_px: float


@dataclass(frozen=True, slots=True)
class ReceiptPicture:
    """How one picture of the receipt fared."""

    name: str
    width: int
    height: int
    score_threshold: float | None
    compared: int
    excused: int
    max_score_difference: float
    max_box_difference_px: float | None
    same_top1: bool | None
    only_here: int
    only_in_original: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """How closely the file follows the PyTorch original; a tolerance of 0 is no limit."""

    made_at: str
    score_tolerance: float
    box_tolerance_px: float
    max_score_difference: float
    max_box_difference_px: float | None
    rows: RowComparison | None
    pictures: tuple[ReceiptPicture, ...]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a model was right on labelled pictures; `original` is its PyTorch original.

    error: standard error of the difference of the two.
    """

    metric: str
    value: float
    original: float
    pictures: int
    source: str
    held_out: bool
    error: float


@dataclass(frozen=True, slots=True)
class Model:
    """One model's card; the receipt comes with `get_model` only."""

    name: str
    version: int
    versions: tuple[int, ...]
    tasks: tuple[Task, ...]
    precision: str
    variant_of: str
    execution_provider: str
    random_weights: bool
    facts: ModelFacts
    label_set: LabelSet
    input: ModelInput
    detection_defaults: DetectionDefaults | None
    provenance: Provenance
    verification: Verification
    receipt: Receipt | None
    accuracy: Accuracy | None
    message: pb.Model = field(repr=False, compare=False)


def read_model(message: pb.Model) -> Model:
    """Return one model's card."""
    defaults, verification = message.detection_defaults, message.verification
    return Model(
        name=message.name,
        version=message.version,
        versions=tuple(message.versions),
        tasks=tuple(TASKS[task] for task in message.tasks if task in TASKS),
        precision=message.precision,
        variant_of=message.variant_of,
        execution_provider=message.execution_provider,
        random_weights=message.random_weights,
        facts=_facts(message.facts),
        label_set=LabelSet(
            message.label_set.name, message.label_set.size, tuple(message.label_set.labels)
        ),
        input=ModelInput(message.input.width, message.input.height, message.input.resize),
        detection_defaults=DetectionDefaults(
            defaults.score_threshold, defaults.iou_threshold, defaults.max_detections
        )
        if message.HasField("detection_defaults")
        else None,
        provenance=Provenance(
            weights_source=message.provenance.weights_source,
            weights_sha256=message.provenance.weights_sha256,
            exporter=message.provenance.exporter,
            exported_at=message.provenance.exported_at,
            libraries=dict(message.provenance.libraries),
            conversion=message.provenance.conversion,
        ),
        verification=Verification(verification.digest, verification.golden_sample),
        receipt=_receipt(message.receipt) if message.HasField("receipt") else None,
        accuracy=_accuracy(message.accuracy) if message.HasField("accuracy") else None,
        message=message,
    )


def _facts(message: pb.ModelFacts) -> ModelFacts:
    return ModelFacts(
        architecture=message.architecture,
        organization=message.organization,
        category=message.category,
        modality=message.modality,
        release_date=message.release_date,
        context_window=message.context_window if message.HasField("context_window") else None,
        parameter_count=message.parameter_count,
        code_license=message.code_license,
        weights_license=message.weights_license,
        real_time=message.real_time if message.HasField("real_time") else None,
        sources=dict(message.sources),
    )


def _receipt(message: pb.Receipt) -> Receipt:
    rows = message.rows
    return Receipt(
        made_at=message.made_at,
        score_tolerance=message.score_tolerance,
        box_tolerance_px=message.box_tolerance_px,
        max_score_difference=message.max_score_difference,
        max_box_difference_px=message.max_box_difference_px
        if message.HasField("max_box_difference_px")
        else None,
        rows=RowComparison(rows.count, rows.max_score_difference, rows.max_box_difference_px)
        if message.HasField("rows")
        else None,
        pictures=tuple(_receipt_picture(picture) for picture in message.pictures),
    )


def _receipt_picture(message: pb.ReceiptPicture) -> ReceiptPicture:
    return ReceiptPicture(
        name=message.name,
        width=message.width,
        height=message.height,
        score_threshold=message.score_threshold if message.HasField("score_threshold") else None,
        compared=message.compared,
        excused=message.excused,
        max_score_difference=message.max_score_difference,
        max_box_difference_px=message.max_box_difference_px
        if message.HasField("max_box_difference_px")
        else None,
        same_top1=message.same_top1 if message.HasField("same_top1") else None,
        only_here=message.only_here,
        only_in_original=message.only_in_original,
    )


def _accuracy(message: pb.Accuracy) -> Accuracy:
    return Accuracy(
        metric=message.metric,
        value=message.value,
        original=message.original,
        pictures=message.pictures,
        source=message.source,
        held_out=message.held_out,
        error=message.error,
    )
