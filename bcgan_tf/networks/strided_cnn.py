"""A network for robust training: strided convolutions, and pixels cut off at a threshold."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from bcgan_tf.errors import UserError
from bcgan_tf.networks.building import Seeds, check_classes, image_shape, logits_layer
from bcgan_tf.networks.cut_off import check_threshold, cut_off

_FILTERS = (16, 32)
_UNITS = 100
_KERNEL = 4


def strided_cnn(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    width: float = 1.0,
    threshold: float = 0.0,
    seed: int | None = None,
    dtype: str | None = None,
) -> keras.Model:
    """Two strided convolutions and two dense layers: the network of fast adversarial training.

    Conv 4x4, 16, stride 2, ReLU; conv 4x4, 32, stride 2, ReLU; dense 100, ReLU; dense K. Without
    pooling a step costs a third of the paper's small network, which is what a training that takes
    many of them needs.

    With ``threshold`` t the pixels first become ``clip((x - t) / (1 - 2 t), 0, 1)``: what lies
    within t of black or of white is black or white, and a change of up to t there is gone,
    whatever it is. On images that are mostly black and white that is robustness by construction,
    with a gradient that is right: zero exactly where nothing changes.

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
    check_classes(num_classes)
    check_threshold(threshold)
    if round(_FILTERS[0] * width) < 1:
        raise UserError(f"width is {width}; choose at least {1 / _FILTERS[0]:g}")
    seeds = Seeds(seed)
    images = keras.Input(shape, name="images")
    x = cut_off(images, threshold, dtype)
    for i, filters in enumerate(_FILTERS, start=1):
        x = keras.layers.Conv2D(
            round(filters * width),
            _KERNEL,
            strides=2,
            padding="same",
            activation="relu",
            kernel_initializer=seeds.glorot(),
            name=f"conv_{i}",
            dtype=dtype,
        )(x)
    x = keras.layers.Flatten(name="flatten", dtype=dtype)(x)
    x = keras.layers.Dense(
        round(_UNITS * width),
        activation="relu",
        kernel_initializer=seeds.glorot(),
        name="dense",
        dtype=dtype,
    )(x)
    return keras.Model(images, logits_layer(x, num_classes, seeds), name="strided_cnn")
