"""The return values of the calls: the protocol's messages as frozen, typed values.

`protos/visavis/v1/vision.proto` documents each field. `message` holds the original message.
"""

import math
import struct
import zlib
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis import conversions
from visavis.cards import Model, Task
from visavis.conversions import Convertible
from visavis.v1 import vision_pb2 as pb

if TYPE_CHECKING:
    import pandas
    import supervision


@dataclass(frozen=True, slots=True)
class ImageSize(Convertible):
    """Width and height in pixels of the upright picture."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Box(Convertible):
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
class Classification(Convertible):
    """One label for the whole image."""

    class_id: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Detection(Convertible):
    """One object found in the image."""

    box: Box
    class_id: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class ServedBy(Convertible):
    """The model and session that answered. With random weights the answer is meaningless."""

    model: str
    version: int
    precision: str
    execution_provider: str
    random_weights: bool


@dataclass(frozen=True, slots=True)
class Timings(Convertible):
    """The duration of each step, in milliseconds."""

    queue_ms: float
    decode_ms: float
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class AnnotatedImage(Convertible):
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
class HeatMap(Convertible):
    """How much each cell of a grid over a part of the picture speaks for a label.

    values: row by row, from the top. area: the part of the picture; may exceed it by a part of a
    cell. Classifiers: the class activation map, of any range. Detectors: scores in [0, 1].
    """

    class_id: int
    label: str
    width: int
    height: int
    values: tuple[float, ...] = field(repr=False)
    min: float
    max: float
    area: Box

    def array(self) -> "memoryview[float]":
        """Return the values as float32 [height, width]; `numpy.asarray` takes them as they are."""
        return memoryview(array("f", self.values)).cast("B").cast("f", (self.height, self.width))

    def value_at(self, x: float, y: float) -> float | None:
        """Return the value of the cell at a point of the picture; None outside the area.

        x, y: in pixels of the upright picture.
        """
        column = math.floor((x - self.area.x_min) / self.area.width * self.width)
        row = math.floor((y - self.area.y_min) / self.area.height * self.height)
        if not (0 <= column < self.width and 0 <= row < self.height):
            return None
        return self.values[row * self.width + column]

    def save(self, path: str | PathLike[str]) -> None:
        """Write a grey PNG with one pixel per cell, black for `min`, white for `max`.

        Raises OSError.
        """
        scale = 255 / (self.max - self.min) if self.max > self.min else 0.0
        levels = bytes(round((value - self.min) * scale) for value in self.values)
        rows = (levels[start : start + self.width] for start in range(0, len(levels), self.width))
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 0, 0, 0, 0)
        pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
        chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
        Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, chunks)))


def _chunk(chunk: tuple[bytes, bytes]) -> bytes:
    """Return a chunk of a PNG file."""
    name, contents = chunk
    check = zlib.crc32(name + contents)
    return struct.pack(">I", len(contents)) + name + contents + struct.pack(">I", check)


@dataclass(frozen=True, slots=True)
class ClassifyResult(Convertible):
    """One model's labels for the whole image, highest score first."""

    classifications: tuple[Classification, ...]
    served_by: ServedBy
    timings: Timings
    image_size: ImageSize
    annotated_image: AnnotatedImage | None
    heat_map: HeatMap | None
    message: pb.ClassifyResponse = field(repr=False, compare=False)

    def to_supervision(self) -> "supervision.Classifications":
        """Return a `supervision.Classifications`; needs the package supervision."""
        return _supervision_labels(self.classifications)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a `pandas.DataFrame` with a row per label; needs the package pandas."""
        return _label_frame(self.served_by.model, self.classifications)


@dataclass(frozen=True, slots=True)
class DetectResult(Convertible):
    """The objects that one model found in the image, highest score first."""

    detections: tuple[Detection, ...]
    served_by: ServedBy
    timings: Timings
    image_size: ImageSize
    annotated_image: AnnotatedImage | None
    heat_map: HeatMap | None
    message: pb.DetectResponse = field(repr=False, compare=False)

    def to_coco(
        self, image_id: int, category_ids: Mapping[str, int] | None = None
    ) -> list[dict[str, Any]]:
        """Return the detections as entries of COCO's results format, `[x, y, width, height]`.

        category_ids: the id of each label in the data set, because COCO's own ids have gaps; None
        for the model's class ids. Raises ValueError for a label that it lacks.
        """
        return conversions.coco_entries(image_id, category_ids, _columns(self.detections))

    def to_supervision(self) -> "supervision.Detections":
        """Return a `supervision.Detections`; needs the package supervision."""
        return conversions.supervision_detections(_columns(self.detections))

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a `pandas.DataFrame` with a row per detection; needs the package pandas."""
        return _detection_frame(self.served_by.model, self.detections)


@dataclass(frozen=True, slots=True)
class AnswerStatus(Convertible):
    """The status of one model's answer. code: name of the gRPC status. message: empty if OK."""

    code: str
    message: str

    @property
    def ok(self) -> bool:
        """True if the model answered."""
        return self.code == "OK"


@dataclass(frozen=True, slots=True)
class ClassificationAgreement(Convertible):
    """The agreement of two classifiers. The divergence is None if their label sets differ.

    unknown_here, unknown_in_baseline: labels of each that the other model lacks; they are left out.
    """

    same_top1: bool
    top_k_overlap: float
    jensen_shannon_divergence: float | None
    unknown_here: int = 0
    unknown_in_baseline: int = 0


@dataclass(frozen=True, slots=True)
class DetectionMatch(Convertible):
    """A pair of matching detections: their indexes in this answer and in the baseline's."""

    index: int
    baseline_index: int
    iou: float


@dataclass(frozen=True, slots=True)
class DetectionAgreement(Convertible):
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
class ModelAnswer(Convertible):
    """One model's answer, or the reason for its failure; `agreement` is with the baseline."""

    served_by: ServedBy
    status: AnswerStatus
    classifications: tuple[Classification, ...]
    detections: tuple[Detection, ...]
    timings: Timings | None
    agreement: ClassificationAgreement | DetectionAgreement | None
    heat_map: HeatMap | None
    message: pb.ModelAnswer = field(repr=False, compare=False)

    def to_coco(
        self, image_id: int, category_ids: Mapping[str, int] | None = None
    ) -> list[dict[str, Any]]:
        """Return the detections as entries of COCO's results format, as in `DetectResult`."""
        return conversions.coco_entries(image_id, category_ids, _columns(self.detections))

    def to_supervision(self) -> "supervision.Detections | supervision.Classifications":
        """Return supervision's value for the answer; a failed model has no detections."""
        if self.classifications:
            return _supervision_labels(self.classifications)
        return conversions.supervision_detections(_columns(self.detections))

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a `pandas.DataFrame` with a row per label or detection."""
        if self.classifications:
            return _label_frame(self.served_by.model, self.classifications)
        return _detection_frame(self.served_by.model, self.detections)


@dataclass(frozen=True, slots=True)
class TaskComparison(Convertible):
    """The answers of all models that were compared on one task."""

    task: Task
    baseline: str
    answers: tuple[ModelAnswer, ...]
    nothing_to_compare: str


@dataclass(frozen=True, slots=True)
class LeftOutModel(Convertible):
    """A model that a comparison left out, and the reason."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Comparison(Convertible):
    """The answers of all models, side by side."""

    comparisons: tuple[TaskComparison, ...]
    left_out: tuple[LeftOutModel, ...]
    models: tuple[Model, ...]
    image_size: ImageSize
    timings: Timings
    annotated_image: AnnotatedImage | None
    message: pb.CompareResponse = field(repr=False, compare=False)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a `pandas.DataFrame` with a row per answer: its best label, times, agreement.

        `answers` counts its labels or detections. Needs the package pandas.
        """
        rows = [_answer_row(of, answer) for of in self.comparisons for answer in of.answers]
        return conversions.pandas_frame(rows, _ANSWER_COLUMNS)


@dataclass(frozen=True, slots=True)
class StreamedAnswer(Convertible):
    """One model's answer in a stream; its agreement follows in the final Comparison."""

    task: Task
    answer: ModelAnswer


_LABEL_COLUMNS = {"model": "str", "label": "str", "class_id": "int64", "score": "float64"}
_DETECTION_COLUMNS = {**_LABEL_COLUMNS, **dict.fromkeys(Box.__slots__, "float64")}
# A model whose agreement lacks a value, or that has none, has a missing one there.
_AGREEMENT_COLUMNS = {
    each.name: "boolean" if each.type is bool else "Float64"
    for kind in (ClassificationAgreement, DetectionAgreement)
    for each in fields(kind)
    if each.name != "matches"
}
_ANSWER_COLUMNS = {
    "task": "str",
    "model": "str",
    "precision": "str",
    "execution_provider": "str",
    "baseline": "bool",
    "status": "str",
    "answers": "int64",
    "best_label": "object",
    "best_score": "Float64",
    "inference_ms": "Float64",
    "total_ms": "Float64",
    **_AGREEMENT_COLUMNS,
}


def _columns(
    detections: tuple[Detection, ...],
) -> list[tuple[tuple[float, float, float, float], int, str, float]]:
    return [(found.box.xyxy, found.class_id, found.label, found.score) for found in detections]


def _supervision_labels(labels: tuple[Classification, ...]) -> "supervision.Classifications":
    return conversions.supervision_classifications([(one.class_id, one.score) for one in labels])


def _label_frame(model: str, labels: tuple[Classification, ...]) -> "pandas.DataFrame":
    rows = [{"model": model, **one.to_dict()} for one in labels]
    return conversions.pandas_frame(rows, _LABEL_COLUMNS)


def _detection_frame(model: str, detections: tuple[Detection, ...]) -> "pandas.DataFrame":
    rows = [{"model": model, **one.to_dict(), **one.box.to_dict()} for one in detections]
    return conversions.pandas_frame(rows, _DETECTION_COLUMNS)


def _answer_row(of: TaskComparison, answer: ModelAnswer) -> conversions.Row:
    found = answer.classifications or answer.detections
    return {
        **answer.served_by.to_dict(),
        **(answer.timings.to_dict() if answer.timings else {}),
        **(answer.agreement.to_dict() if answer.agreement else {}),
        "task": str(of.task),
        "baseline": answer.served_by.model == of.baseline,
        "status": answer.status.code,
        "answers": len(found),
        "best_label": found[0].label if found else None,
        "best_score": found[0].score if found else None,
    }
