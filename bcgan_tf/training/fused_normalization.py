"""Batch normalisation by TensorFlow's fused kernel, for as long as a model is trained."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

_FUSED_DTYPES = ("float32", "bfloat16")
_IMAGES_RANK = 4


@contextlib.contextmanager
def fused_normalization(model: keras.Model) -> Iterator[None]:
    """Inside the ``with``, the model's batch normalization layers use TensorFlow's fused kernel.

    Keras computes the layer by about ten elementary operations in float32; on CPUs a ResNet spends
    more time on them than on its convolutions. Outputs, gradients and moving statistics agree up
    to rounding. Class, weights and configuration of the layers do not change, so a model saved
    meanwhile loads with Keras alone.

    Keras' own computation is kept where the kernel cannot be used: under several replicas, whose
    statistics are synchronized; for anything but ``[B, H, W, C]`` in float32 or bfloat16; for
    masks, renormalization, a layer without scale or offset; and, on GPUs, for gradients in
    inference mode, which the kernel refuses under TensorFlow's determinism.

    Args:
        model: any; layers of the models within it are found too.
    """
    layers = list(dict.fromkeys(_normalizations(model)))
    for layer in layers:
        # An attribute of the instance hides the method of its class.
        object.__setattr__(layer, "call", functools.partial(_call, layer))
    try:
        yield
    finally:
        for layer in layers:
            object.__delattr__(layer, "call")


def _normalizations(layer: Any) -> Iterator[keras.layers.BatchNormalization]:
    # Not of a class derived from it, which may compute something else.
    if type(layer) is keras.layers.BatchNormalization:
        if layer.scale and layer.center and not layer.renorm:
            yield layer
        return
    for inner in getattr(layer, "layers", ()):
        yield from _normalizations(inner)


def _call(layer: Any, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
    # Keras: a frozen layer normalises as in inference.
    learning = bool(training and layer.trainable)
    if mask is not None or not _known(layer, inputs, learning):
        return type(layer).call(layer, inputs, training=training, mask=mask)
    none = tf.zeros([0])
    normalized, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=tf.convert_to_tensor(layer.gamma),
        offset=tf.convert_to_tensor(layer.beta),
        mean=none if learning else tf.convert_to_tensor(layer.moving_mean),
        variance=none if learning else tf.convert_to_tensor(layer.moving_variance),
        epsilon=layer.epsilon,
        is_training=learning,
    )
    if learning:
        count = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], tf.float32)
        # The kernel's is the unbiased estimate, Keras' is not.
        for moving, new in (
            (layer.moving_mean, mean),
            (layer.moving_variance, variance * (count - 1.0) / count),
        ):
            moving.assign(layer.momentum * moving + (1.0 - layer.momentum) * new)
    return normalized


def _known(layer: Any, inputs: Any, learning: bool) -> bool:
    return (
        isinstance(inputs, tf.Tensor)
        and inputs.shape.rank == _IMAGES_RANK
        and layer.axis in (-1, _IMAGES_RANK - 1)
        and inputs.dtype.name in _FUSED_DTYPES
        and inputs.dtype.name == layer.compute_dtype
        and layer.variable_dtype == "float32"
        and tf.distribute.get_strategy().num_replicas_in_sync == 1
        and (learning or not tf.config.list_logical_devices("GPU"))
    )
