"""Small networks that train in milliseconds, and the models made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf import distribute
from bcgan_tf.data import Dataset, Split, load_dataset
from bcgan_tf.models import ACGAN, BCGAN
from bcgan_tf.networks.layers import ResumableDropout

SHAPE = (8, 8, 1)
# The settings of a GAN that is trained in a second.
SMALL_GAN = {
    "gan_epochs": 1,
    "gan_batch_size": 32,
    "generator_width": 0.05,
    "discriminator_width": 0.05,
    "latent_dim": 6,
    "delay_epochs": 0.0,
    "warmup_epochs": 0.0,
}


def glorot(seed: int) -> keras.initializers.Initializer:
    return keras.initializers.GlorotUniform(seed=seed)


def small_generator(classes: int = 10, latent_dim: int = 4) -> keras.Model:
    """Dense, with batch normalisation, to 8x8 pixels."""
    noise = keras.Input((latent_dim,))
    label = keras.Input((), dtype="int32")
    embedded = keras.layers.Embedding(
        classes, latent_dim, embeddings_initializer=keras.initializers.RandomNormal(seed=1)
    )(label)
    x = keras.layers.Concatenate()([noise, embedded])
    x = keras.layers.Dense(16, use_bias=False, kernel_initializer=glorot(2))(x)
    x = keras.layers.BatchNormalization(synchronized=True, momentum=0.8)(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Dense(64, activation="sigmoid", kernel_initializer=glorot(3))(x)
    return keras.Model([noise, label], keras.layers.Reshape(SHAPE)(x))


def small_discriminator(classes: int = 10, dropout: float = 0.3) -> keras.Model:
    image = keras.Input(SHAPE)
    x = keras.layers.Flatten()(image)
    x = keras.layers.Dense(16, activation="leaky_relu", kernel_initializer=glorot(4))(x)
    if dropout:
        x = ResumableDropout(dropout, seed=5)(x)
    source = keras.layers.Reshape(())(keras.layers.Dense(1, kernel_initializer=glorot(6))(x))
    label = keras.layers.Dense(classes, kernel_initializer=glorot(7))(x)
    return keras.Model(image, {"source": source, "label": label})


def small_classifier(classes: int = 10, dropout: float = 0.5) -> keras.Model:
    """With batch normalisation and dropout: both act differently in training."""
    image = keras.Input(SHAPE)
    x = keras.layers.Flatten()(image)
    x = keras.layers.Dense(24, kernel_initializer=glorot(8))(x)
    x = keras.layers.BatchNormalization(synchronized=True, momentum=0.8)(x)
    x = keras.layers.ReLU()(x)
    if dropout:
        x = ResumableDropout(dropout, seed=9)(x)
    return keras.Model(image, keras.layers.Dense(classes, kernel_initializer=glorot(10))(x))


@pytest.fixture(scope="session")
def networks() -> dict[str, Callable[..., keras.Model]]:
    """The three builders by name."""
    return {
        "generator": small_generator,
        "discriminator": small_discriminator,
        "classifier": small_classifier,
    }


@pytest.fixture(scope="session")
def make_gan() -> Callable[..., Any]:
    """``make_gan(BCGAN, strategy, optimizers=..., **options)``: a compiled GAN."""

    def make(
        kind: type[ACGAN] = BCGAN,
        strategy: tf.distribute.Strategy | None = None,
        *,
        optimizer: Callable[[], keras.optimizers.Optimizer] = lambda: keras.optimizers.Adam(0.01),
        dropout: float = 0.3,
        **options: Any,
    ) -> Any:
        with distribute.scope(strategy):
            if issubclass(kind, BCGAN):
                options = {"beta": 0.5, "classifier": small_classifier(), **options}
            gan = kind(
                small_generator(),
                small_discriminator(dropout=dropout),
                **{"num_classes": 10, "seed": 3, **options},
            )
            gan.compile(optimizer(), optimizer())
        return gan

    return make


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="session")
def some(digits) -> Split:
    """64 real digits."""
    return digits.train.take(64)


def weights_of(model: keras.Model) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]


@pytest.fixture(scope="session")
def weights() -> Callable[[keras.Model], list[np.ndarray]]:
    """``weights(model)``: copies of all weights, mirrored ones too."""
    return weights_of
