"""ACGAN with a custom ``train_step``: the paper's eq. 6."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf import losses, randomness
from bcgan_tf.settings.fields import check
from bcgan_tf.settings.kinds import Share

# One constant per kind of draw, so that no two draws of a step share their numbers.
_NOISE_D, _LABELS_D, _NOISE_G, _LABELS_G = range(4)


@keras.saving.register_keras_serializable(package="bcgan_tf")
class ACGAN(keras.Model):
    """Auxiliary-classifier GAN (Odena et al. 2016) as the paper's section 2.2 states it.

    The discriminator maximises ``L_S + L_C``, the generator ``L_C - L_S``; both are written as
    losses to be minimised, the generator's in its non-saturating form. Every draw is stateless in
    ``(seed, iteration)``, so a run that is resumed equals one that never stopped, and ``N``
    replicas see the noise that one replica would see on the same global batch.

    Args:
        generator: functional model ``[z, c] -> images`` in [0, 1].
        discriminator: functional model ``images -> {"source", "label"}`` logits.
        num_classes: number of classes ``K``.
        seed: of all draws.
        real_target: the discriminator's "real" target; 0.9 is one-sided label smoothing
            (Salimans et al. 2016), which keeps its logits, and so the generator's gradients, small.
        uniform_noise: ``z`` is uniform in [0, 1), and not N(0, 1).
        labels_of_batch: in training ``c`` are the labels of the real batch, and not drawn.

    Example:
        >>> gan = ACGAN(acgan_generator((28, 28, 1), 10), acgan_discriminator((28, 28, 1), 10),
        ...             num_classes=10)
        >>> gan.compile()
        >>> gan.fit(training_stream(data.train, batch_size=128, seed=0), epochs=8,
        ...         steps_per_epoch=steps_per_epoch(data.train, 128))
        >>> images = gan.generate(np.arange(10), seed=0)

    Reference: Odena, Olah, Shlens 2016, "Conditional Image Synthesis with Auxiliary Classifier
    GANs".
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        *,
        num_classes: int,
        seed: int = 0,
        real_target: Share = 0.9,
        uniform_noise: bool = False,
        labels_of_batch: bool = False,
        **kwargs: Any,
    ):
        check(ACGAN.__init__, real_target=real_target)
        super().__init__(**kwargs)
        self.generator = generator
        self.discriminator = discriminator
        self.num_classes = num_classes
        self.seed = seed
        self.real_target = real_target
        self.uniform_noise = uniform_noise
        self.labels_of_batch = labels_of_batch
        self.latent_dim = int(generator.inputs[0].shape[-1])
        self._trackers = {name: keras.metrics.Mean(name=name) for name in self._metric_names()}
        self.built = True

    def _metric_names(self) -> tuple[str, ...]:
        return ("discriminator_loss", "generator_loss", "real_accuracy", "fake_accuracy")

    def compile(
        self,
        generator_optimizer: keras.optimizers.Optimizer | None = None,
        discriminator_optimizer: keras.optimizers.Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """Sets both optimizers; the default for each is Odena's Adam(2e-4, beta_1=0.5).

        Their variables are created here: inside ``train_step`` it would be too late for
        ``MirroredStrategy`` and for restoring their moments.
        """
        super().compile(optimizer=None, **kwargs)
        self.generator_optimizer = generator_optimizer or keras.optimizers.Adam(2e-4, beta_1=0.5)
        self.discriminator_optimizer = discriminator_optimizer or keras.optimizers.Adam(
            2e-4, beta_1=0.5
        )
        self.generator_optimizer.build(self.generator.trainable_variables)
        self.discriminator_optimizer.build(self.discriminator.trainable_variables)

    def get_compile_config(self) -> dict[str, Any]:
        serialize = keras.optimizers.serialize
        return {
            "generator_optimizer": serialize(self.generator_optimizer),
            "discriminator_optimizer": serialize(self.discriminator_optimizer),
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**{k: keras.optimizers.deserialize(v) for k, v in config.items()})

    @property
    def optimizers(self) -> list[keras.optimizers.Optimizer]:
        """The generator's and the discriminator's optimizer, in this order."""
        return [self.generator_optimizer, self.discriminator_optimizer]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self._trackers.values())

    def call(self, inputs: Any, training: bool = False) -> tf.Tensor:
        """Images in [0, 1] for ``[z, c]``."""
        return self.generator(inputs, training=training)

    def draw_noise(self, seed: tf.Tensor, rows: int | tf.Tensor) -> tf.Tensor:
        """``z``, float32 ``[rows, latent_dim]``: this replica's rows of one draw for all."""
        draw = randomness.global_uniform if self.uniform_noise else randomness.global_normal
        return draw(seed, rows, self.latent_dim)

    def _latent(
        self, noise: int, labels: int, step: tf.Tensor, of_batch: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        rows: Any = of_batch.shape[0]
        z = self.draw_noise(randomness.step_seed(self.seed, noise, step), rows)
        if self.labels_of_batch:
            return z, tf.cast(of_batch, tf.int32)
        c = randomness.global_labels(
            randomness.step_seed(self.seed, labels, step), rows, self.num_classes
        )
        return z, c

    def generator_loss(self, fakes: tf.Tensor, labels: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Per-example generator loss, ``[B]``; subclasses add their terms here."""
        del step  # for subclasses
        fake = self.discriminator(fakes, training=True)
        return losses.acgan_generator_loss(fake["source"], fake["label"], labels)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        images, labels = data[:2]
        if images.shape[0] is None:
            raise ValueError("ACGAN needs batches of one known size: use drop_remainder=True")
        step = tf.convert_to_tensor(self.discriminator_optimizer.iterations)

        z, c = self._latent(_NOISE_D, _LABELS_D, step, labels)
        fakes = self.generator([z, c], training=True)
        with tf.GradientTape() as tape:
            real = self.discriminator(images, training=True)
            fake = self.discriminator(fakes, training=True)
            d_loss = losses.acgan_discriminator_loss(
                real["source"],
                fake["source"],
                real["label"],
                fake["label"],
                labels,
                c,
                real_target=self.real_target,
            )
            objective = losses.average(d_loss)
        variables = self.discriminator.trainable_variables
        self.discriminator_optimizer.apply_gradients(
            zip(tape.gradient(objective, variables), variables, strict=True)
        )
        self._track("real_accuracy", tf.cast(real["source"] > 0, tf.float32))
        self._track("fake_accuracy", tf.cast(fake["source"] < 0, tf.float32))
        self._track("discriminator_loss", d_loss)

        z, c = self._latent(_NOISE_G, _LABELS_G, step, labels)
        with tf.GradientTape() as tape:
            g_loss = self.generator_loss(self.generator([z, c], training=True), c, step)
            objective = losses.average(g_loss)
        variables = self.generator.trainable_variables
        self.generator_optimizer.apply_gradients(
            zip(tape.gradient(objective, variables), variables, strict=True)
        )
        self._track("generator_loss", g_loss)
        return {metric.name: metric.result() for metric in self.metrics}

    def _track(self, name: str, values: tf.Tensor) -> None:
        self._trackers[name].update_state(values)

    def generate(self, labels: Any, *, seed: int = 0, batch_size: int = 500) -> np.ndarray:
        """Images of the given classes.

        Args:
            labels: int ``[N]``, the classes ``c``.
            seed: of the noise; image ``i`` depends on ``(seed, i, labels[i])`` alone.
            batch_size: images per forward pass; bounds the memory.

        Returns:
            float32 ``[N, H, W, C]`` in [0, 1].
        """
        labels = np.asarray(labels, np.int32)
        random = np.random.default_rng([self.seed, seed])
        draw = random.random if self.uniform_noise else random.standard_normal
        noise = draw((len(labels), self.latent_dim), np.float32)
        parts: Iterator[np.ndarray] = (
            self.generator(
                [noise[i : i + batch_size], labels[i : i + batch_size]], training=False
            ).numpy()
            for i in range(0, len(labels), batch_size)
        )
        shape = self.generator.output_shape[1:]
        return np.concatenate([np.zeros((0, *shape), np.float32), *parts])

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "generator": serialize(self.generator),
            "discriminator": serialize(self.discriminator),
            "num_classes": self.num_classes,
            "seed": self.seed,
            "real_target": self.real_target,
            "uniform_noise": self.uniform_noise,
            "labels_of_batch": self.labels_of_batch,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> ACGAN:
        config = dict(config)
        for key, value in config.items():
            if isinstance(value, dict) and "class_name" in value and key != "dtype":
                config[key] = keras.saving.deserialize_keras_object(
                    value, custom_objects=custom_objects
                )
        return cls(**config)
