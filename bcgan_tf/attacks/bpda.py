"""Backward pass differentiable approximation: a forward pass with another function's gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def bpda(
    forward: Callable[[tf.Tensor], Any], backward: Callable[[tf.Tensor], Any] | None = None
) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function with the values of ``forward`` and the gradient of ``backward``.

    For defences whose own gradient is zero, missing or useless: rounding, JPEG, Defense-GAN's
    search. Put the result in front of a network to attack it:
    ``lambda x: network(bpda(quantize)(x))``. A callable model with an attribute ``backward`` is
    taken by every attack as ``bpda(model, model.backward)``.

    Args:
        forward: images to a tensor; never differentiated.
        backward: a differentiable stand-in, to a tensor of the same shape. None: the identity, so
            ``forward`` must keep the shape of its input.

    Example:
        >>> quantize = bpda(lambda x: tf.round(15 * x) / 15)
        >>> PGD(0.3)(lambda x: classifier(quantize(x)), images, labels)

    Reference: Athalye, Carlini, Wagner 2018, "Obfuscated Gradients Give a False Sense of
    Security", section 4.1.
    """

    def call(inputs: tf.Tensor) -> tf.Tensor:
        stand_in = inputs if backward is None else backward(inputs)
        return _exchanged(stand_in, tf.stop_gradient(forward(tf.stop_gradient(inputs))))

    return call


@tf.custom_gradient
def _exchanged(differentiated: tf.Tensor, value: tf.Tensor) -> Any:
    # Not a + stop_gradient(b - a): its value differs from b by rounding, which a quantized model
    # may turn into another class. The two tensors may have different dtypes.
    return tf.identity(value), lambda upstream: (tf.cast(upstream, differentiated.dtype), None)
