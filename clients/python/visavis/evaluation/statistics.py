"""Intervals for what a folder of pictures shows, and what two models' difference is worth.

All intervals are two-sided, at 95 %. Differences are paired: both models saw the same pictures.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVEL: Final = 0.95
_Z: Final = NormalDist().inv_cdf((1 + LEVEL) / 2)
RESAMPLES: Final = 500
_NO_SPREAD: Final = 1e-12
# Student's quantiles where the expansion is off.
_FEW_DEGREES: Final = {1: 12.7062, 2: 4.3027, 3: 3.1824}
_SEED: Final = 20_240_229


class Verdict(StrEnum):
    """The meaning of a difference with its interval."""

    BETTER = "better"
    WORSE = "worse"
    CANNOT_TELL = "can't tell"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval, which contains it."""

    value: float
    low: float
    high: float

    def within(self, least: float, most: float) -> "Estimate":
        """Return the same with an interval that does not reach beyond what is possible."""
        return Estimate(self.value, max(least, self.low), min(most, self.high))

    def __neg__(self) -> "Estimate":
        return Estimate(-self.value, -self.high, -self.low)

    @property
    def verdict(self) -> Verdict:
        """The meaning of this difference; it cannot be told if the interval includes zero."""
        if self.low > 0:
            return Verdict.BETTER
        return Verdict.WORSE if self.high < 0 else Verdict.CANNOT_TELL


def proportion(values: Floats) -> Estimate:
    """Return the mean of values in [0, 1], one for each picture, with Wilson's interval.

    For values between 0 and 1 it is conservative: none vary more than zeros and ones of the same
    mean. With every value 1 it still says how little a few pictures prove.
    Source: E. B. Wilson, Journal of the American Statistical Association 22 (1927), 209-212.
    """
    n = len(values)
    if n == 0:
        return Estimate(math.nan, 0.0, 1.0)
    p = float(values.mean())
    z2 = _Z * _Z
    center = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Estimate(p, max(0.0, min(p, center - half)), min(1.0, max(p, center + half)))


@dataclass(frozen=True, slots=True)
class Changes:
    """The items that only the model gets right (`fixed`), and only the baseline (`broke`).

    p_value: of McNemar's exact test, that both models are equally good.
    """

    fixed: int
    broke: int

    @property
    def p_value(self) -> float:
        """Source: Q. McNemar, Psychometrika 12 (1947), 153-157; exact, by the binomial."""
        n, k = self.fixed + self.broke, min(self.fixed, self.broke)
        if n == 0:
            return 1.0
        # Sums of exact integers: for thousands of changes a power of 0.5 would be 0.
        tail = sum(math.comb(n, i) for i in range(k + 1))
        return min(1.0, 2 * (tail / (1 << n)))


def changes(model: npt.NDArray[np.bool_], baseline: npt.NDArray[np.bool_]) -> Changes:
    """Return what changed between two models; each says which items it got right."""
    return Changes(int((model & ~baseline).sum()), int((~model & baseline).sum()))


@lru_cache(maxsize=4)
def resamples(pictures: int, count: int = RESAMPLES) -> npt.NDArray[np.int64]:
    """Return how often each picture is drawn in each bootstrap resample [count, pictures].

    The same numbers for every model: differences between models stay paired.
    """
    chance = np.random.default_rng(_SEED)
    if pictures == 0:
        return np.zeros((count, 0), np.int64)
    drawn = chance.multinomial(pictures, np.full(pictures, 1 / pictures), size=count)
    drawn.flags.writeable = False
    return drawn


@dataclass(frozen=True, slots=True)
class Statistic:
    """A figure of the whole set of pictures, as mAP is one, with its values on the resamples.

    pictures: on how many it rests; of one class, those with an object of it.
    """

    value: float
    resampled: Floats
    pictures: int

    @property
    def estimate(self) -> Estimate:
        """The figure, and around it the bootstrap's standard error times Student's quantile.

        Not the resamples' own percentiles: a resample repeats pictures, and mAP is higher on
        repeated ones, so that its percentiles lie too high. Source: B. Efron and R. Tibshirani,
        An Introduction to the Bootstrap (1993), chapters 12 and 13.
        """
        finite = self.resampled[np.isfinite(self.resampled)]
        if self.pictures < 2 or len(finite) < 2:
            return Estimate(self.value, -math.inf, math.inf)
        half = _student(self.pictures - 1) * float(finite.std(ddof=1))
        if half < _NO_SPREAD:
            # Resampling shows no spread; yet n equal pictures do not prove that there is none.
            half = proportion(np.zeros(self.pictures)).high
        return Estimate(self.value, self.value - half, self.value + half)

    def minus(self, other: "Statistic") -> Estimate:
        """Return the difference to another model's figure on the same pictures."""
        moved = self.resampled - other.resampled
        rests_on = min(self.pictures, other.pictures)
        return Statistic(self.value - other.value, moved, rests_on).estimate


def mean(values: Floats) -> Statistic:
    """Return the mean of one value for each picture."""
    n = len(values)
    return Statistic(float(values.mean()), resamples(n) @ values / n, n)


def difference_of_means(model: Floats, baseline: Floats) -> Estimate:
    """Return how much higher a model's mean is; one value in [0, 1] for each picture."""
    return mean(model).minus(mean(baseline))


def independent_difference(one: Estimate, other: Estimate) -> Estimate:
    """Return `one` minus `other`, measured on pictures that cannot be paired.

    Source: R. G. Newcombe, Statistics in Medicine 17 (1998), 873-890, method 10.
    """
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, value - below, value + above)


def _student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's distribution, to within 1 %.

    By Cornish and Fisher's expansion of the normal quantile; Abramowitz and Stegun, 26.7.5.
    """
    if freedom in _FEW_DEGREES:
        return _FEW_DEGREES[freedom]
    z, n = _Z, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )
