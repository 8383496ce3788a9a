"""The accuracy of handmade answers with known figures."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from visavis.dataset import Labelled, Truth

from tests.server import graphs
from visavis_export.errors import ExportError
from visavis_export.families.original import Found
from visavis_export.proof import accuracy

# One object in the middle of a picture of 100 x 80 pixels, a quarter of it.
MIDDLE = Truth(0, 0.5, 0.5, 0.5, 0.5)
ITS_BOX = (25.0, 20.0, 75.0, 60.0)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.zeros((80, 100, 3), np.uint8))
    return path


def found(*rows: tuple[tuple[float, ...], float, int]) -> Found:
    return Found(
        np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in rows], np.float32),
        np.array([class_id for _, _, class_id in rows], np.int64),
    )


def mean_precision(answers: list[Found], pictures: list[Labelled]) -> float:
    given = iter(answers)
    document = graphs.detector_document()
    return accuracy.measure(lambda encoded, image: next(given), pictures, document).value


def test_top_1_is_the_share_of_best_labels_that_are_right(picture: Path) -> None:
    given = iter([0, 1, 2, 2])
    labelled = [Labelled(picture, truth) for truth in (0, 1, 2, 0)]
    document = graphs.classifier_document()
    measured = accuracy.measure(lambda encoded, image: next(given), labelled, document)
    assert measured.value == 0.75


def test_the_right_box_has_a_precision_of_1(picture: Path) -> None:
    assert mean_precision(
        [found((ITS_BOX, 0.9, 0))], [Labelled(picture, (MIDDLE,))]
    ) == pytest.approx(1)


def test_a_box_that_overlaps_by_0_72_counts_at_5_of_10_thresholds(picture: Path) -> None:
    # 36 of 50 columns: 0.50, 0.55, 0.60, 0.65, 0.70, but not 0.75 to 0.95.
    narrow = (25.0, 20.0, 61.0, 60.0)
    labelled = [Labelled(picture, (MIDDLE,))]
    assert mean_precision([found((narrow, 0.9, 0))], labelled) == pytest.approx(0.5)


def test_a_wrong_box_with_a_higher_score_halves_the_precision(picture: Path) -> None:
    elsewhere = (0.0, 0.0, 10.0, 10.0)
    answer = found((elsewhere, 0.9, 0), (ITS_BOX, 0.8, 0))
    assert mean_precision([answer], [Labelled(picture, (MIDDLE,))]) == pytest.approx(0.5)


def test_classes_count_alike_however_many_objects_they_have(picture: Path) -> None:
    other = Truth(1, 0.1, 0.1, 0.1, 0.1)
    labelled = [Labelled(picture, (MIDDLE,)), Labelled(picture, (MIDDLE, other))]
    box = found((ITS_BOX, 0.9, 0))
    assert mean_precision([box, box], labelled) == pytest.approx(0.5)


def test_the_right_box_with_another_label_is_wrong(picture: Path) -> None:
    assert mean_precision([found((ITS_BOX, 0.9, 1))], [Labelled(picture, (MIDDLE,))]) == 0.0


def test_no_detections_have_a_precision_of_0(picture: Path) -> None:
    assert mean_precision([found()], [Labelled(picture, (MIDDLE,))]) == 0.0


def test_labels_of_another_model_are_refused(picture: Path) -> None:
    strange = [Labelled(picture, (Truth(79, 0.5, 0.5, 0.5, 0.5),))]
    with pytest.raises(ExportError, match=r"classes 79 to 79, .* give labels for this model"):
        mean_precision([found()], strange)


def test_pictures_without_any_object_are_refused(picture: Path) -> None:
    with pytest.raises(ExportError, match="contain no objects"):
        mean_precision([found()], [Labelled(picture, ())])


def figures(right: list[bool], picture: Path) -> accuracy.Figures:
    given = iter(right)
    labelled = [Labelled(picture, 0)] * len(right)
    document = graphs.classifier_document()
    return accuracy.measure(lambda encoded, image: 0 if next(given) else 1, labelled, document)


def test_equal_answers_differ_by_nothing_whatever_the_pictures(picture: Path) -> None:
    right = [index % 3 > 0 for index in range(40)]
    assert figures(right, picture).error_of_difference(figures(right, picture)) == 0


def test_the_error_is_that_of_paired_pictures(picture: Path) -> None:
    # Ten pictures, a group each: the error of a mean of ten, of which two are -1 and one is +1.
    original = [True] * 5 + [False] * 5
    ours = [False, False, True, True, True, True, False, False, False, False]
    differences = np.subtract(ours, original, dtype=float)
    expected = differences.std(ddof=1) / np.sqrt(10)
    error = figures(ours, picture).error_of_difference(figures(original, picture))
    assert error == pytest.approx(expected)
