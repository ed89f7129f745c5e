"""Comparing logits: up to a common offset, and without masked classes.

Only differences of logits change a prediction. A model masks a class out by a logit of minus
infinity or a large negative number; scales are then taken over the other classes only.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bcgan_tf.errors import UserError

# Rounding allowed, relative to a logit's distance below the largest.
_ROUNDING = 1e-4
# Rounding allowed in float32 spacings at the largest logit, whose size includes the common offset.
_SPACINGS = 4
# A masked class lies at least this far below the largest logit of every image, absolutely and in
# median gaps between the two largest logits. Real classes lie nearer at any scale.
_MASKED, _MASKED_GAPS = 1e3, 100.0
# Largest float32 spacing, as a share of the median gap, at which logits can be evaluated.
_COARSE = 0.02


def logits_differ(
    first: np.ndarray, second: np.ndarray, *, rounding: float = _ROUNDING
) -> np.ndarray:
    """Which rows of two sets of logits differ by more than float32 rounding.

    Compares each logit's distance below the largest of its row. The distances may differ by
    ``rounding`` times the larger of that distance and the median gap between the two largest
    logits, plus four float32 spacings. The tolerance of real classes so depends neither on a
    common offset of the row nor on masked classes.

    Args:
        first: ``[N, K]``, at least one row.
        second: ``[N, K]``.
        rounding: relative to the distances.

    Returns:
        bool ``[N]``. Minus infinity equals itself, and so does NaN.
    """
    first, second = (np.asarray(one, np.float64) for one in (first, second))
    finite = np.isfinite(first) & np.isfinite(second)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    tops = [np.where(finite, one, -math.inf).max(axis=1, keepdims=True) for one in (first, second)]
    with np.errstate(invalid="ignore"):
        below = [top - one for top, one in zip(tops, (first, second), strict=True)]
        scale = np.maximum(np.maximum(*below), max(median_gap(first), median_gap(second)))
        largest = np.maximum(*(np.abs(top) for top in tops)).astype(np.float32)
        allowed = rounding * scale + _SPACINGS * np.spacing(largest)
        close = np.abs(below[0] - below[1]) <= allowed
    return ~np.where(finite, close, same).all(axis=1)


def below_top(logits: np.ndarray) -> np.ndarray:
    """Each logit minus the largest of its row, float64 ``[N, K]``, at most 0."""
    logits = np.asarray(logits, np.float64)
    return logits - logits.max(axis=1, keepdims=True)


def masked_classes(logits: np.ndarray) -> np.ndarray:
    """Which classes the model masks out: bool ``[K]``, from its logits ``[N, K]``.

    In every row their logit is minus infinity or at least 1,000, and 100 median gaps, below the
    largest.
    """
    with np.errstate(invalid="ignore"):
        below = logits.max(axis=1, keepdims=True).astype(np.float64) - logits
    far = max(_MASKED, _MASKED_GAPS * median_gap(logits))
    return (np.isneginf(logits) | (below > far)).all(axis=0)


def without_classes(
    logits_fn: Callable[[tf.Tensor], tf.Tensor], masked: np.ndarray
) -> Callable[[tf.Tensor], tf.Tensor]:
    """The function with logits of minus infinity for the classes ``masked``, bool ``[K]``."""
    if not masked.any():
        return logits_fn
    return lambda images: tf.where(tf.constant(masked), -math.inf, logits_fn(images))


def check_digits(logits: np.ndarray) -> None:
    """Checks that a common offset of the logits leaves float32 enough digits for differences.

    Args:
        logits: float32 ``[N, K]``.

    Raises:
        UserError: if its spacing at the largest logit is above a fiftieth of the median gap.
    """
    top, gap = logits.max(axis=1).astype(np.float32), median_gap(logits)
    spacing = float(np.median(np.spacing(np.abs(top))))
    if np.median(np.abs(top)) > _MASKED and spacing > _COARSE * gap:
        raise UserError(
            f"the logits lie around {np.median(top):.3g}, where float32 numbers are {spacing:.2g} "
            f"apart, and the two largest differ by {gap:.2g}: nothing can be measured of their "
            "differences; subtract the common offset within the model, as from the biases of its "
            "last layer"
        )


def median_gap(logits: np.ndarray) -> float:
    """Median of the largest minus the second-largest logit; 0 without a finite one."""
    if logits.shape[1] < 2:
        return 0.0
    top = np.sort(np.where(np.isnan(logits), -math.inf, logits), axis=1)[:, -2:].astype(np.float64)
    with np.errstate(invalid="ignore"):
        gaps = top[:, 1] - top[:, 0]
    finite = gaps[np.isfinite(gaps)]
    return float(np.median(finite)) if finite.size else 0.0
