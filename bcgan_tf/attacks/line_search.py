"""The nearest misclassified point on the line between an image and a candidate."""

from __future__ import annotations

import tensorflow as tf

from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.primitives import margins, misclassified, per_example

_STEPS = 3
# Overshoot beyond the expected boundary, as a share of the remaining way.
_BEYOND = 0.1


def nearest_on_line(
    logits_fn: LogitsFn, images: tf.Tensor, labels: tf.Tensor, candidates: tf.Tensor
) -> tf.Tensor:
    """Brings points to the boundary, on their lines to the images.

    Each step interpolates the margin between the nearest wrong and the farthest right point, and
    goes a little beyond its zero, because points on the boundary are not misclassified. Where the
    candidate is not misclassified, the first steps look beyond it.

    Args:
        logits_fn: images to logits ``[B, K]``.
        images: float32 ``[B, ...]``.
        labels: int64 ``[B]``, the true ones.
        candidates: of the shape of the images.

    Returns:
        Misclassified points, which may lie outside of [0, 1] beyond a candidate; the candidate
        where none was found.
    """
    right, wrong = tf.zeros_like(labels, tf.float32), tf.ones_like(labels, tf.float32)
    below, above = (margins(logits_fn(points), labels) for points in (images, candidates))
    change, nearest = candidates - images, candidates
    for _ in range(_STEPS):
        zero = right + (wrong - right) * tf.math.divide_no_nan(below, below - above)
        share = zero + _BEYOND * tf.abs(wrong - zero)
        points = images + per_example(share, images) * change
        logits = logits_fn(points)
        margin, is_wrong = margins(logits, labels), misclassified(logits, labels)
        right, below = (tf.where(is_wrong, *pair) for pair in ((right, share), (below, margin)))
        wrong, above = (tf.where(is_wrong, *pair) for pair in ((share, wrong), (margin, above)))
        nearest = tf.where(per_example(is_wrong, images), points, nearest)
    return nearest
