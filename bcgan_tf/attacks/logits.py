"""What logits say whatever is added to all of them, and whichever classes are masked out.

Only differences of logits decide anything. A class is masked out by minus infinity, or by a large
negative number in its place; it is then no class, and no scale is to be taken over it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bcgan_tf.errors import UserError

# What counts as rounding, relative to a logit's distance below the largest.
_ROUNDING = 1e-4
# Spacings of float32 at the largest logit, which carries the common offset.
_SPACINGS = 4
# A masked class lies below the largest logit of every image by this at least, and by so many times
# the median gap between the two largest: no real class, at whatever scale, lies there.
_MASKED, _MASKED_GAPS = 1e3, 100.0
# The largest spacing of float32, as a share of the median gap, at which the logits can be judged.
_COARSE = 0.02


def logits_differ(
    first: np.ndarray, second: np.ndarray, *, rounding: float = _ROUNDING
) -> np.ndarray:
    """Which rows of two sets of logits differ by more than float32 rounding.

    What is compared is how far each logit lies below the largest of its row. It may differ by
    ``rounding`` times that distance, or times the median gap of the two largest logits where that
    is more, and by a few spacings of float32. So neither a common offset of a row nor a masked
    class, however far down, widens what real classes may differ by.

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
    """How far each logit ``[N, K]`` lies below the largest of its row, in float64: at most 0."""
    logits = np.asarray(logits, np.float64)
    return logits - logits.max(axis=1, keepdims=True)


def masked_classes(logits: np.ndarray) -> np.ndarray:
    """Which classes the model never means: bool ``[K]``, from its logits ``[N, K]``.

    In every row they are minus infinity, or as far below the largest logit as no real class is.
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
    """Checks that float32 has digits left for what the logits differ by, beside their offset.

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
