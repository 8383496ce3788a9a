"""The return values of the calls: the protocol's messages as frozen, typed values.

`protos/visavis/v1/vision.proto` documents each field. `message` holds the original message.
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
    """The model and session that answered. With random weights the answer is meaningless."""

    model: str
    version: int
    precision: str
    execution_provider: str
    random_weights: bool


@dataclass(frozen=True, slots=True)
class Timings:
    """The duration of each step, in milliseconds."""

    queue_ms: float
    decode_ms: float
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """A picture with the answer drawn on it: the bytes of a file, its media type and its size.

    The server shrinks the picture if the file would exceed its limit, by default 4 MB. size: None
    from older servers, which don't report it.
    """

    encoded: bytes = field(repr=False)
    media_type: str
    size: ImageSize | None = None

    def save(self, path: str | PathLike[str]) -> None:
        """Write the bytes to a file. Raises OSError."""
        Path(path).write_bytes(self.encoded)


@dataclass(frozen=True, slots=True)
class ClassifyResult:
    """One model's labels for the whole image, highest score first."""

    classifications: tuple[Classification, ...]
    served_by: ServedBy
    timings: Timings
    image_size: ImageSize
    annotated_image: AnnotatedImage | None
    message: pb.ClassifyResponse = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class DetectResult:
    """The objects that one model found in the image, highest score first."""

    detections: tuple[Detection, ...]
    served_by: ServedBy
    timings: Timings
    image_size: ImageSize
    annotated_image: AnnotatedImage | None
    message: pb.DetectResponse = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class AnswerStatus:
    """The status of one model's answer. code: name of the gRPC status. message: empty if OK."""

    code: str
    message: str

    @property
    def ok(self) -> bool:
        """True if the model answered."""
        return self.code == "OK"


@dataclass(frozen=True, slots=True)
class ClassificationAgreement:
    """The agreement of two classifiers. The divergence is None if their label sets differ.

    unknown_here, unknown_in_baseline: labels of each that the other model lacks; they are left out.
    """

    same_top1: bool
    top_k_overlap: float
    jensen_shannon_divergence: float | None
    unknown_here: int = 0
    unknown_in_baseline: int = 0


@dataclass(frozen=True, slots=True)
class DetectionMatch:
    """A pair of matching detections: their indexes in this answer and in the baseline's."""

    index: int
    baseline_index: int
    iou: float


@dataclass(frozen=True, slots=True)
class DetectionAgreement:
    """The agreement of two detectors. The means are None if no detections match.

    unknown_here, unknown_in_baseline: detections of each whose label the other model lacks; they
    are left out.
    """

    matched: int
    only_here: int
    only_in_baseline: int
    mean_iou: float | None
    mean_score_difference: float | None
    f1: float
    matches: tuple[DetectionMatch, ...]
    unknown_here: int = 0
    unknown_in_baseline: int = 0


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """One model's answer, or the reason for its failure; `agreement` is with the baseline."""

    served_by: ServedBy
    status: AnswerStatus
    classifications: tuple[Classification, ...]
    detections: tuple[Detection, ...]
    timings: Timings | None
    agreement: ClassificationAgreement | DetectionAgreement | None
    message: pb.ModelAnswer = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """The answers of all models that were compared on one task."""

    task: Task
    baseline: str
    answers: tuple[ModelAnswer, ...]
    nothing_to_compare: str


@dataclass(frozen=True, slots=True)
class LeftOutModel:
    """A model that a comparison left out, and the reason."""

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
    """One model's answer in a stream; its agreement follows in the final Comparison."""

    task: Task
    answer: ModelAnswer
