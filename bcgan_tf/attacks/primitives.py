"""Tensor pieces that attacks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from cleverhans.tf2 import utils as cleverhans

from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.errors import UserError

# The graph of an attack and the graph that judges it may fuse operations differently. A candidate
# counts only if its margin exceeds the rounding: a share of what the logits differ by, plus one
# float32 spacing of the logits, which is the larger part where they have a large common offset.
_ROUNDING, _SPACING = 1e-5, 2.0**-23
# Logits this far below the largest are ignored, unless the logits themselves are larger.
_NEAR = 1e3


def margins(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Largest wrong logit minus the true one, ``[B]``: positive where the model is wrong."""
    true = tf.gather(logits, labels, axis=1, batch_dims=1)
    return _largest_wrong(logits, labels) - true


def misclassified(logits: tf.Tensor, labels: tf.Tensor, *, confidence: float = 0.0) -> tf.Tensor:
    """bool ``[B]``: wrong by more than ``confidence`` and more than float32 rounding."""
    return margins(logits, labels) - confidence > rounding(logits, labels)


def rounding(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Bound on the float32 rounding error of a margin, ``[B]``, in units of the logits.

    Relative to the smaller of the two logits' magnitude and the spread of the logits below them, so
    that a common offset has little influence. Masked classes do not count: logits below the two by
    more than their magnitude and by more than 1,000.
    """
    true = tf.gather(logits, labels, axis=1, batch_dims=1)
    pair = tf.stack([true, _largest_wrong(logits, labels)])
    size = tf.reduce_max(tf.abs(tf.where(tf.math.is_finite(pair), pair, 0.0)), axis=0)
    below = tf.reduce_max(pair, axis=0)[:, None] - logits
    near = below <= tf.maximum(size, _NEAR)[:, None]
    spread = tf.reduce_max(tf.where(near, below, 0.0), axis=1)
    return _ROUNDING * tf.minimum(spread, size) + _SPACING * size


def logit_units(logits: tf.Tensor) -> tf.Tensor:
    """A scale of each image's logits: the largest minus the third-largest, ``[B]``.

    Minus the second where the third is masked by minus infinity, or where there is none.
    """
    top = tf.math.top_k(logits, k=tf.minimum(3, tf.shape(logits)[1])).values
    third = top[:, 0] - top[:, -1]
    return tf.where(tf.math.is_finite(third), third, top[:, 0] - top[:, 1])


def _largest_wrong(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    # Minus infinity, not a large number: logits may themselves be large, or masked with -1e9.
    is_true = tf.one_hot(labels, tf.shape(logits)[1], on_value=True, off_value=False)
    return tf.reduce_max(tf.where(is_true, -float("inf"), logits), axis=1)


def cross_entropy_gradient(
    logits_fn: LogitsFn, images: tf.Tensor, labels: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradient of each example's own cross entropy, and the logits that came with it.

    Args:
        logits_fn: images to logits ``[B, K]``.
        images: float32 ``[B, ...]``.
        labels: int64 ``[B]``, always the true ones.

    Returns:
        The gradient, shaped as ``images``, of the *sum* over examples (so a batch does not scale
        it), and the logits.

    Raises:
        UserError: if the logits do not depend on the images differentiably.
    """
    seen: list[tf.Tensor] = []

    def remember(inputs: tf.Tensor) -> tf.Tensor:
        seen.append(logits_fn(inputs))
        return seen[-1]

    # The undecorated function: the caller compiles the whole loop, and cleverhans' own cache,
    # global and keyed by the model function, would keep every model that was ever attacked.
    gradient = cleverhans.compute_gradient.python_function(
        remember, tf.nn.sparse_softmax_cross_entropy_with_logits, images, labels, False
    )
    return require_gradient(gradient), seen[0]


def require_gradient(gradient: Any) -> tf.Tensor:
    """The gradient as a tensor; a UserError where TensorFlow returns None."""
    if gradient is None:
        raise UserError(
            "the model has no gradient with respect to its images (rounding, argmax or NumPy "
            "inside?); a gradient attack cannot judge it, and its accuracy would look robust"
        )
    return tf.convert_to_tensor(gradient)


def not_inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles ``function`` as a graph of its own, for use in the body of a ``tf.while_loop``.

    TensorFlow turns a loop into a cyclic graph, and its oneDNN pass, which needs to meet a
    max-pooling before that pooling's gradient, walks a cycle in no fixed order: inlined, about
    half of all traces fall back to a slow kernel, and a PGD step on a small CNN takes 108 instead
    of 75 ms *(measured, 250 MNIST images, TensorFlow 2.21)*.
    """
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


def per_example(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """``values [B]`` reshaped to broadcast against ``like [B, ...]``."""
    return tf.reshape(values, [-1] + [1] * (len(like.shape) - 1))
