"""How the GAN of a defence is built and trained: shared by all defences that learn from fakes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from bcgan_tf import randomness
from bcgan_tf.data import Dataset, steps_per_epoch
from bcgan_tf.defenses.defense import copy_classifier
from bcgan_tf.defenses.precision import check_dtype
from bcgan_tf.distribute import scope, strategy
from bcgan_tf.errors import UserError
from bcgan_tf.models.bcgan import BCGAN, BOUNDARY_LOSSES
from bcgan_tf.models.fitting import fit
from bcgan_tf.networks.acgan import acgan_discriminator, acgan_generator

_NOISE, _LABELS = range(2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GANSettings:
    """Settings of a BCGAN and its training.

    The paper publishes neither beta nor any other number below; each default's reason is in
    docs/boundary-samples.md.

    Args:
        beta: weight of the boundary term in the generator's loss, at least 0; 0 is a plain ACGAN.
        delay_epochs: GAN epochs at beta 0 before its rise: first digits, then ambiguous digits.
        warmup_epochs: GAN epochs over which beta then rises linearly.
        boundary_loss: the term: ``"uniform"`` (eq. 8), ``"top2"`` or ``"margin"``; see
            :class:`bcgan_tf.BCGAN`.
        pull_away: weight of the pull-away term, which keeps generated images apart; 0 is off.
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

    Raises:
        UserError: if a setting is out of range.
    """

    beta: float = 0.1
    delay_epochs: float = 2.0
    warmup_epochs: float = 1.0
    boundary_loss: str = "uniform"
    pull_away: float = 0.0
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

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise UserError(f"beta is {self.beta}; choose 0 (a plain ACGAN) or more")
        if self.boundary_loss not in BOUNDARY_LOSSES:
            raise UserError(
                f"boundary_loss is {self.boundary_loss!r}; choose {', '.join(BOUNDARY_LOSSES)}"
            )
        if self.pull_away < 0:
            raise UserError(f"pull_away is {self.pull_away}; choose 0 (off) or more")
        for field in ("gan_epochs", "gan_batch_size", "latent_dim"):
            if getattr(self, field) < 1:
                raise UserError(f"{field} is {getattr(self, field)}; choose at least 1")
        check_dtype(self.dtype)

    def check_boundary(self) -> None:
        """Refuses a boundary term that is still off, or on its way, when the training ends.

        Not on construction: settings that are changed one after the other may pass through it.

        Raises:
            UserError: beta is more than 0 and its rise takes longer than the training.
        """
        risen = self.delay_epochs + self.warmup_epochs
        if self.beta and risen > self.gan_epochs:
            raise UserError(
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
                spectral_norm=settings.spectral_norm,
                seed=seed,
                dtype=settings.dtype,
            ),
            classifier=copy_classifier(classifier),
            beta=settings.beta,
            delay_steps=round(settings.delay_epochs * steps),
            warmup_steps=round(settings.warmup_epochs * steps),
            boundary_loss=settings.boundary_loss,
            pull_away=settings.pull_away,
            num_classes=classes,
            seed=seed,
            real_target=settings.real_target,
            instance_noise=settings.instance_noise,
            ema=settings.ema,
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
    """Trains to ``gan_epochs`` and ``more_epochs`` beyond; see bcgan_tf.models.fitting.fit."""
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
        gan: its moving average makes them where there is one.
        count: rows of this replica; replicas get different rows of one draw.
        seed: stateless, int32 ``[2]``.

    Returns:
        float32 ``[count, ...]`` in [0, 1], not differentiated, and int32 ``[count]``.
    """
    generator = gan.generator_average or gan.generator
    classes = randomness.global_labels(randomness.fold_in(seed, _LABELS), count, gan.num_classes)
    noise = randomness.global_normal(randomness.fold_in(seed, _NOISE), count, gan.latent_dim)
    return tf.stop_gradient(generator([noise, classes], training=False)), classes
