"""Evidence that a file computes what it should: golden sample, receipt and accuracy."""

from base64 import b64decode
from datetime import datetime
from math import prod
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from visavis_server.card.fields import Count, Part, Positive, Probability


class SampledOutput(Part):
    """A few elements of one flattened output, as in files of earlier versions."""

    tensor: str
    indices: Annotated[tuple[Count, ...], Field(min_length=1)]
    values: tuple[float, ...]

    @model_validator(mode="after")
    def _one_value_per_index(self) -> Self:
        if len(self.indices) != len(self.values):
            raise ValueError("indices and values need the same length")
        return self


class WholeOutput(Part):
    """All of one output: every element, a summary of slices along its axes, or both.

    shape: of the output, [1, …]. elements: every element in row-major order, as little-endian
    float32 in base64. slices: in the same encoding, three numbers for each index of each of
    `axes`, in that order: the sum of the slice's elements, each times 1 or -1, divided by the root
    of their number; the smallest; the largest. golden.py has the signs.
    """

    tensor: str
    shape: Annotated[tuple[Positive, ...], Field(min_length=1)]
    elements: str = ""
    axes: tuple[Count, ...] = ()
    slices: str = ""

    @model_validator(mode="after")
    def _sizes_match_the_shape(self) -> Self:
        if not all(axis < len(self.shape) for axis in self.axes):
            raise ValueError(f"axes {self.axes} are out of range for the shape {self.shape}")
        if not (self.elements or self.slices):
            raise ValueError("it needs elements or slices")
        wanted = {
            "elements": prod(self.shape) if self.elements else 0,
            "slices": 3 * sum(self.shape[axis] for axis in self.axes),
        }
        for name, count in wanted.items():
            if len(b64decode(getattr(self, name), validate=True)) != 4 * count:
                raise ValueError(f"{name} must hold {count} numbers, {4 * count} bytes")
        return self


def _kind_of_output(output: Any) -> str:
    whole = "shape" in output if isinstance(output, dict) else isinstance(output, WholeOutput)
    return "whole" if whole else "sampled"


_AnyOutput = Annotated[
    Annotated[SampledOutput, Tag("sampled")] | Annotated[WholeOutput, Tag("whole")],
    Discriminator(_kind_of_output),
]


class GoldenSample(Part):
    """The expected outputs for `golden.picture()`, compared whenever the model is loaded.

    relative_tolerance: relative to the largest expected magnitude in each output, or in each slice.
    """

    outputs: Annotated[tuple[_AnyOutput, ...], Field(min_length=1)]
    relative_tolerance: Annotated[float, Field(gt=0)]


class RowComparison(Part):
    """A detector's candidates before NMS, compared row by row; boxes in input pixels."""

    count: Positive
    max_score_difference: float
    max_box_difference_px: float


class ReceiptPicture(Part):
    """The comparison on one picture; boxes in pixels of the original image.

    excused: labels or boxes that a near-tie decided differently than in the original; for boxes,
    only_here and only_in_original say which side has them. Without tolerances, boxes are compared
    that share a label and overlap by half, and these two fields count the others.
    max_heat_map_difference: see Receipt; None if no maps were compared.
    """

    name: str
    width: Positive
    height: Positive
    score_threshold: Probability | None = None
    compared: Count
    excused: Count = 0
    max_score_difference: float
    max_box_difference_px: float | None = None
    same_top1: bool | None = None
    only_here: Count = 0
    only_in_original: Count = 0
    max_heat_map_difference: float | None = None


class Receipt(Part):
    """How closely the file follows the PyTorch original, from encoded image to answer.

    With tolerances it is a proof. Without, as for int8, it is a record, and the accuracy decides.
    Differences of heat maps are divided by the largest magnitude in the original's map if that is
    more than 1. heat_map_tolerance: None if no maps were compared, too.
    """

    made_at: datetime
    score_tolerance: float | None
    box_tolerance_px: float | None
    heat_map_tolerance: float | None = None
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

    @property
    def max_heat_map_difference(self) -> float | None:
        """The largest difference of two heat maps for any picture; None: none were compared."""
        differences = [p.max_heat_map_difference for p in self.pictures]
        return max((d for d in differences if d is not None), default=None)


class Accuracy(Part):
    """The accuracy of the file, and of the PyTorch original, on the same labelled pictures.

    top-1: the share of pictures whose best label is right. mAP50-95: COCO's mean average
    precision. error: the standard error of the difference between the two. source: a description
    of the pictures. held_out: True if the conversion used none of them.
    """

    metric: Literal["top-1", "mAP50-95"]
    value: Probability
    original: Probability
    error: Annotated[float, Field(ge=0)]
    pictures: Positive
    source: str
    held_out: bool
