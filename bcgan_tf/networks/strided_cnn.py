"""A network for robust training: strided convolutions, and pixels cut off at a threshold."""

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
)
from bcgan_tf.settings.fields import checked
from bcgan_tf.settings.kinds import Classes, Threshold, Width

# Filters, kernel, stride.
_CONVOLUTIONS = ((16, 4, 2), (32, 4, 2))
_UNITS = 100


@checked
def strided_cnn(
    input_shape: Sequence[int],
    num_classes: Classes,
    *,
    width: Width = 1.0,
    threshold: Threshold = 0.0,
    seed: int | None = None,
    dtype: str | None = None,
) -> keras.Model:
    """Two strided convolutions and two dense layers: the network of fast adversarial training.

    Conv 4x4, 16, stride 2, ReLU; conv 4x4, 32, stride 2, ReLU; dense 100, ReLU; dense K. Without
    pooling a step costs a third of one of the paper's small network.

    With ``threshold`` t the pixels first become ``clip((x - t) / (1 - 2 t), 0, 1)``: pixels
    within t of black or white become black or white, so that changes of up to t there have no
    effect. On images that are mostly black and white the network is robust by construction, and its
    gradient is correct: it is zero exactly where a pixel has no effect.

    Args:
        input_shape: ``(H, W, C)``, at least 4x4 pixels.
        num_classes: ``K``, the number of logits.
        width: factor on the channels and units.
        threshold: t, in [0, 0.5); 0 leaves the pixels as they are.
        seed: of the initial weights; None takes Keras' global seed.
        dtype: a Keras dtype policy; the logits stay float32.

    Returns:
        A functional model of built-in layers, float32 ``[B, H, W, C]`` to logits ``[B, K]``.

    Raises:
        UserError: when the shape is no image of at least 4x4 pixels, K < 2, or a factor is out
            of range.

    Reference: the layers are those of Wong, Rice, Kolter 2020, "Fast is better than free".
    """
    shape = image_shape("strided_cnn", input_shape, smallest=4)
    check_width(width, _CONVOLUTIONS[0][0])
    seeds = Seeds(seed)
    images = keras.Input(shape, name="images")
    x = relu_convolutions(
        cut_off(images, threshold, dtype), _CONVOLUTIONS, width=width, seeds=seeds, dtype=dtype
    )
    x = keras.layers.Flatten(name="flatten", dtype=dtype)(x)
    x = keras.layers.Dense(
        round(_UNITS * width),
        activation="relu",
        kernel_initializer=seeds.glorot(),
        name="dense",
        dtype=dtype,
    )(x)
    return keras.Model(images, logits_layer(x, num_classes, seeds.glorot()), name="strided_cnn")
