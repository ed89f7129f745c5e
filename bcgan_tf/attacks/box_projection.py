"""The least change that takes a point of the unit box onto a hyperplane, within the box."""

from __future__ import annotations

import tensorflow as tf


def box_projection(
    points: tf.Tensor, normals: tf.Tensor, gaps: tf.Tensor, *, norm: str
) -> tf.Tensor:
    """The smallest ``d`` with ``normal . d = gap`` and ``0 <= point + d <= 1``, for each row.

    Where no point of the box reaches the hyperplane: the change to the corner nearest to it, in
    all pixels on which the hyperplane depends. A normal of zeros gives no change.

    The solution moves every pixel towards the hyperplane as far as ``t`` (Linf) or
    ``t * |normal|`` (L2), or to its end of the box, whichever comes first. What is bridged,
    ``sum(min(rate * t, full))``, grows with ``t``, concave and piecewise linear, so Newton's
    method from ``t = 0`` climbs to the exact ``t``: each step finds more pixels at their end, and
    where a step finds none it has arrived. That is at most one step for each pixel, and 3 to 6 in
    practice, which takes a fifth of the time of sorting the pixels by the ``t`` of their ends
    *(measured, 500 rows of 784 pixels, on a CPU)*.

    Args:
        points: float32 ``[B, D]`` in [0, 1].
        normals: float32 ``[B, D]``.
        gaps: float32 ``[B]``, what ``normal . point`` lacks, of either sign.
        norm: ``"linf"`` or ``"l2"``: what is least.

    Returns:
        ``d``, float32 ``[B, D]``.
    """
    # Scaled to a largest entry of 1: squares of the small gradients of a confident model vanish.
    largest = tf.reduce_max(tf.abs(normals), axis=1, keepdims=True)
    normals = tf.math.divide_no_nan(normals, largest)
    gaps = tf.math.divide_no_nan(gaps, largest[:, 0])
    directions = tf.sign(normals) * tf.where(gaps < 0.0, -1.0, 1.0)[:, None]
    gaps = tf.abs(gaps)

    room = tf.where(directions > 0.0, 1.0 - points, points)
    speeds = tf.ones_like(normals) if norm == "linf" else tf.abs(normals)
    rates = tf.abs(normals) * speeds
    full = tf.abs(normals) * room

    def newton(ended: tf.Tensor, reach: tf.Tensor, climbing: tf.Tensor) -> tuple[tf.Tensor, ...]:
        del reach, climbing
        bridged = tf.reduce_sum(tf.where(ended, full, 0.0), axis=1)
        slope = tf.reduce_sum(tf.where(ended, 0.0, rates), axis=1)
        reach = tf.math.divide_no_nan(gaps - bridged, slope)
        now = ended | (rates * reach[:, None] >= full)
        return now, reach, tf.reduce_any(now != ended)

    unreachable = tf.reduce_sum(full, axis=1) <= gaps
    ended = (full <= 0.0) | unreachable[:, None]
    start = (ended, tf.zeros_like(gaps), tf.constant(True))
    ended, reach, _ = tf.while_loop(lambda ended, reach, climbing: climbing, newton, start)
    moved = tf.minimum(speeds * tf.maximum(reach, 0.0)[:, None], room)
    return directions * tf.where(ended, room, moved)
