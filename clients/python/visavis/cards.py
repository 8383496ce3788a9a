"""A model's card as frozen, typed values.

`protos/visavis/v1/vision.proto` documents each field. An empty string means unknown, None absent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from visavis.conversions import Convertible
from visavis.v1 import vision_pb2 as pb


class Task(StrEnum):
    """A vision task."""

    CLASSIFICATION = "classification"
    DETECTION = "detection"


TASKS = {
    pb.TASK_CLASSIFICATION: Task.CLASSIFICATION,
    pb.TASK_OBJECT_DETECTION: Task.DETECTION,
}


@dataclass(frozen=True, slots=True)
class ModelFacts(Convertible):
    """The facts by which people compare models; `sources` names the origin of each."""

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
class LabelSet(Convertible):
    """A named list of classes; `list_models` leaves `labels` empty."""

    name: str
    size: int
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelInput(Convertible):
    """The size of a model's input in pixels, and how an image is resized to it."""

    width: int
    height: int
    resize: str


@dataclass(frozen=True, slots=True)
class DetectionDefaults(Convertible):
    """The thresholds for requests that set none."""

    score_threshold: float
    iou_threshold: float
    max_detections: int


@dataclass(frozen=True, slots=True)
class Provenance(Convertible):
    """The origin of a model file."""

    weights_source: str
    weights_sha256: str
    exporter: str
    exported_at: str
    libraries: Mapping[str, str]
    conversion: str


@dataclass(frozen=True, slots=True)
class Verification(Convertible):
    """The checks that the model passed when it was loaded."""

    digest: bool
    golden_sample: bool


@dataclass(frozen=True, slots=True)
class RowComparison(Convertible):
    """A detector's candidates before NMS, compared row by row."""

    count: int
    max_score_difference: float
    max_box_difference_px: float


@dataclass(frozen=True, slots=True)
class ReceiptPicture(Convertible):
    """The differences on one picture of the receipt."""

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
    max_heat_map_difference: float | None


@dataclass(frozen=True, slots=True)
class Receipt(Convertible):
    """The differences between the file and its PyTorch original; a tolerance of 0 is no limit."""

    made_at: str
    score_tolerance: float
    box_tolerance_px: float
    heat_map_tolerance: float
    max_score_difference: float
    max_box_difference_px: float | None
    max_heat_map_difference: float | None
    rows: RowComparison | None
    pictures: tuple[ReceiptPicture, ...]


@dataclass(frozen=True, slots=True)
class Accuracy(Convertible):
    """A model's accuracy on labelled pictures, and that of its PyTorch original.

    error: standard error of the difference between the two.
    """

    metric: str
    value: float
    original: float
    pictures: int
    source: str
    held_out: bool
    error: float


@dataclass(frozen=True, slots=True)
class Model(Convertible):
    """One model's card; only `get_model` returns the receipt."""

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
