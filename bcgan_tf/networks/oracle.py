"""The oracle: a net unlike any classifier here, to judge generated samples."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from bcgan_tf.networks.classifiers import mlp


def oracle(shape: Sequence[int], num_classes: int, *, seed: int = 0) -> keras.Model:
    """A net that is in no loss and says which class a generated sample really shows.

    Four 3x3 convolutions with batch normalisation and global average pooling; no max-pooling and no
    large dense layer, so that it shares little with the classifier under defence.

    Args:
        shape: ``(H, W, C)`` of the images, or ``(D,)`` for vectors.
        num_classes: number of classes ``K``.
        seed: of the initial weights.

    Returns:
        A functional model, float32 in [0, 1] to logits ``[B, K]``.
    """
    if len(shape) == 1:
        return mlp(shape[0], num_classes, hidden=(128, 128, 128), seed=seed)
    image = keras.Input(tuple(shape), name="image")
    x = image
    for i, (filters, strides) in enumerate(((32, 1), (32, 2), (64, 1), (64, 2))):
        x = keras.layers.Conv2D(
            filters,
            3,
            strides=strides,
            padding="same",
            use_bias=False,
            kernel_initializer=keras.initializers.HeNormal(seed=seed + i),
            name=f"conv_{i}",
        )(x)
        x = keras.layers.BatchNormalization(momentum=0.9, synchronized=True, name=f"norm_{i}")(x)
        x = keras.layers.ReLU(name=f"relu_{i}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    initializer = keras.initializers.GlorotUniform(seed=seed + 10)
    logits = keras.layers.Dense(num_classes, kernel_initializer=initializer, name="logits")(x)
    return keras.Model(image, logits, name="oracle")
