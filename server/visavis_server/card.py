"""The JSON document that every model file carries: how to serve it, its card, its receipt.

It is one of the two contracts that hold the project together (the other is the
.proto). Its schema is published as `protos/visavis/v1/model.schema.json`, written by
`make generate` from the classes below, and checked whenever a document is written or
read.
"""

import json
from base64 import b64decode
from datetime import datetime
from enum import StrEnum
from math import prod
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from visavis_server.errors import ModelFileError
from visavis_server.names import NAME_PATTERN

METADATA_KEY = "visavis"
SCHEMA_VERSION = 1
SCHEMA_ID = "visavis.v1.model.schema.json"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["fp32", "fp16", "int8"]


class Task(StrEnum):
    """What a model can do with an image."""

    CLASSIFICATION = "classification"
    OBJECT_DETECTION = "object detection"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LabelSet(_Part):
    """The classes that a model knows; two models with the same name share class ids."""

    name: Name
    labels: Annotated[tuple[str, ...], Field(min_length=1)]


class ShorterSide(_Part):
    """Resize the shorter side, then crop the centre: torchvision's transforms, by Pillow.

    `size` is the shorter side's length in pixels after the bilinear, antialiased resize.
    """

    rule: Literal["shorter_side"] = "shorter_side"
    size: Positive


class Stretch(_Part):
    """Resize to the input's width and height, whatever the aspect ratio, by Pillow."""

    rule: Literal["stretch"] = "stretch"


class CenterSquare(_Part):
    """Crop the largest square from the centre, then resize it with OpenCV, bilinear.

    YOLOv5's classification pre-processing.
    """

    rule: Literal["center_square"] = "center_square"


class Letterbox(_Part):
    """Scale to fit, pad with grey: YOLOv5's fixed-size letterbox, by OpenCV, bilinear.

    `unpad` says how boxes find their way back: YOLOv5 subtracts the padding in fractions
    of a pixel and divides by one scale ("exact"); ultralytics subtracts whole pixels and
    divides by each side's rounded scale ("rounded").
    """

    rule: Literal["letterbox"] = "letterbox"
    pad_value: Annotated[int, Field(ge=0, le=255)] = 114
    unpad: Literal["exact", "rounded"]


class ModelInput(_Part):
    """The input tensor: [batch, 3, height, width], RGB, (value / 255 - mean) / std."""

    tensor: str
    width: Positive
    height: Positive
    dtype: Literal["float32", "float16"] = "float32"
    resize: Annotated[ShorterSide | Stretch | CenterSquare | Letterbox, Field(discriminator="rule")]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if isinstance(self.resize, ShorterSide) and self.resize.size < max(self.width, self.height):
            raise ValueError(f"a shorter side of {self.resize.size} is too small for the crop")
        return self

    def describe_resize(self) -> str:
        """Return the resize rule in words."""
        target = f"{self.width}x{self.height}"
        match self.resize:
            case ShorterSide(size=size):
                return f"shorter side to {size}, centre crop {target}"
            case Stretch():
                return f"stretched to {target}"
            case CenterSquare():
                return f"centre square to {target}"
            case Letterbox():
                return f"letterbox to {target}"


class ClassScores(_Part):
    """One tensor [batch, classes]: logits, or probabilities that sum to 1."""

    layout: Literal["logits", "probabilities"]
    tensor: str


class Yolov5Heads(_Part):
    """What YOLOv5's heads read, and how sure each of their cells is; three tensors per scale.

    The rest of a head is computed outside of the graph, for the few cells that show something.
    objectness: logits [batch, anchors, h, w]. features: what the head reads, [batch, h, w,
    channels]. weights: the head itself, its bias last, [batch, anchors * (5 + classes), channels
    + 1].
    anchors: per scale, (width, height) in pixels of the input. strides: pixels per cell.
    """

    layout: Literal["yolov5_heads"] = "yolov5_heads"
    objectness: tuple[str, ...]
    features: tuple[str, ...]
    weights: tuple[str, ...]
    anchors: tuple[tuple[tuple[float, float], ...], ...]
    strides: tuple[int, ...]

    @model_validator(mode="after")
    def _one_entry_per_scale(self) -> Self:
        entries = {
            "objectness": len(self.objectness),
            "features": len(self.features),
            "weights": len(self.weights),
            "anchors": len(self.anchors),
            "strides": len(self.strides),
        }
        if len(set(entries.values())) > 1 or not self.strides:
            given = ", ".join(f"{name} {count}" for name, count in entries.items())
            raise ValueError(f"each list needs one entry per scale; there are {given}")
        return self


class CandidateRows(_Part):
    """One tensor of decoded candidates, boxes in pixels of the input.

    yolov5_rows: [batch, n, 5 + classes], cxcywh, objectness, class scores.
    ultralytics_rows: [batch, 4 + classes, n], cxcywh, class scores.
    end_to_end: [batch, n, 6], xyxy, score, class id; duplicates dropped in the graph.
    """

    layout: Literal["yolov5_rows", "ultralytics_rows", "end_to_end"]
    tensor: str


ModelOutput = Annotated[ClassScores | Yolov5Heads | CandidateRows, Field(discriminator="layout")]


class DetectionDefaults(_Part):
    """Thresholds that hold where a request names none."""

    score_threshold: Probability
    iou_threshold: Probability
    max_detections: Annotated[int, Field(ge=1, le=1000)] = 300


class Facts(_Part):
    """What people compare models by; `sources` says where each comes from."""

    architecture: str
    organization: str = ""
    category: str = ""
    modality: str = ""
    release_date: Annotated[str, Field(pattern=r"^(\d{4}(-\d{2}(-\d{2})?)?)?$")] = ""
    context_window: Positive | None = None
    parameter_count: Annotated[int, Field(ge=0)] = 0
    code_license: str = ""
    weights_license: str = ""
    real_time: bool | None = None
    sources: dict[str, str] = {}

    @model_validator(mode="after")
    def _sources_name_facts(self) -> Self:
        if unknown := set(self.sources) - set(type(self).model_fields):
            raise ValueError(f"sources for facts that don't exist: {sorted(unknown)}")
        return self


class Provenance(_Part):
    """Where the file comes from; `conversion` says how fp32 became another precision."""

    weights_source: str
    weights_sha256: Sha256 | None = None
    random_weights: bool = False
    exporter: str
    exported_at: datetime | None = None
    libraries: dict[str, str] = {}
    conversion: str = ""


class SampledOutput(_Part):
    """A few elements of one flattened output; files that were exported earlier have no more."""

    tensor: str
    indices: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    values: tuple[float, ...]

    @model_validator(mode="after")
    def _one_value_per_index(self) -> Self:
        if len(self.indices) != len(self.values):
            raise ValueError("indices and values need the same length")
        return self


class WholeOutput(_Part):
    """All of one output: every element, or what slices along its axes come to, or both.

    shape: of the output, [1, …]. elements: base64 of every element in row-major order, as
    little-endian float32. slices: base64, likewise, of three numbers for each index of each of
    `axes`, in that order: the sum of the slice's elements, each times 1 or -1 and over the root of
    their number, its smallest and its largest; golden.py has the signs.
    """

    tensor: str
    shape: Annotated[tuple[Positive, ...], Field(min_length=1)]
    elements: str = ""
    axes: tuple[Annotated[int, Field(ge=0)], ...] = ()
    slices: str = ""

    @model_validator(mode="after")
    def _as_many_as_the_shape_says(self) -> Self:
        if not all(axis < len(self.shape) for axis in self.axes):
            raise ValueError(f"axes {self.axes} of a shape {self.shape}")
        if not (self.elements or self.slices):
            raise ValueError("it needs elements or slices")
        wanted = {
            "elements": prod(self.shape) if self.elements else 0,
            "slices": 3 * sum(self.shape[axis] for axis in self.axes),
        }
        for name, count in wanted.items():
            if len(b64decode(getattr(self, name), validate=True)) != 4 * count:
                raise ValueError(f"{name} of {count} numbers take {4 * count} bytes")
        return self


def _kind_of_output(output: Any) -> str:
    whole = "shape" in output if isinstance(output, dict) else isinstance(output, WholeOutput)
    return "whole" if whole else "sampled"


_AnyOutput = Annotated[
    Annotated[SampledOutput, Tag("sampled")] | Annotated[WholeOutput, Tag("whole")],
    Discriminator(_kind_of_output),
]


class GoldenSample(_Part):
    """What the model must give for `golden.picture()`, checked whenever it is loaded.

    relative_tolerance: of the largest expected magnitude in each output, or each slice of it.
    """

    outputs: Annotated[tuple[_AnyOutput, ...], Field(min_length=1)]
    relative_tolerance: Annotated[float, Field(gt=0)]


class RowComparison(_Part):
    """A detector's candidates before NMS, compared row by row; boxes in input pixels."""

    count: Positive
    max_score_difference: float
    max_box_difference_px: float


class ReceiptPicture(_Part):
    """How one picture fared; boxes in pixels of the original image.

    excused: labels or boxes on which near-ties decided otherwise than in the original; of
    boxes, only_here and only_in_original say which. Where there is no tolerance, boxes are
    compared that share a label and overlap by half, and those two count the others.
    """

    name: str
    width: Positive
    height: Positive
    score_threshold: Probability | None = None
    compared: Annotated[int, Field(ge=0)]
    excused: Annotated[int, Field(ge=0)] = 0
    max_score_difference: float
    max_box_difference_px: float | None = None
    same_top1: bool | None = None
    only_here: Annotated[int, Field(ge=0)] = 0
    only_in_original: Annotated[int, Field(ge=0)] = 0


class Receipt(_Part):
    """How closely the file follows the PyTorch original, from encoded image to answer.

    With tolerances a proof; without, as for int8, a record: there the accuracy decides.
    """

    made_at: datetime
    score_tolerance: float | None
    box_tolerance_px: float | None
    rows: RowComparison | None = None
    pictures: Annotated[tuple[ReceiptPicture, ...], Field(min_length=1)]

    @property
    def max_score_difference(self) -> float:
        """The largest difference of two scores in any picture."""
        return max(picture.max_score_difference for picture in self.pictures)

    @property
    def max_box_difference_px(self) -> float | None:
        """The largest difference of two box edges in any picture; None for classifiers."""
        differences = [p.max_box_difference_px for p in self.pictures]
        return max((d for d in differences if d is not None), default=None)


class Accuracy(_Part):
    """What labelled pictures say of the file, and of the PyTorch original on the same ones.

    top-1: the share of pictures whose best label is right. mAP50-95: COCO's mean average
    precision. error: standard error of the difference of the two. source: which pictures.
    held_out: none of them was used for the conversion.
    """

    metric: Literal["top-1", "mAP50-95"]
    value: Probability
    original: Probability
    error: Annotated[float, Field(ge=0)]
    pictures: Positive
    source: str
    held_out: bool


class ModelDocument(_Part):
    """One model file's document: everything needed to serve it and to say what it is."""

    schema_version: Literal[1] = 1
    name: Name
    task: Task
    precision: Precision
    variant_of: Name | None = None
    label_set: LabelSet
    input: ModelInput
    output: ModelOutput
    detection_defaults: DetectionDefaults | None = None
    facts: Facts
    provenance: Provenance
    digest: Sha256 | None = None
    golden_sample: GoldenSample | None = None
    receipt: Receipt | None = None
    accuracy: Accuracy | None = None

    @model_validator(mode="after")
    def _parts_fit_the_task(self) -> Self:
        detects = self.task is Task.OBJECT_DETECTION
        if detects == isinstance(self.output, ClassScores):
            raise ValueError(f"an output of layout {self.output.layout} can't serve {self.task}")
        if detects != isinstance(self.input.resize, Letterbox):
            raise ValueError(f"resize rule {self.input.resize.rule} can't serve {self.task}")
        metric = self.accuracy.metric if self.accuracy else None
        if metric == ("top-1" if detects else "mAP50-95"):
            raise ValueError(f"an accuracy of {metric} can't be that of {self.task}")
        if detects != (self.detection_defaults is not None):
            raise ValueError("detection_defaults belong to detectors, and to all of them")
        return self


def parse_document(text: str | bytes, where: str) -> ModelDocument:
    """Return the document in a model file's metadata.

    where: the file, for the error. Raises ModelFileError if the document doesn't follow
    the schema, naming the first places where it doesn't.
    """
    try:
        return ModelDocument.model_validate_json(text)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'document'}: {e['msg']}" for e in error.errors()[:3]
        )
        raise ModelFileError(
            f"{where}: its document does not follow schema version {SCHEMA_VERSION} ({wrong}); "
            "export it again with this version of visavis"
        ) from None


def json_schema() -> dict[str, Any]:
    """Return the published JSON schema of the document."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **ModelDocument.model_json_schema(mode="serialization"),
    }


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
