"""The decision boundary as a hyperplane, from the logits and their gradients at a point."""

from __future__ import annotations

import math
from typing import Any, cast

import tensorflow as tf

from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.objectives import loss_gradient
from bcgan_tf.attacks.primitives import per_example, require_gradient

# Normals, shaped as the points [B, ...], and gaps [B]: normal . (x - point) = gap.
Hyperplanes = tuple[tf.Tensor, tf.Tensor]

# Up to this many classes, the gradients of all are taken at once, in a graph that grows with them.
_UNROLLED = 32


def towards_target(
    logits_fn: LogitsFn, points: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor
) -> Hyperplanes:
    """The linearized boundary between each label and its target.

    Args:
        logits_fn: images to logits ``[B, K]``.
        points: float32 ``[B, ...]``.
        labels: int64 ``[B]``.
        targets: int64 ``[B]``.

    Raises:
        UserError: if the logits do not depend on the points differentiably.
    """
    normals, margin, _ = loss_gradient(logits_fn, _margin, points, labels, targets)
    return normals, -margin


def towards_nearest(
    logits_fn: LogitsFn, points: tf.Tensor, labels: tf.Tensor, *, norm: str
) -> Hyperplanes:
    """The linearized boundary between each label and the class with the nearest boundary.

    ``|z_y - z_k| / ||grad(z_y - z_k)||`` is least for that class, in the norm dual to ``norm``:
    the gradients of all classes are taken. A masked class, or one with a constant margin, is
    chosen only if there is no other.

    Args:
        logits_fn: images to logits ``[B, K]``.
        points: float32 ``[B, ...]``.
        labels: int64 ``[B]``.
        norm: ``"linf"`` or ``"l2"``: of the distance.

    Raises:
        UserError: if the logits do not depend on the points differentiably.
    """
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(points)
        logits = logits_fn(points)
    count = tf.shape(logits)[1]

    def gradient(of: int | tf.Tensor) -> tf.Tensor:
        chosen = tf.one_hot(of * tf.ones_like(labels), count)
        return require_gradient(tape.gradient(logits, points, output_gradients=chosen))

    true = tf.gather(logits, labels, axis=1, batch_dims=1)[:, None]
    known = cast(int | None, logits.shape[1])
    if known is not None and known <= _UNROLLED:
        # Unrolled it takes 0.7 to 0.85 of the time of a loop, and of a vectorized Jacobian.
        gradients = tf.stack([gradient(of) for of in range(known)], axis=1)
        normals = gradients - tf.gather(gradients, labels, axis=1, batch_dims=1)[:, None]
        gaps = true - logits
        nearest = tf.argmin(distances(normals, gaps, norm), axis=1)
        normal, gap = (tf.gather(rows, nearest, axis=1, batch_dims=1) for rows in (normals, gaps))
        return normal, gap

    # One class after the other; only the gradient of the nearest is kept in memory.
    of_true = gradient(labels)

    def try_class(of: tf.Tensor, distance: tf.Tensor, normal: tf.Tensor, gap: tf.Tensor) -> Any:
        here, own_gap = gradient(of) - of_true, true - tf.gather(logits, of, axis=1)[:, None]
        own = distances(here[:, None], own_gap, norm)[:, 0]
        nearer = own < distance
        return (
            of + 1,
            tf.where(nearer, own, distance),
            tf.where(per_example(nearer, here), here, normal),
            tf.where(nearer, own_gap[:, 0], gap),
        )

    nowhere = tf.fill(tf.shape(labels), tf.constant(math.inf, points.dtype))
    start = (tf.zeros([], labels.dtype), nowhere, tf.zeros_like(points), tf.zeros_like(nowhere))
    found: Any = tf.while_loop(
        lambda of, *_: of < tf.cast(count, of.dtype), try_class, start, parallel_iterations=1
    )
    return found[2], found[3]


def distances(normals: tf.Tensor, gaps: tf.Tensor, norm: str) -> tf.Tensor:
    """Distance of each linearized boundary, ``[B, C]``; infinite where the normal is zero.

    The true class has a zero normal, so it is never the nearest.

    Args:
        normals: ``[B, C, ...]``.
        gaps: ``[B, C]``, of either sign.
        norm: ``"linf"`` or ``"l2"``: of the distance.
    """
    flat = tf.reshape(normals, tf.concat([tf.shape(gaps), [-1]], 0))
    dual = tf.norm(flat, 1 if norm == "linf" else 2, axis=2)
    return tf.where(dual > 0.0, tf.abs(gaps) / dual, math.inf)


def _margin(labels: tf.Tensor, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    true, target = (tf.gather(logits, of, axis=1, batch_dims=1) for of in (labels, targets))
    return target - true
