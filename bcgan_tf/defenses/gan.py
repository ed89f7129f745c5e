"""How the GAN of a defence is built and trained: shared by all defences that learn from fakes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from bcgan_tf import randomness
from bcgan_tf.data import Dataset, steps_per_epoch
from bcgan_tf.defenses.defense import copy_classifier
from bcgan_tf.distribute.strategies import scope, strategy
from bcgan_tf.models.bcgan import BCGAN
from bcgan_tf.networks.acgan import acgan_discriminator, acgan_generator
from bcgan_tf.networks.infogan import infogan_discriminator, infogan_generator
from bcgan_tf.settings.defenses import GANSettings
from bcgan_tf.training.fit import fit

_NOISE, _LABELS = range(2)


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
    infogan = settings.networks == "infogan"
    shared: dict[str, Any] = {"seed": seed, "dtype": settings.dtype}
    of_generator = {"latent_dim": settings.latent_dim, "width": settings.generator_width, **shared}
    of_discriminator = {"width": settings.discriminator_width, **shared}
    rate: Any = settings.gan_learning_rate
    with scope(chosen):
        if infogan:
            generator = infogan_generator(shape, classes, **of_generator)
            discriminator = infogan_discriminator(shape, classes, **of_discriminator)
            quarters = [settings.gan_epochs * steps * part // 4 for part in (1, 2, 3)]
            rate = keras.optimizers.schedules.PiecewiseConstantDecay(
                quarters, [rate / 10**drops for drops in range(4)]
            )
        else:
            generator = acgan_generator(shape, classes, **of_generator)
            discriminator = acgan_discriminator(
                shape, classes, dropout=settings.dropout, **of_discriminator
            )
        gan = BCGAN(
            generator,
            discriminator,
            classifier=copy_classifier(classifier),
            beta=settings.beta,
            delay_steps=round(settings.delay_epochs * steps),
            warmup_steps=round(settings.warmup_epochs * steps),
            boundary_loss=settings.boundary_loss,
            num_classes=classes,
            seed=seed,
            real_target=settings.real_target,
            uniform_noise=infogan,
            labels_of_batch=infogan,
        )
        gan.compile(
            keras.optimizers.Adam(rate, beta_1=0.5), keras.optimizers.Adam(rate, beta_1=0.5)
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
    noise = gan.draw_noise(randomness.fold_in(seed, _NOISE), count)
    return tf.stop_gradient(gan.generator([noise, classes], training=False)), classes
