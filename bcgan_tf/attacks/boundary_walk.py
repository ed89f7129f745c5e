"""Brings misclassified points along the decision boundary nearer to their images."""

from __future__ import annotations

import math

import tensorflow as tf

from bcgan_tf.attacks.box_projection import box_projection
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.line_search import nearest_on_line
from bcgan_tf.attacks.linearized_boundary import towards_target
from bcgan_tf.attacks.objectives import ranked_wrong_class
from bcgan_tf.attacks.primitives import misclassified, not_inlined, per_example

_STEPS = 20
# Overshoot of the projection, so that the line has a misclassified point.
_BEYOND = 1.01
# What a step that leads nowhere nearer leaves of the share of the way that the next one goes.
_SHORTER = 0.5


def nearest_along_boundary(
    logits_fn: LogitsFn, images: tf.Tensor, labels: tf.Tensor, candidates: tf.Tensor, *, norm: str
) -> tf.Tensor:
    """Walks from misclassified points along the boundary to where it is nearest to the images.

    Each step linearizes the boundary to the class that is predicted there, projects the image onto
    it within [0, 1], goes a share of the way to that point, and from there to the boundary on the
    line to the image (:func:`bcgan_tf.attacks.line_search.nearest_on_line`). A point that is no
    nearer is not kept, and halves the share; a nearer one doubles it, up to 1.

    Args:
        logits_fn: images to logits ``[B, K]``.
        images: float32 ``[B, ...]`` in [0, 1].
        labels: int64 ``[B]``, the true ones.
        candidates: of the shape of the images.
        norm: ``"linf"`` or ``"l2"``, of the distance.

    Returns:
        Misclassified points in [0, 1]; the candidate where none was found.
    """
    rows = tf.shape(images)[0]
    order = math.inf if norm == "linf" else 2

    def on_line(points: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The boundary on the lines to some points, and its distance; infinite where right."""
        points = nearest_on_line(logits_fn, images, labels, points)
        points = tf.clip_by_value(points, 0.0, 1.0)
        distance = tf.norm(tf.reshape(points - images, [rows, -1]), order, axis=1)
        wrong = misclassified(logits_fn(points), labels)
        return points, tf.where(wrong, distance, math.inf)

    @not_inlined
    def projected(points: tf.Tensor) -> tf.Tensor:
        """The nearest points to the images on the boundary, linearized at some points."""
        likeliest, _ = ranked_wrong_class(logits_fn(points), labels, tf.constant(0))
        normals, gaps = towards_target(logits_fn, points, labels, likeliest)
        flat = tf.reshape(normals, [rows, -1])
        start = tf.reshape(images, [rows, -1])
        gaps += tf.reduce_sum(flat * (tf.reshape(points, [rows, -1]) - start), axis=1)
        change = _BEYOND * box_projection(start, flat, gaps, norm=norm)
        return images + tf.reshape(change, tf.shape(images))

    def step(number: tf.Tensor, best: tf.Tensor, least: tf.Tensor, share: tf.Tensor) -> tuple:
        way = per_example(share, images) * (projected(best) - best)
        points, distance = on_line(best + way)
        nearer = distance < least
        return (
            number + 1,
            tf.where(per_example(nearer, images), points, best),
            tf.where(nearer, distance, least),
            tf.where(nearer, tf.minimum(share / _SHORTER, 1.0), _SHORTER * share),
        )

    first, distance = on_line(candidates)
    start = (tf.constant(0), first, distance, tf.ones_like(distance))
    found = tf.while_loop(lambda number, *_: number < _STEPS, step, start)
    known = tf.math.is_finite(found[2])
    return tf.where(per_example(known, images), found[1], candidates)
