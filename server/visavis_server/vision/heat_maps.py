"""Heat maps: how much each part of a picture speaks for a class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visavis_server.arrays import Tensor
from visavis_server.errors import InvalidRequest, listed


@dataclass(frozen=True, slots=True)
class Explain:
    """A request for a heat map; label None: of the answer's best label."""

    label: str | None = None

    def require_label(self, model: str, labels: Sequence[str]) -> None:
        """Raise InvalidRequest if the label is not one of the model's."""
        if self.label is not None and self.label not in labels:
            raise InvalidRequest(
                "explain.label",
                f"model {model} has no label {self.label[:128]!r}; its labels are {listed(labels)}",
            )

    def class_ids(self, labels: Sequence[str]) -> list[int]:
        """Return the classes that have the label: ImageNet has two cranes."""
        return [index for index, label in enumerate(labels) if label == self.label]


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle in pixels of the upright picture, which it may exceed."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


@dataclass(frozen=True, slots=True)
class HeatMap:
    """How much each cell of a grid over an area of the picture speaks for a class.

    values: [rows, columns], top row first. Class activation maps: any number; the mean is the
    class's logit less the last layer's bias. Detectors: scores in [0, 1].
    """

    class_id: int
    label: str
    values: Tensor
    area: Area


@dataclass(frozen=True, slots=True)
class Grid:
    """The cells of a detector's input, by scale.

    width, height: of the input in pixels. strides: the side of a cell in pixels, by scale.
    """

    width: int
    height: int
    strides: tuple[int, ...]

    @property
    def cells(self) -> list[tuple[int, int]]:
        """Rows and columns of each scale."""
        return [(self.height // stride, self.width // stride) for stride in self.strides]

    @property
    def finest(self) -> int:
        """The side of the smallest cells in pixels."""
        return min(self.strides)

    def combine(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the largest value of all scales for each of the smallest cells.

        maps: [rows, columns] for each scale; not negative.
        """
        combined = np.zeros((self.height // self.finest, self.width // self.finest), np.float32)
        for values, stride in zip(maps, self.strides, strict=True):
            ratio = stride // self.finest
            each = values.repeat(ratio, axis=0).repeat(ratio, axis=1)
            part = combined[: each.shape[0], : each.shape[1]]
            np.maximum(part, each[: part.shape[0], : part.shape[1]], out=part)
        return combined


# The strides of YOLO's heads: the usual ones, those of P6 models, and those of P2 models.
_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))


def grid_of(width: int, height: int, cells: int) -> Grid | None:
    """Return the grid of a YOLO model by the number of its cells; None if none has so many.

    width, height: of the input in pixels.
    """
    for strides in _STRIDES:
        grid = Grid(width, height, strides)
        whole = not (width % max(strides) or height % max(strides))
        if whole and sum(rows * columns for rows, columns in grid.cells) == cells:
            return grid
    return None
