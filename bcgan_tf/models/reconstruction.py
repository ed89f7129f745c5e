"""Defense-GAN's search for the generated image that is nearest to an input."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.bpda import bpda as with_identity_gradient
from bcgan_tf.attacks.primitives import not_inlined
from bcgan_tf.settings.fields import check
from bcgan_tf.settings.kinds import BelowOne, Repeats, SearchLearningRate, Steps

# The reference lowers its step once, after this share of the steps, by this factor.
_DECAY_AT, _DECAY = 0.8, 0.1


def fixed_starts(seed: int, indices: np.ndarray, restarts: int, latent_dim: int) -> np.ndarray:
    """Starting points of the search, from N(0, 1 / latent_dim).

    Returns:
        float32 ``[N, restarts, latent_dim]``. Those of an example depend on ``(seed, its
        index)`` alone, and those of fewer restarts are the first of more.
    """

    def draw(index: int) -> np.ndarray:
        bits = np.random.Philox(key=[seed, 0], counter=[0, 0, 0, index])
        return np.random.Generator(bits).standard_normal((restarts, latent_dim), np.float32)

    starts = np.zeros((len(indices), restarts, latent_dim), np.float32)
    for row, index in enumerate(indices):
        starts[row] = draw(int(index))
    return starts / np.float32(math.sqrt(latent_dim))


def nearest_generated(
    generator: keras.Model,
    images: tf.Tensor,
    starts: tf.Tensor,
    *,
    steps: int,
    learning_rate: float,
    momentum: float,
    decay: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the generated image nearest to each input, by gradient descent on ``z``.

    Args:
        generator: ``z [B, latent_dim]`` to images.
        images: float32 ``[B, H, W, C]``.
        starts: float32 ``[B, R, latent_dim]``, one descent from each.
        steps: L, of every descent.
        learning_rate: on the mean squared error over an image's pixels.
        momentum: of the descent, in [0, 1).
        decay: lower the learning rate tenfold for the last fifth of the steps.

    Returns:
        The best of the R images, float32 ``[B, H, W, C]``, and its mean squared error ``[B]``.
    """
    restarts, latent_dim = (int(side or 0) for side in starts.shape[1:])
    axes = list(range(1, len(images.shape)))
    targets = tf.repeat(images, restarts, axis=0)

    def errors(generated: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.square(generated - wanted), axis=axes)

    @not_inlined
    def gradient(latents: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(latents)
            total = tf.reduce_sum(errors(generator(latents, training=False), wanted))
        return tf.convert_to_tensor(tape.gradient(total, latents))

    lowered = math.ceil(_DECAY_AT * steps) if decay else steps

    def descend(step: tf.Tensor, latents: tf.Tensor, velocity: tf.Tensor) -> tuple[Any, ...]:
        rate = learning_rate * tf.where(step < lowered, 1.0, _DECAY)
        velocity = momentum * velocity + gradient(latents, targets)
        return step + 1, latents - rate * velocity, velocity

    first = tf.reshape(starts, [-1, latent_dim])
    _, latents, _ = tf.while_loop(
        lambda step, *_: step < steps,
        descend,
        (tf.constant(0), first, tf.zeros_like(first)),
        parallel_iterations=1,
    )
    generated = generator(latents, training=False)
    found = tf.reshape(errors(generated, targets), [-1, restarts])
    found = tf.where(tf.math.is_finite(found), found, float("inf"))  # a descent may diverge
    best = tf.argmin(found, axis=1, output_type=tf.int32)
    rows = tf.range(tf.shape(images)[0]) * restarts + best
    return tf.gather(generated, rows), tf.gather(found, best, axis=1, batch_dims=1)


@keras.saving.register_keras_serializable(package="bcgan_tf")
class Reconstruction(keras.layers.Layer):
    """Replaces every image by the nearest one that a generator makes, searched anew at each call.

    Every call draws its own starting points ``z0 ~ N(0, 1 / latent_dim)``, with TensorFlow's random
    numbers: the layer is stochastic, in training and out of it. Memory grows with images times
    restarts.

    Args:
        generator: ``z [B, latent_dim]`` to images in [0, 1]; it becomes untrainable.
        steps: L, of each descent.
        restarts: R, descents per image; the best one counts.
        learning_rate: of the descent, on the mean squared error over the pixels.
        momentum: of the descent, in [0, 1).
        decay: lower the learning rate tenfold for the last fifth of the steps. The reference sets
            this up, though its counter of steps never advances.
        bpda: hand gradients straight through, as if the layer were the identity (Athalye et al.
            2018, section 4.1). False: there is no gradient, and gradient attacks refuse the model.
        seed: None: fresh starts at every call. A number: every image is searched for from the same
            starts, drawn once from it, so that equal images get equal answers.

    Reference: Samangouei, Kabkab, Chellappa 2018, "Defense-GAN: Protecting Classifiers Against
    Adversarial Attacks Using Generative Models", eq. 7.
    """

    def __init__(
        self,
        generator: keras.Model,
        *,
        steps: Steps = 200,
        restarts: Repeats = 10,
        learning_rate: SearchLearningRate = 10.0,
        momentum: BelowOne = 0.7,
        decay: bool = True,
        bpda: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ):
        check(
            Reconstruction.__init__,
            steps=steps,
            restarts=restarts,
            learning_rate=learning_rate,
            momentum=momentum,
        )
        super().__init__(**kwargs)
        self.generator = generator
        self.steps = steps
        self.restarts = restarts
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.decay = decay
        self.bpda = bpda
        self.seed = seed
        generator.trainable = False
        self.latent_dim = int(generator.inputs[0].shape[-1])
        self.built = True
        # Compiled even where it is called eagerly: there a loop of TensorFlow runs in Python.
        signature = [
            tf.TensorSpec(generator.output_shape, tf.float32),
            tf.TensorSpec([None, restarts, self.latent_dim], tf.float32),
        ]
        self.search = tf.function(self._search, autograph=False, input_signature=signature)

    def _search(self, images: tf.Tensor, starts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Images and errors of :func:`nearest_generated` from given starts, not differentiated."""
        found, errors = nearest_generated(
            self.generator,
            tf.stop_gradient(images),
            starts,
            steps=self.steps,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            decay=self.decay,
        )
        # Inside the compiled function, or a tape outside would keep every step of the descent.
        return tf.stop_gradient(found), tf.stop_gradient(errors)

    def _starts(self, rows: tf.Tensor) -> tf.Tensor:
        if self.seed is None:
            shape = [rows, self.restarts, self.latent_dim]
            starts = tf.random.normal(shape, stddev=1.0 / math.sqrt(self.latent_dim))
        else:
            drawn = fixed_starts(self.seed, np.zeros(1, int), self.restarts, self.latent_dim)
            starts = tf.repeat(drawn, rows, axis=0)
        return tf.ensure_shape(starts, [None, self.restarts, self.latent_dim])

    def _reconstructed(self, images: tf.Tensor) -> tf.Tensor:
        found, _ = self.search(tf.cast(images, tf.float32), self._starts(tf.shape(images)[0]))
        return tf.cast(tf.ensure_shape(found, images.shape), images.dtype)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if self.bpda:
            return with_identity_gradient(self._reconstructed)(inputs)
        return tf.stop_gradient(self._reconstructed(inputs))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "generator": keras.saving.serialize_keras_object(self.generator),
            "steps": self.steps,
            "restarts": self.restarts,
            "learning_rate": self.learning_rate,
            "momentum": self.momentum,
            "decay": self.decay,
            "bpda": self.bpda,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Reconstruction:
        generator = keras.saving.deserialize_keras_object(config["generator"])
        return cls(**{**config, "generator": generator})
