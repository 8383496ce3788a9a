"""Thresholds of detectors: what is found at each, and which one is suggested."""

import numpy as np
import pytest
from visavis.evaluation.boxes import Boxes
from visavis.evaluation.operating import Curve, OperatingPoint, curve

TRUTH = Boxes.of([(0, 0, 10, 10, 1, 1.0), (20, 0, 30, 10, 1, 1.0), (40, 0, 50, 10, 1, 1.0)])
FOUND = Boxes.of(
    [
        (0, 0, 10, 10, 1, 0.9),
        (60, 0, 70, 10, 1, 0.8),  # nothing is there
        (20, 0, 30, 10, 1, 0.7),
        (40, 0, 50, 10, 2, 0.6),  # another class
        (80, 0, 90, 10, 1, 0.1),
    ]
)


def test_precision_and_recall_are_those_of_the_boxes_that_are_left() -> None:
    drawn = curve([FOUND], [TRUTH])
    assert drawn.at(0.85) == OperatingPoint(0.85, 1.0, 1 / 3)
    assert drawn.at(0.7) == OperatingPoint(0.7, 2 / 3, 2 / 3)
    assert drawn.at(0.0) == OperatingPoint(0.0, 2 / 5, 2 / 3)
    assert drawn.at(0.95) == OperatingPoint(0.95, 1.0, 0.0)


def test_the_suggested_threshold_has_the_highest_f1_of_all() -> None:
    chance = np.random.default_rng(0)
    scores = np.sort(np.round(chance.random(300), 2))[::-1]
    drawn = Curve(scores, chance.random(300) < scores, 200)
    assert drawn.best.f1 == max(drawn.at(score).f1 for score in scores)
    assert curve([FOUND], [TRUTH]).best.threshold == pytest.approx(0.7)


def test_models_are_compared_at_equal_precision() -> None:
    drawn = curve([FOUND], [TRUTH])
    point = drawn.at_precision(0.6)
    assert point is not None
    assert (point.threshold, point.recall) == (pytest.approx(0.7), pytest.approx(2 / 3))
    assert drawn.at_precision(1.01) is None


def test_crowds_do_not_count() -> None:
    crowd = Boxes.of([(0, 0, 10, 10, 1, 1.0)], [True])
    assert curve([Boxes.of([])], [crowd]).objects == 0
    assert curve([], []).best == OperatingPoint(1.0, 1.0, 0.0)
