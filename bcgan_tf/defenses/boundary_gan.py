"""The paper's defence: boundary samples of a BCGAN, beside clean data, refine the classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import keras
import tensorflow as tf

from bcgan_tf.data import Dataset, steps_per_epoch
from bcgan_tf.defenses.defense import Defense, StageCallbacks, cast, copy_classifier, restore_dtype
from bcgan_tf.defenses.gan import build_gan, draw_fakes, fit_gan
from bcgan_tf.distribute.strategies import scope, strategy
from bcgan_tf.models.bcgan import BCGAN
from bcgan_tf.settings.defenses import BCGANSettings
from bcgan_tf.training.alternating_trainer import AlternatingTrainer
from bcgan_tf.training.classifier_trainer import BatchBuilder, ClassifierTrainer
from bcgan_tf.training.fit import fit

# Steps of a small network that are one graph: one by one they take a fifth longer.
_STEPS_AT_ONCE = 100


class BCGANTraining(BCGANSettings, Defense):
    """Boundary conditional GAN (the paper's section 3.3).

    1. Train a BCGAN against the frozen classifier (eq. 8). 2. Refine a copy of the classifier on
    clean and generated samples, these labelled with the class ``c`` they were asked for.

    ``dtype`` is of both stages, but that an alternating refinement leaves the classifier as it is.

    Example:
        >>> hardened = BCGANTraining(gan_epochs=5).harden(classifier, x_train, y_train)
    """

    stage_titles: ClassVar[Mapping[str, str]] = {
        "gan": "Boundary GAN",
        "harden": "Refinement on boundary samples and clean data",
    }

    def batch_sizes(self) -> tuple[int, ...]:
        """Of both stages; see :meth:`Defense.batch_sizes`."""
        return (self.gan_batch_size, self.batch_size)

    def run(
        self,
        classifier: keras.Model,
        data: Dataset,
        *,
        directory: Path | None,
        resume: bool,
        callbacks: StageCallbacks,
    ) -> keras.Model:
        """Both stages; see :meth:`Defense.harden`.

        Between them a method ``gan_trained(gan)`` of ``callbacks`` is called, if it has one.
        """
        gan = self.train_gan(
            classifier,
            data,
            directory=directory / "gan" if directory else None,
            resume=resume,
            callbacks=callbacks("gan"),
        )
        if told := getattr(callbacks, "gan_trained", None):
            told(gan)
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
        return build_gan(self, classifier, data, seed=self.seed, devices=self.devices)

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
        fit_gan(
            gan,
            self,
            data,
            seed=self.seed,
            directory=directory,
            resume=resume,
            callbacks=callbacks,
        )
        return gan

    def refine(
        self,
        classifier: keras.Model,
        gan: BCGAN | None,
        data: Dataset,
        *,
        directory: Path | None = None,
        resume: bool = False,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> keras.Model:
        """Stage 2: a copy of ``classifier``, trained on clean and on boundary samples.

        ``gan`` may be None where no samples are asked for.
        """
        chosen = strategy(self.devices)
        steps = steps_per_epoch(data.train, self.batch_size)
        alternating = self.refinement == "alternating"
        dtype = None if alternating else self.dtype
        with scope(chosen):
            hardened = cast(copy_classifier(classifier), dtype)
            if alternating:
                trainer = AlternatingTrainer(
                    hardened,
                    generate=lambda rows, seed: draw_fakes(gan, tf.constant(rows), seed),
                    generated_batches=self.generated_batches,
                    real_batches=steps,
                    batch_size=self.batch_size,
                    seed=self.seed,
                )
                trainer.compile(keras.optimizers.Adam(self.learning_rate, beta_1=0.5, beta_2=0.9))
                callbacks = [*callbacks, trainer.callback()]
            else:
                trainer = ClassifierTrainer(
                    hardened, seed=self.seed, build_batch=self._batch_builder(gan)
                )
                schedule = keras.optimizers.schedules.CosineDecay(
                    self.learning_rate, self.epochs * steps
                )
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
            steps_at_once=_STEPS_AT_ONCE if alternating else 1,
        )
        return restore_dtype(classifier, hardened, dtype)

    def _batch_builder(self, gan: BCGAN) -> BatchBuilder | None:
        if self.clean_ratio == 1:
            return None
        ratio = (1 - self.clean_ratio) / self.clean_ratio

        def build(
            images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            rows = tf.shape(images)[0]
            count = tf.cast(tf.round(tf.cast(rows, tf.float32) * ratio), tf.int32)
            fakes, classes = draw_fakes(gan, count, seed)
            return (
                tf.concat([images, fakes], axis=0),
                tf.concat([labels, tf.cast(classes, labels.dtype)], axis=0),
                tf.ones(tf.shape(labels)[0] + count, tf.float32),
            )

        return build
