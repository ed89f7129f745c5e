"""Intervals and tests, against published examples."""

from __future__ import annotations

import numpy as np
import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.statistics import beyond_chance, compare_paired, mean_interval, wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, table I, method 3 (the score method).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0000),
    ],
)
def test_wilson_interval(successes, n, low, high):
    assert wilson_interval(successes, n) == (
        pytest.approx(low, abs=5e-5),
        pytest.approx(high, abs=5e-5),
    )


def test_wilson_interval_is_exact_at_its_ends():
    assert wilson_interval(0, 20)[0] == 0.0 and wilson_interval(29, 29)[1] == 1.0
    assert [type(end) for end in wilson_interval(np.int64(3), 9)] == [float, float]


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_no_proportion_has_no_interval(successes, n):
    with pytest.raises(UserError, match="no proportion"):
        wilson_interval(successes, n)


def test_mean_interval_is_students():
    mean, half = mean_interval([0.01, 0.02, 0.03])
    assert mean == pytest.approx(0.02)
    assert half == pytest.approx(4.303 * 0.01 / np.sqrt(3), rel=2e-4)  # t of 2 degrees of freedom


def pair(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Which images the first and the second model hold."""
    counts = (both, gained, lost, neither)
    return tuple(np.repeat(np.array(kept, bool), counts) for kept in ([1, 0, 1, 0], [1, 1, 0, 0]))  # pyright: ignore[reportReturnType]


def test_a_paired_comparison_has_the_published_figures():
    # Fagerland, Lydersen and Laake 2014: airway hyper-responsiveness of 21 children before and
    # after a transplantation (Bentur et al. 2009).
    found = compare_paired(*pair(1, 7, 1, 12))
    assert (found.n, found.gained, found.lost) == (21, 7, 1)
    assert found.difference == pytest.approx(6 / 21)
    assert found.p_value == pytest.approx(18 / 256)  # two tails of (1 + 8) / 2^8
    assert found.interval == (pytest.approx(0.0134, abs=5e-5), pytest.approx(0.5084, abs=5e-5))
    assert not found.significant
    # Swapped, everything changes its sign.
    swapped = compare_paired(*pair(1, 1, 7, 12))
    assert swapped.interval == (-found.interval[1], -found.interval[0])
    assert (swapped.difference, swapped.p_value) == (-found.difference, found.p_value)


@pytest.mark.parametrize(
    ("gained", "lost", "significant"),
    # Six of six are the first that the exact test finds: 2 / 2^6 = 0.031, and 2 / 2^5 = 0.0625.
    [(0, 0, False), (5, 0, False), (6, 0, True), (52, 40, False), (30, 52, True)],
)
def test_the_exact_test_tells_chance_from_effect(gained, lost, significant):
    found = compare_paired(*pair(300, gained, lost, 20))
    assert found.significant is significant
    assert found.interval[0] < found.interval[1]  # with a width even without a difference


@pytest.mark.parametrize(
    ("first", "second"), [([], []), ([True], [True, False]), ([[True]], [[True]])]
)
def test_a_pair_that_is_none_is_refused(first, second):
    with pytest.raises(UserError, match="same images"):
        compare_paired(np.array(first, bool), np.array(second, bool))


def test_two_equal_attacks_that_differ_by_chance_raise_nothing():
    left = np.arange(200) < 180
    assert not beyond_chance(left, left)
    one, other = left.copy(), left.copy()
    one[:10], other[10:23] = False, False  # 13 against 10: sqrt(23) * 2 = 9.6
    assert not beyond_chance(one, other)
    one, other = left.copy(), left.copy()
    other[:3] = False
    assert not beyond_chance(one, other)  # 3 of 3: below 2 sqrt(3)
    other[:4] = False
    assert beyond_chance(one, other) and not beyond_chance(other, one)
