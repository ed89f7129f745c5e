"""The paper's defence: boundary samples of a BCGAN, beside clean data, refine the classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf import randomness
from bcgan_tf.data import Dataset, steps_per_epoch
from bcgan_tf.defenses.defense import Defense, StageCallbacks, copy_classifier
from bcgan_tf.distribute import check_batch_size, scope, strategy
from bcgan_tf.errors import UserError
from bcgan_tf.models.bcgan import BCGAN
from bcgan_tf.models.classifier_trainer import BatchBuilder, ClassifierTrainer
from bcgan_tf.models.fitting import fit
from bcgan_tf.networks.acgan import acgan_discriminator, acgan_generator

_NOISE, _LABELS, _ROWS = range(3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BCGANDefense(Defense):
    """Boundary conditional GAN (the paper's section 3.3).

    1. Train a BCGAN against the frozen classifier (eq. 8). 2. Refine a copy of the classifier on
    clean and generated samples, these labelled with the class ``c`` they were asked for.

    The paper publishes neither beta nor any other number below; each default's reason is in
    docs/boundary-samples.md.

    Args:
        beta: weight of KL(U || P(y|x)) in the generator's loss, at least 0; 0 is a plain ACGAN.
        delay_epochs: GAN epochs at beta 0 before its rise: first digits, then ambiguous digits.
        warmup_epochs: GAN epochs over which beta then rises linearly.
        gan_epochs: epochs of GAN training.
        gan_batch_size: global batch of the GAN.
        gan_learning_rate: of both Adams (beta_1 0.5).
        generator_width: factor on the generator's channels.
        discriminator_width: factor on the discriminator's channels.
        latent_dim: size of the noise.
        dropout: the discriminator's.
        real_target: the discriminator's target for real images (one-sided label smoothing).
        instance_noise: standard deviation of noise on the discriminator's inputs.
        spectral_norm: of the discriminator.
        ema: decay of the generator's moving average; 0 is off.
        dtype: Keras dtype policy of the GAN, such as ``"mixed_bfloat16"``.
        epochs: epochs of refinement.
        batch_size: global number of *clean* images in a batch of the refinement.
        learning_rate: of the refinement's Adam, decayed to 0 by a cosine.
        clean_ratio: share of clean images in a batch, in (0, 1]; 1 is refinement without fakes.
        fixed_samples: 0 generates fresh boundary samples for every step; ``n`` generates one set
            of ``n`` and draws from it.

    Example:
        >>> hardened = BCGANDefense(gan_epochs=5).harden(classifier, bcgan_tf.load("mnist"))
    """

    name: ClassVar[str] = "bcgan"

    beta: float = 0.1
    delay_epochs: float = 2.0
    warmup_epochs: float = 1.0
    gan_epochs: int = 5
    gan_batch_size: int = 128
    gan_learning_rate: float = 8e-4
    generator_width: float = 0.75
    discriminator_width: float = 0.5
    latent_dim: int = 100
    dropout: float = 0.2
    real_target: float = 0.9
    instance_noise: float = 0.0
    spectral_norm: bool = False
    ema: float = 0.0
    dtype: str | None = None
    epochs: int = 3
    batch_size: int = 128
    learning_rate: float = 5e-4
    clean_ratio: float = 0.5
    fixed_samples: int = 0

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise UserError(f"beta is {self.beta}; choose 0 (a plain ACGAN) or more")
        if not 0 < self.clean_ratio <= 1:
            raise UserError(
                f"clean_ratio is {self.clean_ratio}; choose more than 0 and at most 1 (no fakes)"
            )
        for field in ("gan_epochs", "gan_batch_size", "epochs", "batch_size", "latent_dim"):
            if getattr(self, field) < 1:
                raise UserError(f"{field} is {getattr(self, field)}; choose at least 1")
        if self.fixed_samples < 0:
            raise UserError(f"fixed_samples is {self.fixed_samples}; choose 0 (fresh) or more")

    def run(
        self,
        classifier: keras.Model,
        data: Dataset,
        *,
        directory: Path | None,
        resume: bool,
        callbacks: StageCallbacks,
    ) -> keras.Model:
        """Both stages; see :meth:`Defense.harden`."""
        gan = self.train_gan(
            classifier,
            data,
            directory=directory / "gan" if directory else None,
            resume=resume,
            callbacks=callbacks("gan"),
        )
        return self.refine(
            classifier,
            gan,
            data,
            directory=directory / "harden" if directory else None,
            resume=resume,
            callbacks=callbacks("harden"),
        )

    def build_gan(self, classifier: keras.Model, data: Dataset) -> BCGAN:
        """The compiled, untrained BCGAN against a frozen copy of ``classifier``."""
        chosen = strategy(self.devices)
        check_batch_size(self.gan_batch_size, chosen)
        steps = steps_per_epoch(data.train, self.gan_batch_size)
        shape, classes = data.image_shape, data.num_classes
        with scope(chosen):
            gan = BCGAN(
                acgan_generator(
                    shape,
                    classes,
                    latent_dim=self.latent_dim,
                    width=self.generator_width,
                    seed=self.seed,
                    dtype=self.dtype,
                ),
                acgan_discriminator(
                    shape,
                    classes,
                    width=self.discriminator_width,
                    dropout=self.dropout,
                    spectral_norm=self.spectral_norm,
                    seed=self.seed,
                    dtype=self.dtype,
                ),
                classifier=copy_classifier(classifier),
                beta=self.beta,
                delay_steps=round(self.delay_epochs * steps),
                warmup_steps=round(self.warmup_epochs * steps),
                num_classes=classes,
                seed=self.seed,
                real_target=self.real_target,
                instance_noise=self.instance_noise,
                ema=self.ema,
            )
            gan.compile(
                keras.optimizers.Adam(self.gan_learning_rate, beta_1=0.5),
                keras.optimizers.Adam(self.gan_learning_rate, beta_1=0.5),
            )
        return gan

    def train_gan(
        self,
        classifier: keras.Model,
        data: Dataset,
        *,
        directory: Path | None = None,
        resume: bool = False,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> BCGAN:
        """Stage 1: a BCGAN that makes boundary samples of ``classifier``."""
        gan = self.build_gan(classifier, data)
        fit(
            gan,
            data.train,
            epochs=self.gan_epochs,
            batch_size=self.gan_batch_size,
            seed=self.seed,
            directory=directory,
            resume=resume,
            callbacks=callbacks,
        )
        return gan

    def refine(
        self,
        classifier: keras.Model,
        gan: BCGAN,
        data: Dataset,
        *,
        directory: Path | None = None,
        resume: bool = False,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> keras.Model:
        """Stage 2: a copy of ``classifier``, trained on clean and on boundary samples."""
        chosen = strategy(self.devices)
        check_batch_size(self.batch_size, chosen)
        steps = self.epochs * steps_per_epoch(data.train, self.batch_size)
        with scope(chosen):
            hardened = copy_classifier(classifier)
            hardened.trainable = True
            trainer = ClassifierTrainer(
                hardened, seed=self.seed, build_batch=self._batch_builder(gan)
            )
            schedule = keras.optimizers.schedules.CosineDecay(self.learning_rate, steps)
            trainer.compile(keras.optimizers.Adam(schedule))
        fit(
            trainer,
            data.train,
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=self.seed + 1,
            validation=data.validation,
            directory=directory,
            resume=resume,
            callbacks=callbacks,
        )
        return hardened

    def _batch_builder(self, gan: BCGAN) -> BatchBuilder | None:
        if self.clean_ratio == 1:
            return None
        ratio = (1 - self.clean_ratio) / self.clean_ratio
        generator = gan.generator_average or gan.generator
        stored = self._fixed_set(gan) if self.fixed_samples else None

        def build(
            images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            rows = tf.shape(images)[0]
            count = tf.cast(tf.round(tf.cast(rows, tf.float32) * ratio), tf.int32)

            def draw(purpose: int, below: int) -> tf.Tensor:
                return randomness.global_labels(randomness.fold_in(seed, purpose), count, below)

            if stored is not None:
                chosen = draw(_ROWS, self.fixed_samples)
                fakes, classes = (tf.gather(array, chosen) for array in stored)
            else:
                classes = draw(_LABELS, gan.num_classes)
                noise = randomness.global_normal(
                    randomness.fold_in(seed, _NOISE), count, gan.latent_dim
                )
                fakes = tf.stop_gradient(generator([noise, classes], training=False))
            return (
                tf.concat([images, fakes], axis=0),
                tf.concat([labels, tf.cast(classes, labels.dtype)], axis=0),
                tf.ones(tf.shape(labels)[0] + count, tf.float32),
            )

        return build

    def _fixed_set(self, gan: BCGAN) -> tuple[tf.Tensor, tf.Tensor]:
        classes = np.arange(self.fixed_samples, dtype=np.int32) % gan.num_classes
        return tf.constant(gan.generate(classes, seed=self.seed)), tf.constant(classes)
