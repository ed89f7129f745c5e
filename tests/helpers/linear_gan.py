"""A BCGAN of linear networks, and one step of it computed in NumPy.

The optimizers are plain SGD, so that the gradients of every term can be written down. The boundary
term has weight: what a wrong reduction does to it must show.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf import distribute, randomness
from bcgan_tf.models import BCGAN
from bcgan_tf.models.acgan import _LABELS_D, _LABELS_G, _NOISE_D, _NOISE_G

BATCH, SIZE, CLASSES, LATENT = 8, 5, 3, 4
BETA, TARGET, SEED = 0.7, 0.9, 11
RATES = 0.5, 0.3  # of the generator, of the discriminator


def initial_arrays() -> dict[str, Any]:
    """All weights, and one batch."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(0, 0.8, shape).astype(np.float32)

    return {
        "generator": [draw(LATENT + CLASSES, SIZE), draw(SIZE)],
        "discriminator": [draw(SIZE, 1), draw(1), draw(SIZE, CLASSES), draw(CLASSES)],
        "classifier": [2 * draw(SIZE, CLASSES), draw(CLASSES)],
        "images": draw(BATCH, SIZE),
        "labels": rng.integers(0, CLASSES, BATCH),
    }


def linear_gan(arrays: dict[str, Any], chosen: tf.distribute.Strategy | None) -> BCGAN:
    with distribute.scope(chosen):
        noise, label = keras.Input((LATENT,)), keras.Input((), dtype="int32")
        one_hot = keras.layers.CategoryEncoding(CLASSES, output_mode="one_hot")(
            keras.layers.Reshape((1,), dtype="int32")(label)
        )
        joined = keras.layers.Concatenate()([noise, one_hot])
        generator = keras.Model([noise, label], keras.layers.Dense(SIZE)(joined))
        image = keras.Input((SIZE,))
        source = keras.layers.Reshape(())(keras.layers.Dense(1)(image))
        discriminator = keras.Model(
            image, {"source": source, "label": keras.layers.Dense(CLASSES)(image)}
        )
        classifier = keras.Model(image, keras.layers.Dense(CLASSES)(image))
        gan = BCGAN(
            generator,
            discriminator,
            classifier=classifier,
            beta=BETA,
            num_classes=CLASSES,
            seed=SEED,
            real_target=TARGET,
        )
        gan.compile(*(keras.optimizers.SGD(rate) for rate in RATES))
    generator.set_weights(arrays["generator"])
    kernel, bias, class_kernel, class_bias = arrays["discriminator"]
    for layer in discriminator.layers:
        if isinstance(layer, keras.layers.Dense):
            mine = [kernel, bias] if layer.units == 1 else [class_kernel, class_bias]
            layer.set_weights(mine)
    classifier.set_weights(arrays["classifier"])
    return gan


def by_shape(network: keras.Model) -> dict[tuple[int, ...], np.ndarray]:
    return {
        tuple(weight.shape): keras.ops.convert_to_numpy(weight)
        for weight in network.trainable_variables
    }


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def expected_update(arrays: dict[str, Any]) -> dict[str, Any]:
    """Both SGD steps in float64; the draws are the model's, for the global batch at step 0."""

    def latent(noise, labels):
        step = tf.constant(0)
        z = randomness.global_normal(randomness.step_seed(SEED, noise, step), BATCH, LATENT)
        c = randomness.global_labels(randomness.step_seed(SEED, labels, step), BATCH, CLASSES)
        return np.concatenate([z, np.eye(CLASSES)[c]], axis=1), np.eye(CLASSES)[c]

    g, g_bias = (v.astype(np.float64) for v in arrays["generator"])
    s, s_bias, w, w_bias = (v.astype(np.float64) for v in arrays["discriminator"])
    k, k_bias = (v.astype(np.float64) for v in arrays["classifier"])
    real, real_class = arrays["images"].astype(np.float64), np.eye(CLASSES)[arrays["labels"]]

    inputs, fake_class = latent(_NOISE_D, _LABELS_D)
    fake = inputs @ g + g_bias
    d_real_source = (sigmoid(real @ s + s_bias) - TARGET) / BATCH
    d_fake_source = sigmoid(fake @ s + s_bias) / BATCH
    d_real_class = (softmax(real @ w + w_bias) - real_class) / BATCH
    d_fake_class = (softmax(fake @ w + w_bias) - fake_class) / BATCH
    g_rate, d_rate = RATES
    s = s - d_rate * (real.T @ d_real_source + fake.T @ d_fake_source)
    s_bias = s_bias - d_rate * (d_real_source.sum(0) + d_fake_source.sum(0))
    w = w - d_rate * (real.T @ d_real_class + fake.T @ d_fake_class)
    w_bias = w_bias - d_rate * (d_real_class.sum(0) + d_fake_class.sum(0))

    inputs, fake_class = latent(_NOISE_G, _LABELS_G)
    fake = inputs @ g + g_bias
    d_fake = (
        (sigmoid(fake @ s + s_bias) - 1) @ s.T
        + (softmax(fake @ w + w_bias) - fake_class) @ w.T
        + BETA * (softmax(fake @ k + k_bias) - 1 / CLASSES) @ k.T
    ) / BATCH
    generator = [g - g_rate * inputs.T @ d_fake, g_bias - g_rate * d_fake.sum(0)]
    return {
        "generator": {v.shape: v for v in generator},
        "discriminator": {v.shape: v for v in (s, s_bias, w, w_bias)},
    }


def difference(gan: BCGAN, expected: dict[str, Any]) -> float:
    """The largest, between the weights and those that are expected."""
    return max(
        np.abs(by_shape(getattr(gan, name))[shape] - value).max()
        for name, found in expected.items()
        for shape, value in found.items()
    )
