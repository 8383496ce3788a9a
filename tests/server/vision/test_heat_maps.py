"""Grids of cells: which one a model has, and how its scales are combined."""

import numpy as np
import pytest

from visavis_server.errors import InvalidRequest
from visavis_server.vision.heat_maps import Explain, Grid, grid_of


@pytest.mark.parametrize(
    ("width", "height", "cells", "strides"),
    [
        (640, 640, 8400, (8, 16, 32)),  # YOLOv5u's and YOLOv8's rows at 640
        (1280, 1280, 34_000, (8, 16, 32, 64)),  # P6
        (640, 640, 34_000, (4, 8, 16, 32)),  # P2
        (640, 384, 5040, (8, 16, 32)),
        (640, 640, 300, None),  # RT-DETR's queries
        (648, 640, 8480, None),  # cells of the coarse scales don't divide the input
    ],
)
def test_a_grid_is_known_by_the_number_of_its_cells(
    width: int, height: int, cells: int, strides: tuple[int, ...] | None
) -> None:
    grid = grid_of(width, height, cells)
    assert (grid.strides if grid else None) == strides


def test_the_largest_value_of_all_scales_is_kept() -> None:
    fine = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]], np.float32)
    coarse = np.array([[0.45, 0.05]], np.float32)
    combined = Grid(32, 16, (8, 16)).combine([fine, coarse])
    expected = [[0.45, 0.45, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]]
    np.testing.assert_array_equal(combined, np.array(expected, np.float32))


def test_an_unknown_label_is_refused_by_field() -> None:
    labels = ("cat", "dog", "cat")
    Explain().require_label("m", labels)
    Explain("dog").require_label("m", labels)
    assert Explain("cat").class_ids(labels) == [0, 2]
    with pytest.raises(
        InvalidRequest, match="m has no label 'bus'; its labels are cat, cat, dog"
    ) as e:
        Explain("bus").require_label("m", labels)
    assert e.value.field == "explain.label"
