"""The agreement of two answers, with figures worked out by hand."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis_server.vision.comparison import (
    ClassificationAgreement,
    Match,
    classification_agreement,
    detection_agreement,
    jensen_shannon_divergence,
)
from visavis_server.vision.labels import SharedNames
from visavis_server.vision.results import Box, Detected, Detection

from .answers import classified, detected


def test_the_same_top_labels_in_another_order_overlap_whole() -> None:
    agreement = classification_agreement(classified(0.5, 0.3, 0.2), classified(0.3, 0.5, 0.2))
    assert not agreement.same_top1
    assert agreement.top_k_overlap == 1.0


def test_one_of_two_labels_in_common_is_half() -> None:
    agreement = classification_agreement(classified(0.5, 0.3, 0.2), classified(0.5, 0.2, 0.3))
    assert agreement.same_top1
    assert agreement.top_k_overlap == 0.5


def test_different_label_sets_are_matched_by_name_without_a_divergence() -> None:
    here = classified(0.5, 0.3, 0.2, labels="abc")
    baseline = classified(0.3, 0.5, 0.2, labels="bax")
    assert classification_agreement(here, baseline, letters("abc", "bax")) == (
        ClassificationAgreement(True, 1.0, None)
    )


@pytest.mark.parametrize(
    ("one", "other", "divergence"),
    [
        ([0.5, 0.5], [0.5, 0.5], 0.0),
        ([1, 0], [0, 1], 1.0),
        # H(3/4, 1/4) - (H(1/2, 1/2) + H(1, 0)) / 2
        ([0.5, 0.5], [1, 0], (0.75 * math.log2(4 / 3) + 0.25 * 2) - 0.5),
        # Middle (0.5, 0.5): 1 - H(0.9, 0.1)
        ([0.9, 0.1], [0.1, 0.9], 1 + 0.9 * math.log2(0.9) + 0.1 * math.log2(0.1)),
    ],
)
def test_divergence_is_entropy_of_the_middle_less_mean_entropy(
    one: list[float], other: list[float], divergence: float
) -> None:
    p, q = np.array(one, np.float32), np.array(other, np.float32)
    assert jensen_shannon_divergence(p, q) == pytest.approx(divergence, abs=1e-7)
    assert jensen_shannon_divergence(q, p) == pytest.approx(divergence, abs=1e-7)


weights = st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4).filter(lambda w: sum(w) > 0.1)


@given(weights, weights)
def test_divergence_is_symmetric_and_between_zero_and_one(
    one: list[float], other: list[float]
) -> None:
    p, q = np.array(one, np.float32), np.array(other, np.float32)
    divergence = jensen_shannon_divergence(p, q)
    assert 0 <= divergence <= 1
    assert divergence == pytest.approx(jensen_shannon_divergence(q, p), abs=1e-12)
    assert jensen_shannon_divergence(p, p) == 0


def test_boxes_are_matched_one_to_one_the_highest_overlap_first() -> None:
    baseline = detected(((0, 0, 10, 10), 0, 0.9), ((50, 50, 60, 60), 1, 0.5))
    here = detected(
        ((0, 0, 10, 8), 0, 0.8),  # IoU 0.8 with the cat
        ((0, 0, 10, 9), 0, 0.7),  # IoU 0.9: takes it
        ((50, 50, 60, 60), 0, 0.6),  # the dog's place, another label
    )
    agreement = detection_agreement(here, baseline)
    assert agreement.matches == (Match(1, 0, pytest.approx(0.9)),)
    assert (agreement.only_here, agreement.only_in_baseline) == (2, 1)
    assert agreement.mean_iou == pytest.approx(0.9)
    assert agreement.mean_score_difference == pytest.approx(0.2)
    assert agreement.f1 == pytest.approx(2 * 1 / (3 + 2))


def test_an_overlap_of_half_matches_and_of_less_does_not() -> None:
    baseline = detected(((0, 0, 10, 10), 0, 0.5))
    half = detection_agreement(detected(((0, 0, 10, 5), 0, 0.5)), baseline)
    less = detection_agreement(detected(((0, 0, 10, 4.9), 0, 0.5)), baseline)
    assert (len(half.matches), half.mean_iou) == (1, 0.5)
    assert (less.matches, less.mean_iou, less.mean_score_difference, less.f1) == ((), None, None, 0)


def test_different_label_sets_are_matched_by_label() -> None:
    cat = Detected((Detection(Box(0, 0, 9, 9), 7, "cat", 0.5),))
    other_cat = Detected((Detection(Box(0, 0, 9, 9), 3, "cat", 0.5),))
    assert detection_agreement(cat, other_cat, SharedNames(("cat",), ("cat",))).f1 == 1
    assert detection_agreement(cat, other_cat).f1 == 0


@pytest.mark.parametrize("names", [None, SharedNames(("cat", "dog"), ("dog", "cat"))])
def test_nothing_found_agrees_with_nothing_and_disagrees_with_something(
    names: SharedNames | None,
) -> None:
    nothing, something = detected(), detected(((0, 0, 9, 9), 0, 0.5))
    assert detection_agreement(nothing, nothing, names).f1 == 1
    assert detection_agreement(nothing, something, names).only_in_baseline == 1
    assert detection_agreement(something, nothing, names).only_here == 1


def at(x: float, label: str) -> Detection:
    return Detection(Box(x, 0, x + 9, 9), 0, label, 0.5)


def test_what_the_other_model_cannot_know_is_left_out_and_counted() -> None:
    names = SharedNames(("sofa", "TV monitor", "N/A"), ("couch", "tv", "zebra"))
    here = Detected((at(0, "sofa"), at(50, "N/A"), at(90, "TV monitor"), at(95, "N/A")))
    baseline = Detected((at(0, "couch"), at(50, "zebra"), at(200, "tv")))
    agreement = detection_agreement(here, baseline, names)
    assert [(match.index, match.baseline_index) for match in agreement.matches] == [(0, 0)]
    assert (agreement.only_here, agreement.only_in_baseline) == (1, 1)
    assert (agreement.unknown_here, agreement.unknown_in_baseline) == (2, 1)
    assert agreement.f1 == 2 * 1 / (2 + 2)


def test_two_unknown_labels_of_one_name_never_match() -> None:
    names = SharedNames(("a", "b"), ("b", "c"))
    agreement = detection_agreement(Detected((at(0, "a"),)), Detected((at(0, "c"),)), names)
    assert (agreement.matches, agreement.f1) == ((), 1.0)


def test_the_best_labels_that_both_know_are_compared() -> None:
    here, baseline = classified(0.6, 0.4, labels="xa"), classified(0.5, 0.3, 0.2, labels="aby")
    agreement = classification_agreement(here, baseline, letters("xa", "aby"))
    assert agreement.same_top1
    assert agreement.top_k_overlap == 1.0
    assert (agreement.unknown_here, agreement.unknown_in_baseline) == (1, 1)


def test_models_without_a_label_in_common_agree_on_nothing() -> None:
    agreement = classification_agreement(
        classified(0.6, 0.4, labels="ab"), classified(0.6, 0.4, labels="cd"), letters("ab", "cd")
    )
    assert agreement == ClassificationAgreement(False, 0.0, None, 2, 2)


def letters(here: str, baseline: str) -> SharedNames:
    return SharedNames(tuple(here), tuple(baseline))


corner = st.integers(0, 12)
detections = st.lists(
    st.tuples(
        st.tuples(corner, corner, st.integers(1, 12), st.integers(1, 12)).map(
            lambda c: (c[0], c[1], c[0] + c[2], c[1] + c[3])
        ),
        st.integers(0, 1),
        st.integers(0, 8).map(lambda n: n / 8),
    ),
    max_size=8,
)


@given(detections, detections)
def test_agreement_of_detectors_is_symmetric(here: Any, there: Any) -> None:
    one = detection_agreement(detected(*here), detected(*there))
    other = detection_agreement(detected(*there), detected(*here))
    pairs = {(match.index, match.baseline_index) for match in one.matches}
    assert pairs == {(match.baseline_index, match.index) for match in other.matches}
    assert (one.only_here, one.only_in_baseline) == (other.only_in_baseline, other.only_here)
    assert one.f1 == other.f1
    if here:
        assert detection_agreement(detected(*here), detected(*here)).f1 == 1


def test_labels_in_common_are_a_share_of_the_longer_answer() -> None:
    here, baseline = classified(0.6, 0.4, labels="ab"), classified(0.5, 0.3, 0.2, labels="abx")
    here = replace(here, classifications=here.classifications[:1])
    names = letters("ab", "abx")
    assert classification_agreement(here, baseline, names).top_k_overlap == 0.5
    assert classification_agreement(baseline, here, names).top_k_overlap == 0.5
