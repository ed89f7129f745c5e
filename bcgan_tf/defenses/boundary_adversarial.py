"""Boundary samples inside adversarial training, and the controls that tell what they do."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from bcgan_tf.data import Dataset
from bcgan_tf.defenses.adversarial_training import PGDTraining, TRADESTraining
from bcgan_tf.defenses.defense import StageCallbacks
from bcgan_tf.defenses.extra_rows import NO_EXTRA, ExtraExamples, generated_rows, repeated_rows
from bcgan_tf.defenses.gan import build_gan, fit_gan
from bcgan_tf.defenses.robust_training import RobustTraining
from bcgan_tf.models.bcgan import BCGAN
from bcgan_tf.settings.defenses import (
    GENERATED,
    BoundaryPGDSettings,
    BoundaryTRADESSettings,
    ExtraExamplesSettings,
    FilteredExtraSettings,
    GANSettings,
)
from bcgan_tf.training.fit import train_oracle
from bcgan_tf.training.robust_trainer import RobustTrainer

GAN_STAGE_TITLES = {
    "gan": "GAN of the extra images",
    "oracle": "Oracle, which judges generated images and trains nothing",
}
_JUDGED = 1000


class BoundaryTraining(ExtraExamplesSettings, RobustTraining):
    """Robust training on real images and, in the same batches, on boundary samples.

    The GAN is trained against the given classifier first, and may be trained on against the
    network that is becoming robust. The other kinds of ``fakes`` are controls: with
    ``"duplicates"`` as many rows are attacked in every step as with generated ones.

    A subclass names its settings first, then the training it adds to, then this class.
    """

    def run(
        self,
        classifier: keras.Model,
        data: Dataset,
        *,
        directory: Path | None,
        resume: bool,
        callbacks: StageCallbacks,
    ) -> keras.Model:
        """GAN, oracle, training; see :meth:`Defense.harden`."""
        # A training in several parts finds its own end in its checkpoints.
        with _folder(directory, needed=bool(self._refreshed())) as folder:
            return super().run(
                classifier, data, directory=folder, resume=resume, callbacks=callbacks
            )

    def batch_sizes(self) -> tuple[int, ...]:
        """Of the training and of its GAN; see :meth:`Defense.batch_sizes`."""
        own = super().batch_sizes()
        return (*own, self.gan.gan_batch_size) if self.fakes in GENERATED else own

    def _refreshed(self) -> int:
        """After how many epochs a GAN is trained on."""
        return self.refresh_epochs if self.fakes in GENERATED else 0

    def gan_settings(self) -> GANSettings:
        """How the GAN of generated fakes is trained: ``plain`` ones have no boundary term."""
        return dataclasses.replace(self.gan, beta=0.0) if self.fakes == "plain" else self.gan

    def train_oracle(
        self, data: Dataset, directory: Path | None, resume: bool, callbacks: StageCallbacks
    ) -> keras.Model | None:
        """What decides which fakes count; None: all of them do."""
        del data, directory, resume, callbacks
        return None

    def prepare(
        self,
        classifier: keras.Model,
        data: Dataset,
        directory: Path | None,
        resume: bool,
        callbacks: StageCallbacks,
    ) -> ExtraExamples:
        """See :meth:`RobustTraining.prepare`."""
        if self.fakes == "none":
            return NO_EXTRA
        shares: dict[str, Any] = {"ratio": self.fake_ratio, "weight": self.fake_weight}
        if self.fakes == "duplicates":
            return ExtraExamples(repeated_rows, **shares)
        settings = self.gan_settings()
        judge = self.train_oracle(data, directory, resume, callbacks)
        gan = build_gan(settings, classifier, data, seed=self.seed, devices=self.devices)
        shared: dict[str, Any] = {
            "seed": self.seed,
            "directory": directory / "gan" if directory is not None else None,
        }
        told = callbacks("gan")
        fit_gan(gan, settings, data, resume=resume, callbacks=told, **shared)
        _report(gan, judge)

        def refresh(trainer: RobustTrainer, number: int) -> None:
            against = _Against(trainer.eval_model)
            fit_gan(
                gan,
                settings,
                data,
                more_epochs=number,
                resume=True,
                callbacks=[against, *told],
                **shared,
            )
            if against.begun:
                _report(gan, judge)

        rows = generated_rows(gan, judge)
        return ExtraExamples(rows, **shares, every=self._refreshed(), between=refresh)


class FilteredBoundaryTraining(FilteredExtraSettings, BoundaryTraining):
    """The same where the fakes' classes are learned: an oracle drops those that show another."""

    def train_oracle(
        self, data: Dataset, directory: Path | None, resume: bool, callbacks: StageCallbacks
    ) -> keras.Model | None:
        """The oracle."""
        if not self.oracle_epochs:
            return None
        return train_oracle(
            data,
            epochs=self.oracle_epochs,
            batch_size=self.batch_size,
            seed=self.seed,
            devices=self.devices,
            directory=directory / "oracle" if directory is not None else None,
            resume=resume,
            callbacks=callbacks("oracle"),
        )


class BoundaryPGDTraining(BoundaryPGDSettings, PGDTraining, FilteredBoundaryTraining):
    """BCGAN-AT: ``CE(adversarial real) + lambda CE(adversarial fake)``.

    Both are attacked as in :class:`PGDTraining`; the fakes are labelled with the class ``c`` that
    they were asked for.

    Example:
        >>> defense = BoundaryPGDTraining(eps=0.3, gan=GANSettings(boundary_loss="top2"))
        >>> hardened = defense.harden(classifier, bcgan_tf.load_dataset("mnist"))

    Reference: the form of the loss is that of Liu and Hsieh 2019, "Rob-GAN: Generator,
    Discriminator, and Adversarial Attacker".
    """

    stage_titles: ClassVar[Mapping[str, str]] = {
        **GAN_STAGE_TITLES,
        "bcgan-at": "PGD training on real images and boundary samples",
    }


class BoundaryTRADESTraining(BoundaryTRADESSettings, TRADESTraining, BoundaryTraining):
    """BCGAN-TRADES: fakes enter the divergence alone, which knows no labels.

    ``CE(real) + beta (KL(real) + lambda KL(fake))``, each KL between the answers to an image and to
    its adversarial example.
    """

    stage_titles: ClassVar[Mapping[str, str]] = {
        **GAN_STAGE_TITLES,
        "bcgan-trades": "TRADES on real images and boundary samples",
    }
    extra_in_clean_term: ClassVar[bool] = False


class _Against(keras.callbacks.Callback):
    """Gives a GAN the classifier of now, when its training really begins.

    Not before: a training that resumes first restores the classifier of its checkpoint.
    """

    def __init__(self, classifier: keras.Model) -> None:
        super().__init__()
        self.classifier = classifier
        self.begun = False

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        gan: Any = self.model
        gan.classifier.set_weights(self.classifier.get_weights())
        self.begun = True


def _report(gan: BCGAN, oracle: keras.Model | None) -> None:
    """One line on stderr: how many fakes the oracle leaves."""
    if oracle is None:
        return
    classes = np.arange(_JUDGED) % gan.num_classes
    images = gan.generate(classes, seed=1)
    # Not by `predict`, which Keras does not do for a model of several workers.
    answers = [oracle(images[i : i + 500], training=False) for i in range(0, _JUDGED, 500)]
    kept = np.mean(np.concatenate(answers).argmax(-1) == classes)
    print(
        f"gan: the oracle finds the asked class in {100 * kept:.1f} % of {_JUDGED} fakes",
        file=sys.stderr,
        flush=True,
    )


@contextlib.contextmanager
def _folder(directory: Path | None, *, needed: bool) -> Iterator[Path | None]:
    if directory is not None or not needed:
        yield directory
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)
