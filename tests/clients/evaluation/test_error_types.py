"""Errors of detectors by kind: a picture with one of each, and what repairing it is worth."""

import numpy as np
import pytest
from visavis.evaluation.accuracy import average_precision, detection_accuracy
from visavis.evaluation.boxes import Boxes
from visavis.evaluation.error_types import KINDS, ErrorKind, error_kinds, judged

SIZE = (200, 200)
TRUTH = Boxes.of([(x, 0, x + 20, 20, 1, 1.0) for x in (0, 40, 80, 120)])
RIGHT = (0, 0, 20, 20, 1, 0.9)
WRONG = {
    "class": (40, 0, 60, 20, 2, 0.8),
    "place": (40, 0, 60, 50, 1, 0.8),  # IoU 0.4
    "both": (40, 0, 60, 50, 2, 0.8),
    "duplicate": (0, 0, 20, 19, 1, 0.8),
    "background": (150, 150, 170, 170, 1, 0.8),
}


def kinds_of(found: Boxes, truth: Boxes) -> dict[str, ErrorKind]:
    return error_kinds([judged(found, truth)])


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_box_is_of_its_kind(kind: str) -> None:
    kinds = kinds_of(Boxes.of([RIGHT, WRONG[kind]]), TRUTH)
    missed = 2 if kind in ("class", "place") else 3
    expected = {other: int(other == kind) for other in KINDS} | {"missed": missed}
    assert {name: error.count for name, error in kinds.items()} == expected


def test_repairing_an_error_gains_what_the_figure_says() -> None:
    found = Boxes.of([WRONG["background"], (0, 0, 20, 20, 1, 0.5)])
    lost = kinds_of(found, TRUTH)
    without = Boxes.of([(0, 0, 20, 20, 1, 0.5)])

    def map50(boxes: Boxes) -> float:
        return detection_accuracy([boxes], [TRUTH], [SIZE]).map50.value

    assert lost["background"].lost == pytest.approx(map50(without) - map50(found))
    repaired = Boxes.of([RIGHT, (40, 0, 60, 20, 1, 0.8)])
    misplaced = Boxes.of([RIGHT, WRONG["place"]])
    gain = map50(repaired) - map50(misplaced)
    assert kinds_of(misplaced, TRUTH)["place"].lost == pytest.approx(gain)
    assert gain > 0


def test_two_wrong_boxes_of_one_object_are_repaired_once() -> None:
    twice = Boxes.of([WRONG["class"], (40, 0, 60, 20, 3, 0.7)])
    kinds = kinds_of(twice, TRUTH)
    assert kinds["class"].count == 2
    assert kinds["class"].lost == pytest.approx(average_precision([(0.8, True)], 4))


def test_nothing_wrong_costs_nothing() -> None:
    assert all(error == error.__class__(0, 0.0) for error in kinds_of(TRUTH, TRUTH).values())
    nothing = Boxes.of([])
    assert kinds_of(nothing, nothing)["missed"].count == 0
    assert np.isnan(average_precision([], 0))
