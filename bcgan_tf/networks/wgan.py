"""Generator and critic of Defense-GAN's Wasserstein GAN, for any image size.

Both follow Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", in the form in which
Samangouei et al. 2018, "Defense-GAN", use it on MNIST. There are no normalization layers:
the gradient penalty constrains each example, and batch statistics would make examples dependent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras

from bcgan_tf.errors import UserError
from bcgan_tf.settings.fields import checked
from bcgan_tf.settings.kinds import LatentDim, Width

_KERNEL = 5
_GENERATOR_CHANNELS = (256, 128, 64)
_CRITIC_CHANNELS = (64, 128, 256)


@checked
def wgan_generator(
    shape: Sequence[int],
    *,
    latent_dim: LatentDim = 128,
    width: Width = 1.0,
    seed: int = 0,
    dtype: str | None = None,
) -> keras.Model:
    """Generator ``G(z)``: a dense layer, then three transposed convolutions of 5x5, stride 2.

    After each doubling the image is cropped so that the last has the given size: the sides are
    4, 7, 14, 28 for 28 pixels and 4, 8, 16, 32 for 32 pixels.

    Args:
        shape: ``(H, W, C)`` of the images.
        latent_dim: size of ``z``.
        width: factor on the hidden channels; 1 is the paper's network.
        seed: of the initial weights.
        dtype: a Keras dtype policy such as ``"mixed_bfloat16"``; the images stay float32.

    Returns:
        A functional model from float32 ``[B, latent_dim]`` to float32 ``[B, H, W, C]`` in (0, 1).

    Raises:
        UserError: ``shape`` is not that of an image.
    """
    height, image_width, channels = _image_shape(shape)
    seeds = iter(range(seed * 1000, seed * 1000 + 1000))
    filters = [*(_scaled(count, width) for count in _GENERATOR_CHANNELS), channels]
    sides = [(_halved(height, n), _halved(image_width, n)) for n in (3, 2, 1, 0)]
    noise = keras.Input((latent_dim,), name="noise")
    x = keras.layers.Dense(
        math.prod(sides[0]) * filters[0],
        activation="relu",
        kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)),
        name="project",
        dtype=dtype,
    )(noise)
    x = keras.layers.Reshape((*sides[0], filters[0]), name="reshape", dtype=dtype)(x)
    for i, count in enumerate(filters[1:]):
        last = i == len(filters) - 2
        x = keras.layers.Conv2DTranspose(
            count,
            _KERNEL,
            strides=2,
            padding="same",
            activation="sigmoid" if last else "relu",
            kernel_initializer=_initializer(next(seeds)),
            name="output" if last else f"up_{i + 1}",
            dtype="float32" if last else dtype,
        )(x)
        over = [2 * below - side for below, side in zip(sides[i], sides[i + 1], strict=True)]
        if any(over):
            crop = keras.layers.Cropping2D(
                ((0, over[0]), (0, over[1])),
                name=f"crop_{i + 1}",
                dtype="float32" if last else dtype,
            )
            x = crop(x)
    return keras.Model(noise, x, name="generator")


@checked
def wgan_critic(
    shape: Sequence[int], *, width: Width = 1.0, seed: int = 0, dtype: str | None = None
) -> keras.Model:
    """Critic ``D(x)``: three convolutions of 5x5, stride 2, LeakyReLU 0.2, then one linear unit.

    Args:
        shape: ``(H, W, C)`` of the images.
        width: factor on the hidden channels; 1 is the paper's network.
        seed: of the initial weights.
        dtype: a Keras dtype policy; the scores stay float32.

    Returns:
        A functional model from float32 ``[B, H, W, C]`` in [0, 1] to float32 ``[B]``, unbounded.

    Raises:
        UserError: ``shape`` is not that of an image.
    """
    image = keras.Input(_image_shape(shape), name="image")
    seeds = iter(range(seed * 1000 + 500, seed * 1000 + 1500))
    x = image
    for i, count in enumerate(_CRITIC_CHANNELS):
        x = keras.layers.Conv2D(
            _scaled(count, width),
            _KERNEL,
            strides=2,
            padding="same",
            kernel_initializer=_initializer(next(seeds)),
            name=f"conv_{i}",
            dtype=dtype,
        )(x)
        x = keras.layers.LeakyReLU(0.2, name=f"leaky_{i}", dtype=dtype)(x)
    x = keras.layers.Flatten(name="flatten", dtype=dtype)(x)
    initializer = keras.initializers.GlorotUniform(seed=next(seeds))
    score = keras.layers.Dense(1, kernel_initializer=initializer, name="score", dtype="float32")
    scores = keras.layers.Reshape((), name="scores", dtype="float32")
    return keras.Model(image, scores(score(x)), name="critic")


def _image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise UserError(
            f"the data has shape {tuple(shape)}, but this GAN makes images (height, width, "
            "channels); choose a data set of images"
        )
    height, width, channels = (int(side) for side in shape)
    return height, width, channels


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _halved(side: int, times: int) -> int:
    return math.ceil(side / 2**times)


def _initializer(seed: int) -> keras.initializers.Initializer:
    # Uniform of variance 4 / (fan in + fan out), twice Glorot's: a ReLU halves the variance.
    return keras.initializers.VarianceScaling(
        2.0, mode="fan_avg", distribution="uniform", seed=seed
    )
