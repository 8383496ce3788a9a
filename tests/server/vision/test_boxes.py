"""Geometry of boxes, against hand-computed cases and slow, simple references."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis_server.vision.boxes import (
    Boxes,
    LetterboxPlacement,
    cxcywh_to_xyxy,
    iou,
    letterbox,
    non_maximum_suppression,
    xyxy_to_cxcywh,
)

# Whole numbers divided by a power of two: every IoU below is exact in float32 too.
sides = st.integers(0, 64)
box = st.tuples(sides, sides, sides, sides).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)


def boxes_of(rows: list[tuple[int, int, int, int]]) -> Boxes:
    return np.array(rows, np.float32).reshape(-1, 4)


def slow_iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the overlap of two boxes, by definition."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    union = sum(areas) - shared
    return shared / union if union else 0.0


def slow_nms(
    rows: list[tuple[int, int, int, int]],
    scores: list[float],
    classes: list[int],
    threshold: float,
    agnostic: bool,
) -> list[int]:
    """Return the boxes kept: those that overlap no better kept box too much."""
    kept: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: (-scores[i], i)):
        rivals = [k for k in kept if agnostic or classes[k] == classes[i]]
        if all(slow_iou(rows[k], rows[i]) <= threshold for k in rivals):
            kept.append(i)
    return kept


# (width, height), (input), (content), (left, top); YOLOv5 on its own samples, then odd ones.
CASES = [
    ((810, 1080), (640, 640), (480, 640), (80, 0)),  # bus.jpg
    ((1280, 720), (640, 640), (640, 360), (0, 140)),  # zidane.jpg
    ((640, 640), (640, 640), (640, 640), (0, 0)),
    ((641, 480), (640, 640), (640, 479), (0, 80)),  # 161 pixels to pad: 80 above, 81 below
    ((100, 50), (640, 640), (640, 320), (0, 160)),  # enlarged
    ((1, 3000), (640, 640), (1, 640), (319, 0)),  # thinner than half a pixel
    ((3000, 1), (640, 640), (640, 1), (0, 319)),
    ((200, 100), (320, 96), (192, 96), (64, 0)),  # an input that is not square
]


@pytest.mark.parametrize(("size", "target", "content", "corner"), CASES)
def test_letterbox_scales_to_fit_and_centres(
    size: tuple[int, int],
    target: tuple[int, int],
    content: tuple[int, int],
    corner: tuple[int, int],
) -> None:
    assert letterbox(*size, *target) == LetterboxPlacement(*size, *content, *corner, *target)


def test_the_content_lies_between_its_edges() -> None:
    assert letterbox(810, 1080, 640, 640).content == (80, 0, 560, 640)
    assert letterbox(1280, 720, 640, 640).content == (0, 140, 640, 500)


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([64, 320, 640, 1280]))
def test_letterbox_never_leaves_the_input(width: int, height: int, size: int) -> None:
    place = letterbox(width, height, size, size)
    assert place.left >= 0 and place.left + place.content_width <= size
    assert place.top >= 0 and place.top + place.content_height <= size
    assert size in (place.content_width, place.content_height)


@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.sampled_from(["exact", "rounded"]),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_boxes_are_mapped_back_to_the_original(
    width: int, height: int, unpad: str, corners: list[float]
) -> None:
    place = letterbox(width, height, 640, 640)
    left, right = sorted(corners[:2])
    top, bottom = sorted(corners[2:])
    original = np.array([left * width, top * height, right * width, bottom * height])
    if unpad == "exact":
        scale = min(640 / width, 640 / height)
        scales = np.array([scale, scale])
        pad = np.array([640 - width * scale, 640 - height * scale]) / 2
    else:
        scales = np.array([place.content_width / width, place.content_height / height])
        pad = np.array([place.left, place.top])
    letterboxed = original * np.tile(scales, 2) + np.tile(pad, 2)
    back = place.to_original(letterboxed[None].astype(np.float32), unpad)
    # float32 holds 640 to 6e-5; one pixel of a side of 5,000 px is an eighth of one there.
    tolerance = 1e-3 + 2e-4 / scales.min()
    np.testing.assert_allclose(back[0], original, atol=tolerance)


@pytest.mark.parametrize("unpad", ["exact", "rounded"])
def test_boxes_in_the_padding_are_clipped_to_the_picture(unpad: str) -> None:
    place = letterbox(810, 1080, 640, 640)
    back = place.to_original(np.array([[0, -50, 640, 700]], np.float32), unpad)
    np.testing.assert_array_equal(back, [[0, 0, 810, 1080]])


def test_empty_boxes_stay_empty() -> None:
    none = np.zeros((0, 4), np.float32)
    assert letterbox(10, 20, 64, 64).to_original(none, "exact").shape == (0, 4)
    assert cxcywh_to_xyxy(none).shape == (0, 4)
    assert iou(none, none).shape == (0, 0)


def test_centre_and_size_become_corners() -> None:
    given_boxes = np.array([[10, 20, 4, 6], [0, 0, 0, 0]], np.float32)
    np.testing.assert_array_equal(cxcywh_to_xyxy(given_boxes), [[8, 17, 12, 23], [0, 0, 0, 0]])


def test_overlaps_match_counted_squares() -> None:
    one = boxes_of([(0, 0, 4, 4)])
    many = boxes_of([(0, 0, 4, 4), (2, 0, 6, 4), (4, 0, 8, 4), (1, 1, 3, 3), (9, 9, 10, 10)])
    np.testing.assert_allclose(iou(one, many), [[1, 8 / 24, 0, 4 / 16, 0]], rtol=1e-6)


@given(st.lists(box, max_size=6), st.lists(box, max_size=6))
def test_overlap_is_intersection_over_union(
    one: list[tuple[int, int, int, int]], many: list[tuple[int, int, int, int]]
) -> None:
    expected = [[slow_iou(a, b) for b in many] for a in one]
    got = iou(boxes_of(one), boxes_of(many))
    np.testing.assert_allclose(got, np.array(expected).reshape(got.shape), atol=1e-6)


def test_boxes_without_area_overlap_nothing_and_are_kept() -> None:
    dots = boxes_of([(5, 5, 5, 5), (5, 5, 5, 5), (0, 5, 9, 5)])
    assert not iou(dots, dots).any()
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    kept = non_maximum_suppression(dots, scores, np.zeros(3, np.intp), 0.5, 10, False)
    assert kept.tolist() == [0, 1, 2]


@given(
    st.lists(st.tuples(box, st.integers(1, 20), st.integers(0, 3)), max_size=25),
    st.sampled_from([0.0, 0.3, 0.45, 0.7, 1.0]),
    st.booleans(),
)
def test_suppression_keeps_the_boxes_of_the_slow_reference(
    found: list[tuple[tuple[int, int, int, int], int, int]], threshold: float, agnostic: bool
) -> None:
    rows = [f[0] for f in found]
    scores = [f[1] / 32 for f in found]
    classes = [f[2] for f in found]
    kept = non_maximum_suppression(
        boxes_of(rows),
        np.array(scores, np.float32),
        np.array(classes, np.intp),
        threshold,
        1000,
        agnostic,
    )
    assert kept.tolist() == slow_nms(rows, scores, classes, threshold, agnostic)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("most", [1, 31, 32, 33, 1000])
def test_suppression_of_many_boxes_keeps_the_same(most: int, agnostic: bool) -> None:
    random = np.random.default_rng(most)
    corner, side = random.integers(0, 300, (200, 2)), random.integers(1, 60, (200, 2))
    rows = [tuple(map(int, row)) for row in np.hstack((corner, corner + side))]
    scores = random.integers(1, 64, 200) / 64
    classes = random.integers(0, 3, 200)
    kept = non_maximum_suppression(
        boxes_of(rows), scores.astype(np.float32), classes, 0.3, most, agnostic
    )
    expected = slow_nms(rows, scores.tolist(), classes.tolist(), 0.3, agnostic)
    assert len(expected) > 64
    assert kept.tolist() == expected[:most]


def test_an_overlap_at_the_threshold_is_kept() -> None:
    pair = boxes_of([(0, 0, 4, 4), (0, 0, 4, 2)])
    scores = np.array([0.9, 0.8], np.float32)
    labels = np.zeros(2, np.intp)
    assert non_maximum_suppression(pair, scores, labels, 0.5, 10, False).tolist() == [0, 1]
    assert non_maximum_suppression(pair, scores, labels, 0.49, 10, False).tolist() == [0]


def test_no_more_boxes_are_kept_than_requested() -> None:
    apart = boxes_of([(i * 10, 0, i * 10 + 5, 5) for i in range(6)])
    scores = np.array([0.1, 0.6, 0.2, 0.5, 0.3, 0.4], np.float32)
    kept = non_maximum_suppression(apart, scores, np.zeros(6, np.intp), 0.5, 3, False)
    assert kept.tolist() == [1, 3, 5]


def test_the_last_labels_of_a_large_set_are_separated_too() -> None:
    same = boxes_of([(0, 0, 40, 40)] * 3)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    labels = np.array([998, 999, 999], np.intp)
    kept = non_maximum_suppression(same, scores, labels, 0.45, 10, False)
    assert kept.tolist() == [0, 1]


def test_corners_become_centre_and_size() -> None:
    given_boxes = np.array([[8, 17, 12, 23], [0, 0, 0, 0]], np.float32)
    np.testing.assert_array_equal(xyxy_to_cxcywh(given_boxes), [[10, 20, 4, 6], [0, 0, 0, 0]])
    assert xyxy_to_cxcywh(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_an_overlap_at_the_threshold_stays_far_down_the_list_too() -> None:
    apart = [(i * 10, 100, i * 10 + 5, 105) for i in range(50)]
    rows = boxes_of([(0, 0, 4, 4), *apart, (0, 0, 4, 2)])
    scores, labels = np.linspace(0.9, 0.1, len(rows), dtype=np.float32), np.zeros(52, np.intp)
    assert len(non_maximum_suppression(rows, scores, labels, 0.5, 100, False)) == 52
    assert len(non_maximum_suppression(rows, scores, labels, 0.49, 100, False)) == 51
