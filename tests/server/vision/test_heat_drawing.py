"""Heat maps and differences on pictures: in place, in colours that tell them apart."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from visavis_server.vision.annotate import KINDS, Difference, Panel, annotate, side_by_side
from visavis_server.vision.heat_drawing import draw_heat, scale_of
from visavis_server.vision.heat_maps import Area, HeatMap
from visavis_server.vision.results import Box, Classification, Classified, Detected, Detection

from ..pictures import noise


def heat_map(values: Any, area: tuple[float, float, float, float]) -> HeatMap:
    return HeatMap(0, "dog", np.array(values, np.float32), Area(*area))


def drawn(of: HeatMap, width: int, height: int, scale: float = 1.0) -> np.ndarray[Any, Any]:
    picture = Image.new("RGB", (width, height), (100, 100, 100))
    draw_heat(picture, of, scale)
    return np.asarray(picture).astype(int)


def shown(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def near(color: np.ndarray[Any, Any], hexadecimal: str, within: int = 45) -> bool:
    wanted = [int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5)]
    return bool(np.abs(color - wanted).max() <= within)


def test_the_largest_value_is_brightest_and_only_the_area_is_coloured() -> None:
    picture = drawn(heat_map([[0, 0], [0, 1]], (100, 50, 300, 150)), 400, 200)
    light = picture.sum(axis=2)
    y, x = np.unravel_index(light[51:149, 101:299].argmax(), (98, 198))
    assert (y, x) >= (124 - 51, 249 - 101)
    outside = np.ones(light.shape, bool)
    outside[50:150, 100:300] = False
    assert (picture[outside] == 100).all()
    # The centre of each cell has the cell's own colour: the ends of the colour map, blended.
    assert picture[90, 260].sum() < picture[110, 260].sum() < picture[124, 260].sum()
    assert np.abs(picture[75, 150] - (0.45 * 100 + 0.55 * np.array([0, 0, 4]))).max() <= 2
    assert np.abs(picture[130, 260] - (0.45 * 100 + 0.55 * np.array([252, 255, 164]))).max() <= 2


def test_values_between_centres_are_interpolated() -> None:
    picture = drawn(heat_map([[0, 1]], (0, 0, 200, 10)), 200, 10)
    light = picture[5].sum(axis=1)
    assert (np.diff(light[50:150]) >= 0).all()
    assert light[50] < light[100] < light[149]
    assert light[0] == light[49]
    assert light[151] == light[199]


def test_a_map_is_scaled_with_the_picture_and_cut_at_its_edges() -> None:
    of = heat_map([[0, 0, 1]], (-20, -20, 220, 120))
    np.testing.assert_array_equal(
        drawn(of, 100, 50, scale=0.5),
        drawn(heat_map([[0, 0, 1]], (-10, -10, 110, 60)), 100, 50),
    )


@pytest.mark.parametrize("area", [(-9.0, 0.0, -1.0, 5.0), (0.2, 0.2, 0.4, 0.4)])
def test_a_map_beside_the_picture_or_of_a_part_of_a_pixel_is_drawn(
    area: tuple[float, float, float, float],
) -> None:
    assert drawn(heat_map([[0, 1]], area), 10, 10).shape == (10, 10, 3)


def test_a_map_of_one_value_is_drawn() -> None:
    assert drawn(heat_map([[3, 3]], (0, 0, 10, 10)), 10, 10).max() < 100


def test_a_large_map_is_drawn_in_little_memory() -> None:
    import tracemalloc

    picture = Image.new("RGB", (6000, 4000))
    of = heat_map(np.random.default_rng(0).random((80, 80)), (0, 0, 6000, 4000))
    tracemalloc.start()
    draw_heat(picture, of, 1.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 << 20  # the picture has 72 MB


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([8.4e-9, 0.6812], ("0", "0.681")),
        ([-2.514, 60.77], ("-2.5", "60.8")),
        ([-1e-9, 1.0], ("0", "1")),
        ([0, 0], ("0", "0")),
        ([3.931e-8, 0.1014], ("0", "0.101")),
        ([-1234.5, 10], ("-1230", "10")),
    ],
)
def test_the_scale_has_three_digits(values: list[float], texts: tuple[str, str]) -> None:
    assert scale_of(heat_map([values], (0, 0, 1, 1))) == texts


def test_an_answer_is_drawn_over_its_map_with_a_legend() -> None:
    of = heat_map([[0, 1]], (0, 0, 400, 400))
    found = Detected((Detection(Box(100, 150, 300, 350), 0, "dog", 0.9),), of)
    image = np.full((400, 400, 3), 100, np.uint8)
    picture = shown(annotate(image, found))
    assert picture[250, 380, 0] > 170  # hot
    assert picture[250, 20].max() < 70  # cold
    assert picture[250, 99:102].max() > 200  # the box
    assert picture[4, 4].max() < 60  # the legend's shade
    random = shown(annotate(image, found, random_weights=True))
    assert random[2, 300, 0] > 180  # the warning stays on top
    assert random[22, 4].max() < 60  # the legend below it


def test_labels_leave_most_of_a_heat_map_visible() -> None:
    labels = tuple(Classification(i, f"label {i}", 0.1) for i in range(5))
    scores = np.full(5, 0.1, np.float32)
    image = np.full((400, 400, 3), 200, np.uint8)
    of = heat_map([[1, 1]], (0, 0, 400, 400))
    plain = shown(annotate(image, Classified(labels, scores)))
    explained = shown(annotate(image, Classified(labels, scores, of)))
    assert (plain[:, 200].max(axis=1) < 75).sum() > 80
    assert 10 < (explained[100:, 200].max(axis=1) < 75).sum() < 50


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3000), (3000, 1), (3, 5), (2000, 1500)])
def test_maps_and_differences_fit_pictures_of_any_shape(height: int, width: int) -> None:
    of = heat_map([[0, 1], [2, 3]], (0, 0, width, height))
    box = Box(0, 0, width, height)
    found = Detected((Detection(box, 0, "dog" * 99, 0.9),), of)
    assert shown(annotate(noise(height, width, 3), found)).ndim == 3
    difference = Difference((True,), (Detection(box, 0, "cat", 0.5),))
    panels = [Panel("a", "b", found, difference)] * 2
    assert shown(side_by_side(noise(height, width, 3), panels, baseline="x" * 99)).ndim == 3


def test_a_difference_shows_what_both_have_what_one_and_what_the_other() -> None:
    def box(top: int) -> Detection:
        return Detection(Box(100, top, 300, top + 80), 7, "dog", 0.9)

    image = np.zeros((400, 400, 3), np.uint8)
    ours = Detected((box(20), box(120)))
    difference = Difference((True, False), (box(220),))
    panels = [Panel("one", "", ours, difference), Panel("two", "", ours)]
    sheet = shown(side_by_side(image, panels, baseline="two"))
    legend = 26 * 3
    left, top = 16, 16 + legend + 64
    for kind, at in (("both", 20), ("here", 120), ("baseline", 220)):
        color = sheet[top + at - 5, left + 102]  # of the label above the box
        assert near(color, KINDS[kind].color), kind
        others = [other.color for name, other in KINDS.items() if name != kind]
        assert not any(near(color, other) for other in others), kind
    # The lines differ, too: solid, dashed, dotted.
    gaps = [
        (sheet[top + at + 20 : top + at + 78, left + 299].max(axis=1) < 90).sum()
        for at in (20, 120, 220)
    ]
    assert gaps[0] == 0
    assert min(gaps[1:]) > 10
    # The legend has all three; without a difference there is none.
    for index, kind in enumerate(KINDS.values()):
        assert near(sheet[8 + 26 * index + 5, 18], kind.color)
    plain = shown(side_by_side(image, panels[1:] * 2))
    assert plain.shape[0] == sheet.shape[0] - legend


def test_many_dotted_boxes_are_drawn_quickly(quick: None) -> None:
    many = tuple(Detection(Box(0, 0, 900, 900), 0, "dog", 0.5) for _ in range(300))
    panel = Panel("a", "", Detected(()), Difference((), many))
    assert shown(side_by_side(np.zeros((960, 960, 3), np.uint8), [panel], baseline="b")).ndim == 3
