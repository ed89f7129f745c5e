"""Certified accuracy: the share of images that interval bounds prove robust within eps."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf.attacks import checks
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.certification.interval_bounds import last_layer_box, require_bounds
from bcgan_tf.certification.intervals import IntervalBound, RoundedIntervalBound
from bcgan_tf.data.arrays import as_images, as_labels
from bcgan_tf.errors import UserError
from bcgan_tf.statistics import wilson_interval

# Largest rounding of a pixel that was moved by eps.
_PIXEL_ROUNDING = 2.0**-23
# Differences of the last layer's weights are taken for each image of a batch, or above so many
# weights for one image at a time: 1,000 classes of 1,280 features would take 10 MB an image.
_MANY_WEIGHTS = 2**17


def worst_margins(
    model: keras.Model, lower: tf.Tensor, upper: tf.Tensor, labels: tf.Tensor
) -> tf.Tensor:
    """Upper bounds of every logit minus the true one's, over all points of a box.

    The last dense layer is elided: the weights of two logits are subtracted before bounding, which
    is tighter than the difference of two bounds. Used as logits in a cross entropy, the result is
    Gowal's worst-case loss.

    Args:
        model: a classifier that :mod:`bcgan_tf.certification.interval_bounds` can bound.
        lower: float32 ``[B, ...]``, the least value of each pixel.
        upper: float32 ``[B, ...]``, the largest.
        labels: int ``[B]``, the true classes.

    Returns:
        float32 ``[B, K]``, 0 at the label. If all others are negative, the label is predicted on
        the whole box.

    Raises:
        UserError: a layer cannot be bounded; the message names it.

    Reference: Gowal et al. 2018, "On the Effectiveness of Interval Bound Propagation for Training
    Verifiably Robust Models", section 3 ("elision of the last layer").
    """
    return _margins(model, IntervalBound(lower, upper), labels)


def certified(
    model: keras.Model, images: Any, labels: Any, eps: float, *, batch_size: int = 250
) -> np.ndarray:
    """Which images provably keep their true label within eps.

    Args:
        model: a classifier that :mod:`~bcgan_tf.certification.interval_bounds` can bound.
        images: float32 ``[N, ...]`` in [0, 1]; perturbed ones stay there.
        labels: int ``[N]``.
        eps: Linf radius, in [0, 1] pixel units, at least 0.
        batch_size: most images at once; it changes memory and speed only.

    Returns:
        bool ``[N]``: the float32 network is right on the image, and its bounds prove it right
        within eps, rounding included
        (:class:`~bcgan_tf.certification.intervals.RoundedIntervalBound`). False means only
        that they prove nothing.

    Raises:
        UserError: a layer cannot be bounded, eps is negative, the images are not float32 in
            [0, 1], or a label is no class of the model.
    """
    checks.check_number("eps", eps)
    if not len(labels):
        return np.zeros(0, bool)
    images = as_images(images)
    labels = as_labels(labels, len(images))
    checks.check_model_input(model, images)
    require_bounds(model)
    classes = model.outputs[0].shape[-1]
    # With a single logit there is no other class, and every image would be certified.
    if classes < 2 or labels.max() >= classes:
        raise UserError(
            f"the model has {classes} logits and the labels go up to {labels.max()}; certificates "
            "need a logit for each of at least 2 classes"
        )
    bound = tf.constant(eps, tf.float32)
    with _full_float32():
        return Batched(lambda x, y: is_certified(model, x, y, bound), batch_size)(images, labels)


@contextlib.contextmanager
def _full_float32() -> Iterator[None]:
    """Turns TensorFloat-32 off, whose rounding is larger than the bounds assume."""
    settings: Any = tf.config.experimental
    before = settings.tensor_float_32_execution_enabled()
    settings.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        settings.enable_tensor_float_32_execution(before)


def certified_accuracy(
    model: keras.Model, images: Any, labels: Any, eps: float, *, batch_size: int = 250
) -> float:
    """The share of images that :func:`certified` proves, a lower bound of robust accuracy."""
    return float(np.mean(certified(model, images, labels, eps, batch_size=batch_size)))


def proved(
    model: keras.Model, images: Any, labels: Any, eps: float, *, batch_size: int = 250
) -> np.ndarray:
    """:func:`certified`, or False everywhere for a model with a layer that cannot be bounded."""
    try:
        require_bounds(model)
    except UserError:
        return np.zeros(len(labels), bool)
    return certified(model, images, labels, eps, batch_size=batch_size)


def certificate(
    model: keras.Model, images: Any, labels: Any, eps: float, *, batch_size: int = 250
) -> dict[str, Any] | None:
    """The certified accuracy for a report; None where nothing is proved.

    Most networks that were not trained for interval bounds have a certified accuracy of 0, and
    some layers cannot be bounded at all. Neither says that a network is weak.

    Args:
        model: any Keras classifier, images to logits.
        images: float32 ``[N, ...]`` in [0, 1].
        labels: int ``[N]``, the true classes.
        eps: Linf radius, in [0, 1] pixel units.
        batch_size: most images at once; it changes memory and speed only.

    Returns:
        ``accuracy``, ``interval95`` (Wilson), ``n`` and ``method``, JSON-able.
    """
    proof = proved(model, images, labels, eps, batch_size=batch_size)
    if not proof.any():
        return None
    return {
        "accuracy": float(proof.mean()),
        "interval95": list(wilson_interval(int(proof.sum()), len(proof))),
        "n": len(proof),
        "method": "interval bounds",
    }


def is_certified(
    model: keras.Model, images: tf.Tensor, labels: tf.Tensor, eps: tf.Tensor
) -> tf.Tensor:
    """:func:`certified` on tensors, for use in a graph: bool ``[B]``."""
    reach = eps + _PIXEL_ROUNDING
    lower, upper = tf.maximum(images - reach, 0.0), tf.minimum(images + reach, 1.0)
    margins = _margins(model, RoundedIntervalBound(lower, upper), labels)
    own = tf.one_hot(labels, tf.shape(margins)[1], on_value=True, off_value=False)
    right = tf.argmax(model(images, training=False), 1, output_type=tf.int64)
    # Not by reduce_max: a NaN margin must prove nothing.
    proved = tf.reduce_all(own | (margins < 0.0), axis=1)
    return proved & tf.equal(right, tf.cast(labels, tf.int64))


def _margins(model: keras.Model, box: IntervalBound, labels: tf.Tensor) -> tf.Tensor:
    box, last = last_layer_box(model, box)
    if last is None or math.prod(last.kernel.shape) <= _MANY_WEIGHTS:
        return _margins_of(box, last, labels)

    def one(row: Any) -> tf.Tensor:
        lower, upper, label = (part[None] for part in row)
        return _margins_of(type(box)(lower, upper), last, label)[0]

    rows = (box.lower, box.upper, tf.convert_to_tensor(labels))
    found: Any = tf.map_fn(one, rows, fn_output_signature=tf.float32, parallel_iterations=1)
    return tf.ensure_shape(found, [None, last.kernel.shape[1]])


def _margins_of(
    box: IntervalBound, last: keras.layers.Dense | None, labels: tf.Tensor
) -> tf.Tensor:
    if last is None:
        own = tf.gather(box.lower, labels, axis=1, batch_dims=1)[:, None]
        is_label = tf.one_hot(labels, tf.shape(box.upper)[1], on_value=True, off_value=False)
        return tf.where(is_label, 0.0, box.upper - own)
    kernel = tf.transpose(tf.cast(last.kernel, box.dtype))
    bias = tf.cast(last.bias, box.dtype) if last.use_bias else tf.zeros(len(kernel), box.dtype)
    # Masked classes do not count in the sizes.
    masked = bias == -math.inf
    bias = tf.where(masked, tf.zeros_like(bias), bias)

    def size(points: tf.Tensor) -> tf.Tensor:
        """The magnitudes of both logits, because each is rounded by itself."""
        sizes = tf.matmul(points, tf.abs(kernel), transpose_b=True) + tf.abs(bias)
        return sizes + tf.gather(sizes, labels, axis=1, batch_dims=1)[:, None]

    margins = box.affine(
        lambda points, factors: tf.einsum("bkd,bd->bk", factors, points),
        kernel[None] - tf.gather(kernel, labels)[:, None],  # [B, K, D]
        bias[None] - tf.gather(bias, labels)[:, None],
        terms=int(last.kernel.shape[0]) + 2,
        size=size,
    ).upper
    return tf.where(masked, -math.inf, margins)
