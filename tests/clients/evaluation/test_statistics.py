"""Intervals and tests, against SciPy's and against what repeated experiments show."""

import math

import numpy as np
import pytest
from scipy import stats
from visavis.evaluation.statistics import (
    Changes,
    Estimate,
    Verdict,
    changes,
    difference_of_means,
    independent_difference,
    mean,
    proportion,
)


@pytest.mark.parametrize(("right", "n"), [(0, 8), (8, 8), (3, 10), (158, 200), (4999, 5000)])
def test_a_proportions_interval_is_wilsons(right: int, n: int) -> None:
    estimate = proportion(np.array([1.0] * right + [0.0] * (n - right)))
    expected = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert estimate.value == pytest.approx(right / n)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("fixed", "broke"), [(0, 0), (9, 7), (1, 12), (0, 5), (600, 500)])
def test_mcnemars_p_value_is_the_exact_binomials(fixed: int, broke: int) -> None:
    n = fixed + broke
    expected = stats.binomtest(min(fixed, broke), n).pvalue if n else 1.0
    assert Changes(fixed, broke).p_value == pytest.approx(expected, rel=1e-9)


def test_changes_are_counted_where_models_differ() -> None:
    model = np.array([True, True, False, False, True])
    baseline = np.array([True, False, True, False, False])
    assert changes(model, baseline) == Changes(fixed=2, broke=1)


@pytest.mark.parametrize("n", [10, 60, 300])
def test_the_interval_of_a_paired_difference_covers_the_truth_as_often_as_it_says(n: int) -> None:
    chance = np.random.default_rng(n)
    covered, repetitions, gain = 0, 300, 0.05
    for _ in range(repetitions):
        baseline = chance.random(n) < 0.7
        # A twentieth of all pictures is gained, and a tenth changes either way.
        moved = chance.random(n)
        model = np.where(moved < 0.10 + gain, True, np.where(moved < 0.15 + gain, False, baseline))
        truth = (0.10 + gain) * 0.3 - 0.05 * 0.7
        estimate = difference_of_means(model.astype(float), baseline.astype(float))
        covered += estimate.low <= truth <= estimate.high
    # By the binomial, 0.95 of 300 is seldom below 0.91; small samples cover a little less.
    assert covered / repetitions >= (0.86 if n == 10 else 0.91)
    assert covered < repetitions


def test_no_change_on_few_pictures_is_no_proof_of_none() -> None:
    same = np.ones(8)
    estimate = difference_of_means(same, same)
    assert estimate.value == 0
    assert (
        estimate.high
        == -estimate.low
        == pytest.approx(stats.binomtest(0, 8).proportion_ci(method="wilson").high)
    )
    assert estimate.verdict is Verdict.CANNOT_TELL


def test_a_mean_of_one_picture_has_no_bounds() -> None:
    assert mean(np.array([0.4])).estimate == Estimate(0.4, -math.inf, math.inf)


def test_a_means_interval_is_that_of_students_t() -> None:
    values = np.random.default_rng(0).random(40)
    estimate = mean(values).estimate
    low, high = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.01)


def test_verdicts_say_nothing_where_zero_is_possible() -> None:
    assert Estimate(0.1, 0.01, 0.2).verdict is Verdict.BETTER
    assert Estimate(-0.1, -0.2, -0.01).verdict is Verdict.WORSE
    assert Estimate(0.1, -0.01, 0.2).verdict is Verdict.CANNOT_TELL


def test_a_difference_to_an_earlier_run_is_wider_than_either_interval() -> None:
    one, other = proportion(np.repeat([1.0, 0.0], 50)), proportion(np.repeat([1.0, 0.0], [60, 40]))
    lost = independent_difference(other, one)
    assert lost.value == pytest.approx(0.1)
    assert lost.low < 0 < lost.high
    assert lost.high - lost.low > one.high - one.low
