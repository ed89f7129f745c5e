"""Boxes: all points between two tensors, and what affine and rising functions make of them.

An :class:`IntervalBound` ignores rounding, which is enough for training; a
:class:`RoundedIntervalBound` also contains what a network computes in float32.

Reference: for the rounding, Higham 2002, "Accuracy and Stability of Numerical Algorithms",
section 3.1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, Self

import tensorflow as tf

# Largest relative error of one float32 operation, and the largest number that may be flushed to 0.
_UNIT, TINY = 2.0**-24, 2.0**-126
# Roundings assumed for operations that are no long sums; generous, because kernels differ.
FEW = 16


@dataclasses.dataclass(frozen=True, eq=False)
class IntervalBound:
    """All points between two float32 tensors of one shape, ``lower <= upper``."""

    lower: tf.Tensor
    upper: tf.Tensor

    # The dtype in which bounds are computed.
    dtype: ClassVar[str] = "float32"

    @property
    def magnitudes(self) -> tf.Tensor:
        """The largest magnitude of each entry, in :attr:`dtype`."""
        return tf.cast(tf.maximum(tf.abs(self.lower), tf.abs(self.upper)), self.dtype)

    def affine(
        self,
        apply: Callable[[Any, Any], Any],
        factors: Any,
        constant: Any,
        *,
        terms: int,
        size: Callable[[Any], Any] | None = None,
    ) -> Self:
        """Bounds of an affine map.

        Args:
            apply: a bilinear function of the points and the factors.
            factors: in ``dtype``.
            constant: in ``dtype``, added to the result.
            terms: number of roundings of a result, such as the terms of its sum.
            size: magnitudes of the points to the sum of the magnitudes of all terms, the constant's
                included; None: ``apply`` to the magnitudes.
        """
        lower, upper = (tf.cast(side, self.dtype) for side in (self.lower, self.upper))
        center = apply((lower + upper) / 2.0, factors) + constant
        radius = apply((upper - lower) / 2.0, tf.abs(factors))

        def all_of(points: Any) -> Any:
            return apply(points, tf.abs(factors)) + tf.abs(constant)

        sized = size or all_of
        return self.around(center, radius, terms, lambda: sized(self.magnitudes))

    def rising(self, function: Callable[[Any], Any], *others: IntervalBound) -> Self:
        """Bounds of a non-decreasing function of this box, or of a list of several boxes."""
        boxes = (self, *others)
        ends = ([box.lower for box in boxes], [box.upper for box in boxes])
        lower, upper = (function(end if others else end[0]) for end in ends)
        return type(self)(lower, upper)

    def rounded(self, terms: int, size: Callable[[Any], Any]) -> Self:
        """The bounds, widened by the rounding error of their computation in float32.

        Args:
            terms: number of roundings of a result.
            size: magnitudes of the bounds to magnitudes of the rounded values.
        """
        del terms, size
        return self

    @staticmethod
    def relative_error(terms: int) -> float:
        """Largest relative error of a result of ``terms`` roundings."""
        del terms
        return 0.0

    def around(self, center: Any, radius: Any, terms: int, size: Callable[[], Any]) -> Self:
        """``center`` plus and minus ``radius``, wider by the rounding of terms of that size."""
        del terms, size
        return type(self)(center - radius, center + radius)


class RoundedIntervalBound(IntervalBound):
    """Bounds on what a network computes in float32, in whatever order it sums.

    Bounds are computed in float64 and widened by the largest rounding error of the network's
    float32: ``n u / (1 - n u)`` times the sum of the magnitudes, for ``n`` roundings of at most
    ``u``. Rounding the bounds to float32 keeps them valid, because they bound float32 numbers.

    Valid for full float32 and plain sums, not for TensorFloat-32 or transforms such as Winograd's.
    """

    dtype: ClassVar[str] = "float64"

    def rounded(self, terms: int, size: Callable[[Any], Any]) -> Self:
        lower, upper = (tf.cast(side, self.dtype) for side in (self.lower, self.upper))
        center, radius = (lower + upper) / 2.0, (upper - lower) / 2.0
        # Twice: the bounds were computed in float32 as well.
        return self.around(center, radius, 2 * terms, lambda: size(self.magnitudes))

    @staticmethod
    def relative_error(terms: int) -> float:
        error = terms * _UNIT
        return error / (1.0 - error) if error < 0.5 else math.inf

    def around(self, center: Any, radius: Any, terms: int, size: Callable[[], Any]) -> Self:
        radius += self.relative_error(terms) * size() + terms * TINY
        lower, upper = (tf.cast(side, tf.float32) for side in (center - radius, center + radius))
        # Nothing is known about what overflows.
        lower = tf.where(tf.math.is_nan(lower), -math.inf, lower)
        return type(self)(lower, tf.where(tf.math.is_nan(upper), math.inf, upper))
