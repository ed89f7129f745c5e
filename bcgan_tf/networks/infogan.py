"""InfoGAN's networks with a class beside the noise, as the code of the paper's figures has them.

Chen et al. 2016, "InfoGAN: Interpretable Representation Learning by Information Maximizing
Generative Adversarial Nets", appendix C.1. Images are float32 in [0, 1] at both ends, as those of
:mod:`bcgan_tf.networks.acgan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from bcgan_tf.errors import UserError
from bcgan_tf.networks.building import image_shape, one_hot_condition
from bcgan_tf.settings.fields import checked
from bcgan_tf.settings.kinds import LatentDim, Width

_HIDDEN = 1024
# Channels at a quarter and at half of the resolution.
_QUARTER, _HALF = 128, 64


@checked
def infogan_generator(
    shape: Sequence[int],
    num_classes: int,
    *,
    latent_dim: LatentDim = 100,
    width: Width = 1.0,
    seed: int = 0,
    dtype: str | None = None,
) -> keras.Model:
    """Dense 1024, dense to 128 maps of a quarter of the sides, two transposed convolutions of 4x4.

    Batch normalization and ReLU after each but the last.

    Args:
        shape: ``(H, W, C)`` of the images; both sides are multiples of 4.
        num_classes: number of classes ``K``.
        latent_dim: size of the noise ``z``, which is given beside the one-hot class.
        width: factor on the hidden channels.
        seed: of the initial weights, N(0, 0.02).
        dtype: a Keras dtype policy; the images stay float32.

    Returns:
        A functional model from ``[z float32 [B, latent_dim], c int32 [B]]`` to float32
        ``[B, H, W, C]`` in [0, 1].

    Raises:
        UserError: ``shape`` is none of such images.
    """
    rows, columns, channels = _quarters(shape)
    layers = _Layers(seed * 1000, width, dtype)
    noise = keras.Input((latent_dim,), name="noise")
    label = keras.Input((), dtype="int32", name="label")
    x = one_hot_condition(noise, label, num_classes)
    x = layers.normalized(layers.dense(_HIDDEN, "hidden")(x), "hidden")
    deep = layers.scaled(_QUARTER)
    x = layers.normalized(layers.dense(rows * columns * deep, "project", exact=True)(x), "project")
    x = keras.layers.Reshape((rows, columns, deep), name="maps")(x)
    x = layers.normalized(layers.up(layers.scaled(_HALF), "up")(x), "up")
    x = layers.up(channels, "output")(x)
    x = keras.layers.Activation("tanh", name="tanh", dtype="float32")(x)
    x = keras.layers.Rescaling(0.5, offset=0.5, name="to_unit_range", dtype="float32")(x)
    return keras.Model([noise, label], x, name="generator")


@checked
def infogan_discriminator(
    shape: Sequence[int],
    num_classes: int,
    *,
    width: Width = 1.0,
    seed: int = 0,
    dtype: str | None = None,
) -> keras.Model:
    """Two convolutions of 4x4, stride 2, and dense 1024, with a source head and a class head.

    Leaky ReLU of 0.2 after each, and batch normalization before it in all but the first.

    Args:
        shape: ``(H, W, C)`` of the images; both sides are multiples of 4.
        num_classes: number of classes ``K``.
        width: factor on the hidden channels.
        seed: of the initial weights, N(0, 0.02).
        dtype: a Keras dtype policy; both heads stay float32.

    Returns:
        A functional model from float32 ``[B, H, W, C]`` in [0, 1] to ``{"source": float32 [B],
        "label": float32 [B, K]}``, both logits.

    Raises:
        UserError: ``shape`` is none of such images.
    """
    _quarters(shape)
    layers = _Layers(seed * 1000 + 500, width, dtype)
    images = keras.Input(tuple(shape), name="image")
    x = keras.layers.Rescaling(2.0, offset=-1.0, name="to_tanh_range", dtype="float32")(images)
    x = layers.leaky(layers.down(layers.scaled(_HALF), "half")(x), "half")
    x = layers.normalized(layers.down(layers.scaled(_QUARTER), "quarter")(x), "quarter", leaky=True)
    x = keras.layers.Flatten(name="flatten", dtype=dtype)(x)
    x = layers.normalized(layers.dense(_HIDDEN, "hidden")(x), "hidden", leaky=True)
    heads = _Layers(seed * 1000 + 700, 1.0, "float32")
    source = keras.layers.Reshape((), name="source", dtype="float32")(heads.dense(1, "logit")(x))
    label = heads.dense(num_classes, "class_logits")(x)
    return keras.Model(images, {"source": source, "label": label}, name="discriminator")


class _Layers:
    """Layers of one seed, width and dtype."""

    def __init__(self, seed: int, width: float, dtype: str | None) -> None:
        self.seeds, self.width, self.dtype = iter(range(seed, seed + 100)), width, dtype

    def scaled(self, channels: int) -> int:
        return max(1, round(channels * self.width))

    def _initializer(self) -> Any:
        return keras.initializers.RandomNormal(stddev=0.02, seed=next(self.seeds))

    def dense(self, units: int, name: str, *, exact: bool = False) -> Any:
        return keras.layers.Dense(
            units if exact else self.scaled(units),
            kernel_initializer=self._initializer(),
            name=name,
            dtype=self.dtype,
        )

    def down(self, channels: int, name: str) -> Any:
        return self._convolution(keras.layers.Conv2D, channels, name)

    def up(self, channels: int, name: str) -> Any:
        return self._convolution(keras.layers.Conv2DTranspose, channels, name)

    def _convolution(self, kind: Any, channels: int, name: str) -> Any:
        return kind(
            channels, 4, strides=2, padding="same", kernel_initializer=self._initializer(),
            name=name, dtype=self.dtype,
        )  # fmt: skip

    def leaky(self, x: Any, name: str) -> Any:
        return keras.layers.LeakyReLU(0.2, name=f"{name}_leaky", dtype=self.dtype)(x)

    def normalized(self, x: Any, name: str, *, leaky: bool = False) -> Any:
        x = keras.layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, synchronized=True, name=f"{name}_norm", dtype=self.dtype
        )(x)
        if leaky:
            return self.leaky(x, name)
        return keras.layers.ReLU(name=f"{name}_relu", dtype=self.dtype)(x)


def _quarters(shape: Sequence[int]) -> tuple[int, int, int]:
    height, width, channels = image_shape("infogan", shape, smallest=4)
    if height % 4 or width % 4:
        raise UserError(
            f"infogan's networks take images whose sides are multiples of 4, not {height}x{width}; "
            "choose the networks acgan"
        )
    return height // 4, width // 4, channels
