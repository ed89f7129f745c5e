"""Parts of the networks: seeds, blocks of layers, the layer of logits, checks of shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from bcgan_tf.errors import UserError


class Seeds:
    """Initializers with a different seed for every layer, so that equal layers start unequal."""

    def __init__(self, seed: int | None) -> None:
        self._next = None if seed is None else seed * 1000

    # Any: Keras annotates initializer arguments as str.
    def glorot(self) -> Any:
        return keras.initializers.GlorotUniform(seed=self._draw())

    def he(self) -> Any:
        return keras.initializers.HeNormal(seed=self._draw())

    def fan_in(self) -> Any:
        """Uniform within ``1 / sqrt(fan-in)``."""
        return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=self._draw())

    def _draw(self) -> int | None:
        if self._next is not None:
            self._next += 1
        return self._next


def one_hot_condition(noise: Any, label: Any, num_classes: int) -> Any:
    """The noise and, beside it, the one-hot class, float32."""
    one_hot = keras.layers.CategoryEncoding(
        num_classes, output_mode="one_hot", name="one_hot", dtype="float32"
    )(keras.layers.Reshape((1,), dtype="int32")(label))
    return keras.layers.Concatenate(name="condition")([noise, one_hot])


def cut_off(images: Any, threshold: float, dtype: str | None) -> Any:
    """Pixels cut off near black and white: ``clip((x - t) / (1 - 2 t), 0, 1)``, as two layers.

    With a threshold ``t`` of 0 the images are returned, without a layer.
    """
    if not threshold:
        return images
    span = 1 - 2 * threshold
    x = keras.layers.Rescaling(1 / span, -threshold / span, name="stretch", dtype=dtype)(images)
    return keras.layers.ReLU(max_value=1.0, name="cut_off", dtype=dtype)(x)


def logits_layer(x: Any, num_classes: int, initializer: Any) -> Any:
    """The float32 layer ``logits``."""
    return keras.layers.Dense(
        num_classes,
        kernel_initializer=initializer,
        name="logits",
        dtype="float32",
    )(x)


def relu_convolutions(
    x: Any,
    layers: Sequence[tuple[int, int, int]],
    *,
    width: float,
    seeds: Seeds,
    dtype: str | None,
) -> Any:
    """Convolutions ``conv_1``, ``conv_2``, ... of (filters, kernel, stride), each with a ReLU."""
    for i, (filters, kernel, stride) in enumerate(layers, start=1):
        x = keras.layers.Conv2D(
            round(filters * width),
            kernel,
            strides=stride,
            padding="same",
            activation="relu",
            kernel_initializer=seeds.glorot(),
            name=f"conv_{i}",
            dtype=dtype,
        )(x)
    return x


def relu_dense(x: Any, units: Sequence[int], *, seeds: Seeds, dtype: str | None) -> Any:
    """Dense layers ``dense_1``, ``dense_2``, ..., each with a ReLU."""
    for i, count in enumerate(units, start=1):
        x = keras.layers.Dense(
            count,
            activation="relu",
            kernel_initializer=seeds.glorot(),
            name=f"dense_{i}",
            dtype=dtype,
        )(x)
    return x


def check_width(width: float, narrowest: int) -> None:
    """Raises a UserError if a layer of ``narrowest`` channels would have none left."""
    if round(narrowest * width) < 1:
        raise UserError(f"width is {width}; choose at least {1 / narrowest:g}")


def image_shape(name: str, input_shape: Sequence[int], *, smallest: int) -> tuple[int, int, int]:
    """``(H, W, C)``; a UserError if it is no image's or a side is below ``smallest``."""
    shape = tuple(input_shape)
    if len(shape) != 3:
        raise UserError(f"{name} takes images (H, W, C), not shape {shape}; choose mlp for vectors")
    if min(shape[:2]) < smallest or shape[2] < 1:
        raise UserError(
            f"{name} needs images of at least {smallest}x{smallest} pixels and one channel, "
            f"not shape {shape}"
        )
    return shape
