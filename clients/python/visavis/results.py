"""What the calls give back: the messages of the contract as frozen, typed values.

The fields are those of `protos/visavis/v1/vision.proto`, which says what each one means. The
answers keep the message that they were read from in `message`.
"""

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from visavis.cards import Model, Task
from visavis.v1 import vision_pb2 as pb


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Width and height in pixels of the upright picture."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the upright picture; (0, 0) is its top left corner."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        """The edges: left, top, right, bottom."""
        return (self.x_min, self.y_min, self.x_max, self.y_max)

    @property
    def width(self) -> float:
        """Width in pixels."""
        return self.x_max - self.x_min

    @property
    def height(self) -> float:
        """Height in pixels."""
        return self.y_max - self.y_min


@dataclass(frozen=True, slots=True)
class Classification:
    """One label for the whole image."""

    class_id: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Detection:
    """One object found in the image."""

    box: Box
    class_id: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class ServedBy:
    """What answered. With random weights the answer has no meaning."""

    model: str
    version: int
    precision: str
    execution_provider: str
    random_weights: bool


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time went, in milliseconds."""

    queue_ms: float
    decode_ms: float
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """A picture that the server drew: the bytes of a file, its media type and its size.

    A server draws a picture smaller where the file would be larger than it allows, by default
    4 MB. size: None from servers that don't tell it.
    """

    encoded: bytes = field(repr=False)
    media_type: str
    size: ImageSize | None = None

    def save(self, path: str | PathLike[str]) -> None:
        """Write the picture to a file, as it came. Raises OSError."""
        Path(path).write_bytes(self.encoded)


@dataclass(frozen=True, slots=True)
class ClassifyResult:
    """What one model sees in the whole image, highest score first."""

    classifications: tuple[Classification, ...]
    served_by: ServedBy
    timings: Timings
    image_size: ImageSize
    annotated_image: AnnotatedImage | None
    message: pb.ClassifyResponse = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class DetectResult:
    """What one model finds in the image, highest score first."""

    detections: tuple[Detection, ...]
    served_by: ServedBy
    timings: Timings
    image_size: ImageSize
    annotated_image: AnnotatedImage | None
    message: pb.DetectResponse = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class AnswerStatus:
    """How one model fared. code: name of the gRPC status; message: empty where it is OK."""

    code: str
    message: str

    @property
    def ok(self) -> bool:
        """Whether there is an answer."""
        return self.code == "OK"


@dataclass(frozen=True, slots=True)
class ClassificationAgreement:
    """How far two classifiers agree. The divergence is None where the label sets differ."""

    same_top1: bool
    top_k_overlap: float
    jensen_shannon_divergence: float | None


@dataclass(frozen=True, slots=True)
class DetectionMatch:
    """One pair of detections, by their index here and in the baseline's answer."""

    index: int
    baseline_index: int
    iou: float


@dataclass(frozen=True, slots=True)
class DetectionAgreement:
    """How far two detectors agree. The means are None without pairs."""

    matched: int
    only_here: int
    only_in_baseline: int
    mean_iou: float | None
    mean_score_difference: float | None
    f1: float
    matches: tuple[DetectionMatch, ...]


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What one model answered, or why it didn't; the agreement is with the baseline."""

    served_by: ServedBy
    status: AnswerStatus
    classifications: tuple[Classification, ...]
    detections: tuple[Detection, ...]
    timings: Timings | None
    agreement: ClassificationAgreement | DetectionAgreement | None
    message: pb.ModelAnswer = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """The answers of all models that are capable of one task."""

    task: Task
    baseline: str
    answers: tuple[ModelAnswer, ...]
    nothing_to_compare: str


@dataclass(frozen=True, slots=True)
class LeftOutModel:
    """A model that a comparison did not ask, and why."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answers of all models, side by side."""

    comparisons: tuple[TaskComparison, ...]
    left_out: tuple[LeftOutModel, ...]
    models: tuple[Model, ...]
    image_size: ImageSize
    timings: Timings
    annotated_image: AnnotatedImage | None
    message: pb.CompareResponse = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """One model's answer, as soon as it is there; its agreement comes with the summary."""

    task: Task
    answer: ModelAnswer
