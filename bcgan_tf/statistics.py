"""Intervals and tests for shares of images, by scipy.stats. All intervals are at 95 %."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from bcgan_tf.errors import UserError

_LEVEL = 0.95
# The standard normal quantile of 97.5 %.
_Z = float(stats.norm.ppf((1 + _LEVEL) / 2))


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion.

    Unlike ``p +- 1.96 sqrt(p(1-p)/n)`` it stays in [0, 1], and keeps a width at 0 and at ``n``.

    Args:
        successes: 0 ... ``n``.
        n: number of trials, at least 1.

    Returns:
        The lower and upper end, in [0, 1].

    Raises:
        UserError: ``n`` is below 1, or ``successes`` outside 0 ... ``n``.

    Reference: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".
    """
    if n < 1 or not 0 <= successes <= n:
        raise UserError(f"{successes} of {n} is no proportion; give 0 <= successes <= n, n >= 1")
    low, high = stats.binomtest(int(successes), int(n)).proportion_ci(_LEVEL, method="wilson")
    return float(low), float(high)


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The mean of at least two values, and half the width of its 95 % interval (Student's t)."""
    half = stats.t.ppf((1 + _LEVEL) / 2, len(values) - 1) * stats.sem(values)
    return float(np.mean(values)), float(half)


def beyond_chance(more: np.ndarray, fewer: np.ndarray) -> bool:
    """Whether ``more`` holds for more images than ``fewer`` by more than chance allows.

    Two equally strong attacks break different images here and there: of ``b`` images that only
    one and ``c`` that only the other left, ``b - c`` has a standard deviation of ``sqrt(b + c)``.
    This asks for two of them, which is McNemar's test without a correction. The red flags use it,
    since it raises a flag on 4 images of 4, where the exact test needs 6.

    Args:
        more: bool ``[N]``.
        fewer: bool ``[N]``, of the same images.
    """
    gained, lost = int((more & ~fewer).sum()), int((fewer & ~more).sum())
    return gained > lost and gained - lost >= 2 * math.sqrt(gained + lost)


@dataclasses.dataclass(frozen=True)
class PairedComparison:
    """How a second model does against a first one, on the same images.

    Attributes:
        n: number of images.
        gained: images on which only the second model holds.
        lost: images on which only the first model holds.
        difference: share of the second minus share of the first, in [-1, 1].
        interval: 95 % interval of the difference (Wald, with Bonett and Price's adjustment). It
            is centered on the adjusted difference, which is nearer to 0.
        p_value: of McNemar's exact test, two-sided: the probability of a difference as large as
            this one or larger between two equally good models.
    """

    n: int
    gained: int
    lost: int
    difference: float
    interval: tuple[float, float]
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether the difference is more than chance explains, at 5 %."""
        return self.p_value < 1 - _LEVEL


def compare_paired(first: np.ndarray, second: np.ndarray) -> PairedComparison:
    """Compares two models by what each does on the same images.

    Args:
        first: bool ``[N]``, whether the first model holds on each image, ``N >= 1``.
        second: bool ``[N]``, whether the second model does, on the same images in the same order.

    Raises:
        UserError: the arrays are empty, or of different shapes.

    Reference: Fagerland, Lydersen and Laake 2014, "Recommended tests and confidence intervals for
    paired binomial proportions"; Bonett and Price 2012, "Adjusted Wald confidence interval for a
    difference of binomial proportions based on paired data".
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise UserError(
            f"a paired comparison needs two results of the same images, not {first.shape} and "
            f"{second.shape}; give bool [N] twice, N >= 1"
        )
    n, gained, lost = len(first), int((second & ~first).sum()), int((first & ~second).sum())
    p_value = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    plus, minus = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    center = plus - minus
    half = _Z * math.sqrt((plus + minus - center**2) / (n + 2))
    interval = (max(-1.0, center - half), min(1.0, center + half))
    return PairedComparison(n, gained, lost, (gained - lost) / n, interval, p_value)
