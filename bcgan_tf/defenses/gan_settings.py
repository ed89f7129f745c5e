"""How the GAN of a defence is built and trained: shared by all defences that learn from fakes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from bcgan_tf import randomness
from bcgan_tf.data import Dataset, steps_per_epoch
from bcgan_tf.defenses.defense import copy_classifier
from bcgan_tf.distribute import scope, strategy
from bcgan_tf.models.bcgan import BCGAN
from bcgan_tf.networks.acgan import acgan_discriminator, acgan_generator
from bcgan_tf.settings.fields import Checked
from bcgan_tf.settings.kinds import (
    Batch,
    BelowOne,
    BoundaryLoss,
    Dtype,
    Epochs,
    EpochShare,
    LatentDim,
    LearningRate,
    Share,
    Weight,
    Width,
)
from bcgan_tf.training.fit import fit

_NOISE, _LABELS = range(2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GANSettings(Checked):
    """Settings of a BCGAN and its training.

    The paper publishes neither beta nor any other number below; each default's reason is in
    docs/boundary-samples.md.

    Args:
        beta: weight of the boundary term in the generator's loss, at least 0; 0 is a plain ACGAN.
        delay_epochs: GAN epochs at beta 0 before its rise: first digits, then ambiguous digits.
        warmup_epochs: GAN epochs over which beta then rises linearly.
        boundary_loss: the term: ``"uniform"`` (eq. 8) or ``"top2"``; see :class:`bcgan_tf.BCGAN`.
        gan_epochs: epochs of GAN training.
        gan_batch_size: global batch of the GAN.
        gan_learning_rate: of both Adams (beta_1 0.5).
        generator_width: factor on the generator's channels.
        discriminator_width: factor on the discriminator's channels.
        latent_dim: size of the noise.
        dropout: the discriminator's.
        real_target: the discriminator's target for real images (one-sided label smoothing).
        dtype: Keras dtype policy of the GAN, such as ``"mixed_bfloat16"``.

    Raises:
        UserError: if a setting is out of range.
    """

    beta: Weight = 0.1
    delay_epochs: EpochShare = 2.0
    warmup_epochs: EpochShare = 1.0
    boundary_loss: BoundaryLoss = "uniform"
    gan_epochs: Epochs = 5
    gan_batch_size: Batch = 128
    gan_learning_rate: LearningRate = 8e-4
    generator_width: Width = 0.75
    discriminator_width: Width = 0.5
    latent_dim: LatentDim = 100
    dropout: BelowOne = 0.2
    real_target: Share = 0.9
    dtype: Dtype | None = None

    def boundary_conflicts(self) -> Iterator[str]:
        """A boundary term that is still off, or on its way, when the training ends.

        No conflict of these settings themselves: some defences train such a GAN at beta 0.
        """
        risen = self.delay_epochs + self.warmup_epochs
        if self.beta and risen > self.gan_epochs:
            yield (
                f"the boundary term is at full strength after delay_epochs + warmup_epochs = "
                f"{risen:g} epochs, and gan_epochs is {self.gan_epochs}; choose fewer of the two, "
                "or more gan_epochs"
            )


def build_gan(
    settings: GANSettings,
    classifier: keras.Model,
    data: Dataset,
    *,
    seed: int,
    devices: int | None,
) -> BCGAN:
    """The compiled, untrained BCGAN against a frozen copy of ``classifier``."""
    chosen = strategy(devices)
    steps = steps_per_epoch(data.train, settings.gan_batch_size)
    shape, classes = data.image_shape, data.num_classes
    with scope(chosen):
        gan = BCGAN(
            acgan_generator(
                shape,
                classes,
                latent_dim=settings.latent_dim,
                width=settings.generator_width,
                seed=seed,
                dtype=settings.dtype,
            ),
            acgan_discriminator(
                shape,
                classes,
                width=settings.discriminator_width,
                dropout=settings.dropout,
                seed=seed,
                dtype=settings.dtype,
            ),
            classifier=copy_classifier(classifier),
            beta=settings.beta,
            delay_steps=round(settings.delay_epochs * steps),
            warmup_steps=round(settings.warmup_epochs * steps),
            boundary_loss=settings.boundary_loss,
            num_classes=classes,
            seed=seed,
            real_target=settings.real_target,
        )
        gan.compile(
            keras.optimizers.Adam(settings.gan_learning_rate, beta_1=0.5),
            keras.optimizers.Adam(settings.gan_learning_rate, beta_1=0.5),
        )
    return gan


def fit_gan(
    gan: BCGAN,
    settings: GANSettings,
    data: Dataset,
    *,
    seed: int,
    more_epochs: int = 0,
    directory: Path | None = None,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Trains to ``gan_epochs`` and ``more_epochs`` beyond; see bcgan_tf.training.fit.fit."""
    fit(
        gan,
        data.train,
        epochs=settings.gan_epochs + more_epochs,
        batch_size=settings.gan_batch_size,
        seed=seed,
        directory=directory,
        resume=resume,
        callbacks=callbacks,
    )


def draw_fakes(gan: BCGAN, count: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Freshly generated images and the classes they were asked for, inside a training step.

    Args:
        gan: its generator makes them.
        count: rows of this replica; replicas get different rows of one draw.
        seed: stateless, int32 ``[2]``.

    Returns:
        float32 ``[count, ...]`` in [0, 1], not differentiated, and int32 ``[count]``.
    """
    classes = randomness.global_labels(randomness.fold_in(seed, _LABELS), count, gan.num_classes)
    noise = randomness.global_normal(randomness.fold_in(seed, _NOISE), count, gan.latent_dim)
    return tf.stop_gradient(gan.generator([noise, classes], training=False)), classes
