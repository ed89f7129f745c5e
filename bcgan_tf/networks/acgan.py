"""Generator and discriminator of the auxiliary-classifier GAN, for any image size and for vectors.

Both follow Odena et al. 2016, "Conditional Image Synthesis with Auxiliary Classifier GANs",
appendix A. Images are float32 in [0, 1] at both ends: the generator maps its tanh to [0, 1]
and the discriminator maps back, so generated images can be given to a classifier as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from bcgan_tf.networks.building import one_hot_condition
from bcgan_tf.networks.layers import ResumableDropout
from bcgan_tf.settings.fields import checked
from bcgan_tf.settings.kinds import BelowOne, LatentDim, Width

_VECTOR_UNITS = (128, 128, 128)
_DISCRIMINATOR_CHANNELS = (16, 32, 64, 128, 256, 512)
_DISCRIMINATOR_STRIDES = (2, 1, 2, 1, 2, 1)


@checked
def acgan_generator(
    shape: Sequence[int],
    num_classes: int,
    *,
    latent_dim: LatentDim = 100,
    width: Width = 1.0,
    seed: int = 0,
    dtype: str | None = None,
) -> keras.Model:
    """Conditional generator ``G(z, c)``.

    Args:
        shape: ``(H, W, C)`` of the images, or ``(D,)`` for vectors.
        num_classes: number of classes ``K``.
        latent_dim: size of the noise ``z``.
        width: factor on every hidden layer's channels; 1 is the paper's network.
        seed: of the initial weights.
        dtype: a Keras dtype policy such as ``"mixed_bfloat16"``; the output stays float32.

    Returns:
        A functional model from ``[z float32 [B, latent_dim], c int32 [B]]`` to float32
        ``[B, H, W, C]`` in [0, 1] (unbounded ``[B, D]`` for vectors).
    """
    seeds = iter(range(seed * 1000, seed * 1000 + 1000))
    noise = keras.Input((latent_dim,), name="noise")
    label = keras.Input((), dtype="int32", name="label")
    if len(shape) == 1:
        x = one_hot_condition(noise, label, num_classes)
        for i, units in enumerate(_VECTOR_UNITS):
            initializer = keras.initializers.HeNormal(seed=next(seeds))
            x = keras.layers.Dense(
                max(1, round(units * width)),
                activation="relu",
                kernel_initializer=initializer,
                name=f"dense_{i}",
                dtype=dtype,
            )(x)
        output = keras.layers.Dense(
            shape[0],
            kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)),
            name="output",
            dtype="float32",
        )(x)
        return keras.Model([noise, label], output, name="generator")

    def normal() -> keras.initializers.Initializer:
        return keras.initializers.RandomNormal(stddev=0.02, seed=next(seeds))

    height, image_width, channels = shape
    stages = _upsamplings(min(height, image_width))
    base_height, base_width = -(-height // 2**stages), -(-image_width // 2**stages)
    embedded = keras.layers.Embedding(
        num_classes,
        latent_dim,
        embeddings_initializer=keras.initializers.GlorotNormal(seed=next(seeds)),
        name="class_embedding",
    )(label)
    x = keras.layers.Multiply(name="condition")([noise, embedded])
    filters = [max(1, round(96 * width)) * 2 ** (stages - 1 - i) for i in range(stages)]
    x = keras.layers.Dense(
        base_height * base_width * filters[0],
        kernel_initializer=normal(),
        activation="relu",
        name="project",
        dtype=dtype,
    )(x)
    x = keras.layers.Reshape((base_height, base_width, filters[0]), name="reshape")(x)
    for i in range(1, stages + 1):
        last = i == stages
        x = keras.layers.Conv2DTranspose(
            channels if last else filters[i],
            5,
            strides=2,
            padding="same",
            use_bias=last,
            kernel_initializer=normal(),
            name="output" if last else f"up_{i}",
            dtype=dtype,
        )(x)
        if not last:
            x = keras.layers.BatchNormalization(synchronized=True, name=f"norm_{i}", dtype=dtype)(x)
            x = keras.layers.ReLU(name=f"relu_{i}", dtype=dtype)(x)
    x = keras.layers.Activation("tanh", name="tanh", dtype="float32")(x)
    x = keras.layers.Rescaling(0.5, offset=0.5, name="to_unit_range", dtype="float32")(x)
    crop_y = base_height * 2**stages - height
    crop_x = base_width * 2**stages - image_width
    if crop_y or crop_x:
        crop = ((crop_y // 2, crop_y - crop_y // 2), (crop_x // 2, crop_x - crop_x // 2))
        x = keras.layers.Cropping2D(crop, name="crop", dtype="float32")(x)
    return keras.Model([noise, label], x, name="generator")


def _upsamplings(size: int) -> int:
    """Doublings from a base of 3 to 7 pixels: 8 -> 1, 28 -> 2, 32 -> 3, 64 -> 4."""
    stages = 1
    while size / 2**stages > 7:
        stages += 1
    return stages


@checked
def acgan_discriminator(
    shape: Sequence[int],
    num_classes: int,
    *,
    width: Width = 1.0,
    dropout: BelowOne = 0.5,
    seed: int = 0,
    dtype: str | None = None,
) -> keras.Model:
    """Discriminator with a source head and a class head.

    Args:
        shape: ``(H, W, C)`` of the images, or ``(D,)`` for vectors.
        num_classes: number of classes ``K``.
        width: factor on every hidden layer's channels; 1 is the paper's network.
        dropout: rate after each convolution (images only).
        seed: of the initial weights and of the dropout.
        dtype: a Keras dtype policy; both heads stay float32.

    Returns:
        A functional model from float32 ``[B, H, W, C]`` in [0, 1] (or ``[B, D]``) to
        ``{"source": float32 [B], "label": float32 [B, K]}``, both logits.
    """
    seeds = iter(range(seed * 1000 + 500, seed * 1000 + 1500))
    image = keras.Input(tuple(shape), name="image")
    x = image
    if len(shape) == 1:
        for i, units in enumerate(_VECTOR_UNITS):
            x = keras.layers.Dense(
                max(1, round(units * width)),
                kernel_initializer=keras.initializers.HeNormal(seed=next(seeds)),
                name=f"dense_{i}",
                dtype=dtype,
            )(x)
            x = keras.layers.LeakyReLU(0.2, name=f"leaky_{i}", dtype=dtype)(x)
    else:
        x = keras.layers.Rescaling(2.0, offset=-1.0, name="to_tanh_range", dtype="float32")(x)
        layers = zip(_DISCRIMINATOR_CHANNELS, _DISCRIMINATOR_STRIDES, strict=True)
        for i, (filters, strides) in enumerate(layers):
            x = keras.layers.Conv2D(
                max(1, round(filters * width)),
                3,
                strides=strides,
                padding="same",
                kernel_initializer=keras.initializers.HeNormal(seed=next(seeds)),
                name=f"conv_{i}",
                dtype=dtype,
            )(x)
            x = keras.layers.LeakyReLU(0.2, name=f"leaky_{i}", dtype=dtype)(x)
            if dropout:
                x = ResumableDropout(dropout, seed=next(seeds), name=f"drop_{i}", dtype=dtype)(x)
        x = keras.layers.Flatten(name="flatten", dtype=dtype)(x)

    def head(units: int, name: str) -> keras.KerasTensor:
        initializer = keras.initializers.GlorotUniform(seed=next(seeds))
        return keras.layers.Dense(
            units, kernel_initializer=initializer, name=name, dtype="float32"
        )(x)

    source = keras.layers.Reshape((), name="source", dtype="float32")(head(1, "source_logit"))
    return keras.Model(
        image, {"source": source, "label": head(num_classes, "class_logits")}, name="discriminator"
    )
