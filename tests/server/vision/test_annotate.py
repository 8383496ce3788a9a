"""Pictures with answers on them: they open, have the right size, and show the box."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from visavis_server.vision.annotate import MEDIA_TYPE, Panel, annotate, side_by_side, size_of
from visavis_server.vision.results import Box, Classification, Classified, Detected, Detection

from ..pictures import noise

NOTHING = Detected(())


def detected(*boxes: tuple[float, float, float, float], label: str = "cat") -> Detected:
    return Detected(tuple(Detection(Box(*box), i, label, 0.9) for i, box in enumerate(boxes)))


def classified(*labels: str) -> Classified:
    scores = [1 / 2**rank for rank in range(1, len(labels) + 1)]
    found = zip(range(len(labels)), labels, scores, strict=True)
    return Classified(tuple(Classification(*f) for f in found), np.array(scores, np.float32))


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    """Return what a viewer shows; fail if it is no JPEG."""
    picture = Image.open(io.BytesIO(data))
    assert (picture.format, MEDIA_TYPE) == ("JPEG", "image/jpeg")
    return np.asarray(picture.convert("RGB")).astype(int)


def black(height: int, width: int) -> np.ndarray[Any, Any]:
    return np.zeros((height, width, 3), np.uint8)


def test_a_box_is_drawn_along_its_edges_and_nowhere_else() -> None:
    drawn = pixels(annotate(black(400, 400), detected((100, 150, 300, 350))))
    assert drawn.shape == (400, 400, 3)
    for y, x in ((250, 100), (250, 300), (350, 200)):  # left, right, bottom
        assert drawn[y - 1 : y + 2, x - 1 : x + 2].max() > 200
    assert drawn[250, 200].max() < 20  # inside
    assert drawn[250, 50].max() < 20  # outside
    assert drawn[140, 110].max() > 150  # the label, above


def test_the_label_of_a_box_at_the_top_lies_inside_the_picture() -> None:
    drawn = pixels(annotate(black(400, 400), detected((100, 0, 300, 350))))
    assert drawn[5:10, 110:130].max() > 150


def test_different_classes_have_different_colours() -> None:
    drawn = pixels(annotate(black(400, 400), detected((10, 100, 190, 390), (210, 100, 390, 390))))
    assert np.abs(drawn[250, 10] - drawn[250, 210]).max() > 40


def test_without_detections_the_picture_is_unchanged() -> None:
    image = np.full((50, 70, 3), 90, np.uint8)
    assert np.abs(pixels(annotate(image, NOTHING)) - 90).max() <= 2


def test_labels_of_a_classifier_are_drawn_at_the_bottom() -> None:
    drawn = pixels(annotate(np.full((300, 300, 3), 255, np.uint8), classified("tench", "goldfish")))
    assert drawn[:200].min() > 240
    assert drawn[-30:].min() < 100


def test_the_picture_itself_is_not_drawn_on() -> None:
    image = noise(60, 80, 3)
    before = image.copy()
    annotate(image, detected((5, 5, 50, 50)))
    side_by_side(image, [Panel("a", "", detected((5, 5, 50, 50))), Panel("b", "", classified("x"))])
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3000), (3000, 1), (3, 5), (2000, 1500)])
def test_boxes_fit_on_pictures_of_any_shape(height: int, width: int) -> None:
    found = detected((0, 0, width, height), (width / 2, height / 2, width / 2, height / 2))
    assert pixels(annotate(black(height, width), found)).shape == (height, width, 3)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3000), (3000, 1), (3, 5), (2000, 1500)])
def test_panels_fit_pictures_of_any_shape(height: int, width: int) -> None:
    answers = [detected((0, 0, width, height)), classified("a", "b", "c", "d", "e"), NOTHING, None]
    panels = [Panel(f"model {i}", "a note", answer) for i, answer in enumerate(answers)]
    assert pixels(side_by_side(black(height, width), panels)).shape[1] >= 2 * 320


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 3000), (3000, 1), (3000, 5), (3000, 20), (2000, 1500)]
)
def test_labels_fit_on_pictures_of_any_shape(height: int, width: int) -> None:
    drawn = pixels(annotate(black(height, width), classified("tench", "goldfish")))
    assert drawn.shape == (height, width, 3)


@pytest.mark.parametrize("answer", [detected((0, 0, 65535, 65535)), classified("tench"), NOTHING])
@pytest.mark.parametrize(("height", "width"), [(1, 65535), (65535, 1)])
def test_a_picture_too_long_for_jpeg_is_shrunk(
    height: int, width: int, answer: Classified | Detected
) -> None:
    drawn = pixels(annotate(black(height, width), answer))
    assert drawn.shape == (min(height, 16_384), min(width, 16_384), 3)


def test_boxes_shrink_with_a_picture_that_is_too_long() -> None:
    drawn = pixels(annotate(black(800, 32_768), detected((20_000, 200, 24_000, 700))))
    assert drawn.shape == (400, 16_384, 3)
    for y, x in ((300, 10_000), (300, 12_000), (350, 11_500)):  # left, right, bottom, at half size
        assert drawn[y - 5 : y + 6, x - 5 : x + 6].max() > 180
    assert drawn[300, 11_500].max() < 20


def test_a_file_over_its_limit_is_shrunk_no_more_than_necessary() -> None:
    image = noise(900, 1200, 3)
    whole = len(annotate(image, NOTHING))
    encoded = annotate(image, NOTHING, max_bytes=whole // 2)
    assert whole // 3 < len(encoded) <= whole // 2
    height, width = pixels(encoded).shape[:2]
    assert width / height == pytest.approx(4 / 3, rel=0.01) and width < 1200
    assert size_of(encoded) == (width, height)


def test_pixels_that_could_not_be_seen_are_not_drawn() -> None:
    """Even a black picture, whose file would fit: to draw and encode them takes seconds."""
    image = black(2000, 1000)
    assert len(annotate(image, NOTHING)) < 100_000
    drawn = pixels(annotate(image, detected((0, 0, 500, 1000)), max_bytes=100_000))
    assert drawn.shape == (667, 334, 3)
    assert drawn[200, 160:175].max() > 180  # the right edge, where it was


def test_a_sheet_of_answers_respects_the_limit_too() -> None:
    panels = [Panel(f"model {i}", "a note", NOTHING) for i in range(6)]
    assert len(side_by_side(noise(900, 900, 3), panels)) > 1_000_000
    assert len(side_by_side(noise(900, 900, 3), panels, max_bytes=300_000)) <= 300_000


@pytest.mark.timeout(20)
def test_a_huge_label_is_drawn_quickly() -> None:
    label = "x" * 100_000
    for answer in (classified(label), detected((10, 20, 90, 90), label=label)):
        assert pixels(annotate(black(99, 99), answer)).shape == (99, 99, 3)


@pytest.mark.parametrize(
    "label", ["x" * 200, "", "日本語 🐈", "naïve", "\n\n", "two\nlines", "a\r\nb\tc"]
)
def test_labels_may_be_long_empty_of_another_script_or_of_several_lines(label: str) -> None:
    image = black(200, 300)
    assert pixels(annotate(image, detected((250, 0, 300, 10), label=label))).shape == image.shape
    assert pixels(annotate(image, classified(label, label))).shape == image.shape
    panels = [
        Panel(label, label, classified(label)),
        Panel(label, label, detected((1, 1, 2, 2), label=label)),
    ]
    assert pixels(side_by_side(image, panels)).ndim == 3


def test_a_large_picture_is_shown_small_beside_others() -> None:
    panels = [Panel("a", "", NOTHING), Panel("b", "", NOTHING)]
    sheet = pixels(side_by_side(black(1500, 3000), panels))
    assert sheet.shape[1] == 2 * 960 + 3 * 16
    assert sheet.shape[0] == 480 + 64 + 2 * 16


def test_boxes_shrink_with_the_picture_beside_others() -> None:
    found = detected((1000, 500, 1800, 1400))
    sheet = pixels(side_by_side(black(1920, 1920), [Panel("a", "", found)]))
    top, left = 16 + 64, 16
    for y, x in ((475, 500), (475, 900), (700, 700)):  # left, right, bottom, at half the size
        assert sheet[top + y - 2 : top + y + 3, left + x - 2 : left + x + 3].max() > 180


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (4, 4, 1), (5, 4, 2), (9, 4, 3)])
def test_a_row_holds_four_panels(count: int, columns: int, rows: int) -> None:
    sheet = pixels(side_by_side(black(400, 320), [Panel("a", "b", NOTHING)] * count))
    assert sheet.shape[:2] == (rows * (400 + 64 + 16) + 16, columns * (320 + 16) + 16)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (4, 2, 2)])
def test_a_row_holds_two_panels_of_a_wide_picture(count: int, columns: int, rows: int) -> None:
    sheet = pixels(side_by_side(black(100, 320), [Panel("a", "b", NOTHING)] * count))
    assert sheet.shape[:2] == (rows * (100 + 64 + 16) + 16, columns * (320 + 16) + 16)


@pytest.mark.parametrize(
    ("label", "other"),
    [("Кошка", "Ошкак"), ("γάτα", "άτγα"), ("ქართული", "არქთული"), ("naïve", "naive"), ("ş", "ł")],
)
def test_a_name_in_another_alphabet_is_drawn_letter_by_letter(label: str, other: str) -> None:
    image, box = black(200, 300), (10, 50, 200, 150)
    drawn = annotate(image, detected(box, label=label))
    assert drawn != annotate(image, detected(box, label=other))
    assert drawn != annotate(image, detected(box, label="class 0"))
    assert annotate(image, classified(label)) != annotate(image, classified(other))


@pytest.mark.parametrize("label", ["日本語", "แมว", "बिल्ली", "🐈", "cat 猫"])
def test_a_label_that_no_font_can_draw_becomes_its_class_id(label: str) -> None:
    image, box = black(200, 300), (10, 50, 200, 150)
    expected = annotate(image, detected(box, label="class 0"))
    assert annotate(image, detected(box, label=label)) == expected
    assert annotate(image, classified("a", label)) == annotate(image, classified("a", "class 1"))


@pytest.mark.parametrize("label", ["חתול", "قطة"])
@pytest.mark.parametrize("can_shape", [True, False])
def test_right_to_left_labels_are_drawn_only_with_a_shaping_engine(
    monkeypatch: pytest.MonkeyPatch, label: str, can_shape: bool
) -> None:
    monkeypatch.setattr("visavis_server.vision.lettering._can_shape", lambda: can_shape)
    image, box = black(200, 300), (10, 50, 200, 150)
    is_id = annotate(image, detected(box, label=label)) == annotate(
        image, detected(box, label="class 0")
    )
    assert is_id is not can_shape
