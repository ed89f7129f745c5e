"""Wasserstein GAN with gradient penalty, with a custom ``train_step``."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf import losses, randomness
from bcgan_tf.errors import UserError
from bcgan_tf.settings.fields import check
from bcgan_tf.settings.kinds import Repeats, Weight

# One constant per kind of draw, so that no two draws of a step share their numbers.
_NOISE_C, _MIXTURE, _NOISE_G = range(32, 35)
# Under the root of the gradient's norm: where the gradient is 0 the root has no slope.
_SMALLEST_SQUARE = 1e-12


def gradient_norm(critic: keras.Model, images: tf.Tensor) -> tf.Tensor:
    """Euclidean norm of the critic's gradient at each image, float32 ``[B]``."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        scores = critic(images, training=True)
    # Of the sum: each score depends on its own image alone.
    gradient = tf.convert_to_tensor(tape.gradient(scores, images))
    axes = list(range(1, len(images.shape)))
    return tf.sqrt(tf.reduce_sum(tf.square(gradient), axis=axes) + _SMALLEST_SQUARE)


@keras.saving.register_keras_serializable(package="bcgan_tf")
class WGANGP(keras.Model):
    """Wasserstein GAN with gradient penalty (Gulrajani et al. 2017, algorithm 1).

    Per example the critic minimises ``D(G(z)) - D(x) + penalty * (||grad D(m)||_2 - 1)^2``, with
    ``m`` drawn uniformly from the segment between ``x`` and ``G(z)``; the generator minimises
    ``-D(G(z))``. One training step is ``critic_steps`` updates of the critic and then one of the
    generator, so a batch given to ``fit`` holds the real images of all of them: every
    ``critic_steps``-th row goes to the same update, which makes ``N`` replicas update on the
    examples that one would. Every draw is stateless in ``(seed, iteration)``: a resumed run equals
    one that never stopped.

    Args:
        generator: functional model, ``z [B, latent_dim]`` to images in [0, 1].
        critic: functional model, images to scores ``[B]``; without batch normalisation.
        penalty: weight of the gradient penalty.
        critic_steps: updates of the critic per update of the generator.
        seed: of all draws.

    Example:
        >>> gan = WGANGP(wgan_generator((28, 28, 1)), wgan_critic((28, 28, 1)))
        >>> gan.compile()
        >>> fit(gan, data.train, epochs=30, batch_size=5 * 50, seed=0)
        >>> images = gan.generate(100)

    Reference: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs".
    """

    def __init__(
        self,
        generator: keras.Model,
        critic: keras.Model,
        *,
        penalty: Weight = 10.0,
        critic_steps: Repeats = 5,
        seed: int = 0,
        **kwargs: Any,
    ):
        check(WGANGP.__init__, penalty=penalty, critic_steps=critic_steps)
        super().__init__(**kwargs)
        self.generator = generator
        self.critic = critic
        self.penalty = penalty
        self.critic_steps = critic_steps
        self.seed = seed
        self.latent_dim = int(generator.inputs[0].shape[-1])
        names = ("critic_loss", "generator_loss", "wasserstein", "gradient_norm")
        self._trackers = {name: keras.metrics.Mean(name=name) for name in names}
        self.built = True

    def compile(
        self,
        generator_optimizer: keras.optimizers.Optimizer | None = None,
        critic_optimizer: keras.optimizers.Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """Sets both optimizers and creates their variables; the default is Adam(1e-4, 0.5, 0.9)."""
        super().compile(optimizer=None, **kwargs)
        self.generator_optimizer = generator_optimizer or _adam()
        self.critic_optimizer = critic_optimizer or _adam()
        self.generator_optimizer.build(self.generator.trainable_variables)
        self.critic_optimizer.build(self.critic.trainable_variables)

    def get_compile_config(self) -> dict[str, Any]:
        serialize = keras.optimizers.serialize
        return {
            "generator_optimizer": serialize(self.generator_optimizer),
            "critic_optimizer": serialize(self.critic_optimizer),
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**{k: keras.optimizers.deserialize(v) for k, v in config.items()})

    @property
    def optimizers(self) -> list[keras.optimizers.Optimizer]:
        """The generator's and the critic's optimizer, in this order."""
        return [self.generator_optimizer, self.critic_optimizer]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self._trackers.values())

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Images in [0, 1] for ``z``."""
        return self.generator(inputs, training=training)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        images = data[0]
        rows = images.shape[0]
        if rows is None or rows % self.critic_steps:
            raise UserError(
                f"a batch of {rows} images does not divide into {self.critic_steps} updates of the "
                f"critic; choose a known multiple of {self.critic_steps} per device"
            )
        step = tf.convert_to_tensor(self.critic_optimizer.iterations)
        for update in range(self.critic_steps):
            self._train_critic(images[update :: self.critic_steps], step + update)
        self._train_generator(rows // self.critic_steps)
        return {metric.name: metric.result() for metric in self.metrics}

    def _train_critic(self, images: tf.Tensor, step: tf.Tensor) -> None:
        rows = int(images.shape[0] or 0)  # train_step has checked them
        fakes = self.generator(self._latent(_NOISE_C, step, rows), training=True)
        seed = randomness.step_seed(self.seed, _MIXTURE, step)
        shape = tf.constant([rows] + [1] * (len(images.shape) - 1))
        share = 0.5 + 0.5 * randomness.global_noise(seed, shape, uniform=True)
        mixed = images + share * (fakes - images)
        with tf.GradientTape() as tape:
            distance = self.critic(images, training=True) - self.critic(fakes, training=True)
            norm = gradient_norm(self.critic, mixed)
            loss = self.penalty * tf.square(norm - 1.0) - distance
            objective = losses.average(loss)
        self._apply(tape, objective, self.critic, self.critic_optimizer)
        self._trackers["critic_loss"].update_state(loss)
        self._trackers["wasserstein"].update_state(distance)
        self._trackers["gradient_norm"].update_state(norm)

    def _train_generator(self, rows: int) -> None:
        step = tf.convert_to_tensor(self.generator_optimizer.iterations)
        latents = self._latent(_NOISE_G, step, rows)
        with tf.GradientTape() as tape:
            loss = -self.critic(self.generator(latents, training=True), training=True)
            objective = losses.average(loss)
        self._apply(tape, objective, self.generator, self.generator_optimizer)
        self._trackers["generator_loss"].update_state(loss)

    def _latent(self, purpose: int, step: tf.Tensor, rows: int) -> tf.Tensor:
        seed = randomness.step_seed(self.seed, purpose, step)
        return randomness.global_normal(seed, rows, self.latent_dim)

    @staticmethod
    def _apply(
        tape: tf.GradientTape,
        objective: tf.Tensor,
        network: keras.Model,
        optimizer: keras.optimizers.Optimizer,
    ) -> None:
        variables = network.trainable_variables
        gradients = tape.gradient(objective, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    def generate(self, count: int, *, seed: int = 0, batch_size: int = 500) -> np.ndarray:
        """Images from ``z ~ N(0, 1)``, float32 ``[count, H, W, C]`` in [0, 1].

        Args:
            count: how many.
            seed: of the noise; image ``i`` depends on ``(seed, i)`` alone.
            batch_size: images per forward pass.
        """
        noise = np.random.default_rng([self.seed, seed]).standard_normal(
            (count, self.latent_dim), np.float32
        )
        shape = self.generator.output_shape[1:]
        parts = [
            self.generator(noise[i : i + batch_size], training=False).numpy()
            for i in range(0, count, batch_size)
        ]
        return np.concatenate([np.zeros((0, *shape), np.float32), *parts])

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "generator": serialize(self.generator),
            "critic": serialize(self.critic),
            "penalty": self.penalty,
            "critic_steps": self.critic_steps,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> WGANGP:
        config = dict(config)
        for key in ("generator", "critic"):
            config[key] = keras.saving.deserialize_keras_object(
                config[key], custom_objects=custom_objects
            )
        return cls(**config)


def _adam() -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(1e-4, beta_1=0.5, beta_2=0.9)
