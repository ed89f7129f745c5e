"""A deeper network for robust training: four convolutions, the first at full resolution."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from bcgan_tf.networks.building import (
    Seeds,
    check_width,
    cut_off,
    image_shape,
    logits_layer,
    relu_convolutions,
    relu_dense,
)
from bcgan_tf.settings.fields import checked
from bcgan_tf.settings.kinds import Classes, Threshold, Width

# Filters, kernel, stride.
_CONVOLUTIONS = ((32, 3, 1), (32, 4, 2), (64, 3, 1), (64, 4, 2))
_UNITS = (256, 256)


@checked
def deep_cnn(
    input_shape: Sequence[int],
    num_classes: Classes,
    *,
    width: Width = 1.0,
    threshold: Threshold = 0.0,
    seed: int | None = None,
    dtype: str | None = None,
) -> keras.Model:
    """Four convolutions and three dense layers: the network of the most robust models here.

    Conv 3x3, 32; conv 4x4, 32, stride 2; conv 3x3, 64; conv 4x4, 64, stride 2; dense 256; dense
    256; dense K; a ReLU after each but the last. Unlike in ``strided_cnn``, the first convolution
    has stride 1. In bfloat16 on processors with matrix units its wide layers cost little.

    Args:
        input_shape: ``(H, W, C)``, at least 4x4 pixels.
        num_classes: ``K``, the number of logits.
        width: factor on the channels and units.
        threshold: t; pixels within t of black or white become black or white, see
            :func:`bcgan_tf.networks.strided_cnn.strided_cnn`; in [0, 0.5), 0 is off.
        seed: of the initial weights; None takes Keras' global seed.
        dtype: a Keras dtype policy; the logits stay float32.

    Returns:
        A functional model of built-in layers, float32 ``[B, H, W, C]`` to logits ``[B, K]``.

    Raises:
        UserError: when the shape is no image of at least 4x4 pixels, K < 2, or a factor is out
            of range.

    Reference: the convolutions are those of the "large" network of Wong, Schmidt, Metzen, Kolter
    2018, "Scaling provable adversarial defenses"; its dense layers have 512 units.
    """
    shape = image_shape("deep_cnn", input_shape, smallest=4)
    check_width(width, _CONVOLUTIONS[0][0])
    seeds = Seeds(seed)
    images = keras.Input(shape, name="images")
    x = relu_convolutions(
        cut_off(images, threshold, dtype), _CONVOLUTIONS, width=width, seeds=seeds, dtype=dtype
    )
    x = keras.layers.Flatten(name="flatten", dtype=dtype)(x)
    x = relu_dense(x, [round(units * width) for units in _UNITS], seeds=seeds, dtype=dtype)
    return keras.Model(images, logits_layer(x, num_classes, seeds.glorot()), name="deep_cnn")
