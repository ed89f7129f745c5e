"""What the trainings for a radius share: its rise, the schedule, the batches, the best epoch."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np

from bcgan_tf.data import Dataset, steps_per_epoch
from bcgan_tf.defenses.defense import Defense, StageCallbacks, cast, copy_classifier, restore_dtype
from bcgan_tf.defenses.extra_rows import NO_EXTRA, ExtraExamples, batches
from bcgan_tf.distribute.strategies import scope, strategy
from bcgan_tf.errors import UserError
from bcgan_tf.settings.defenses import RobustSettings
from bcgan_tf.training.augmentation import AUGMENTATIONS
from bcgan_tf.training.checkpoints import BestWeights
from bcgan_tf.training.classifier_trainer import BatchBuilder
from bcgan_tf.training.fit import fit
from bcgan_tf.training.robust_trainer import RobustTrainer
from bcgan_tf.training.schedules import ConstantThenLinear


class RobustTraining(RobustSettings, Defense):
    """Training for a Linf radius; the epoch that is best on the validation split is returned."""

    # In the logs; higher is better.
    monitor: ClassVar[str] = "val_robust_accuracy"
    # Whether extra rows count in the first term of a loss of two.
    extra_in_clean_term: ClassVar[bool] = True

    @abc.abstractmethod
    def make_trainer(
        self, classifier: keras.Model, steps: int, build_batch: BatchBuilder | None
    ) -> RobustTrainer:
        """The trainer of ``classifier`` itself, ``steps`` to an epoch, not compiled."""

    def make_optimizer(self, steps: int) -> keras.optimizers.Optimizer:
        """Adam, for a training of ``steps``."""
        return keras.optimizers.Adam(ConstantThenLinear(self.learning_rate, steps // 2, steps))

    def check_data(self, data: Dataset) -> None:
        """See :meth:`Defense.check_data`.

        Raises:
            UserError: too where vectors are to be shifted, or lie outside [0, 1].
        """
        super().check_data(data)
        examples = data.train.images
        if examples.dtype != np.uint8:  # those are scaled to [0, 1]
            low, high = float(examples.min()), float(examples.max())
            if low < 0 or high > 1:
                raise UserError(
                    f"{self.name} defends within [0, 1], and the examples lie in [{low:.3g}, "
                    f"{high:.3g}]; rescale them, and let the model do its own normalisation inside"
                )
        if self.augment != "none" and len(data.image_shape) != 3:
            raise UserError(f"augment={self.augment} moves images; choose augment=none for vectors")

    def batch_sizes(self) -> tuple[int, ...]:
        """See :meth:`Defense.batch_sizes`."""
        return (self.batch_size,)

    def run(
        self,
        classifier: keras.Model,
        data: Dataset,
        *,
        directory: Path | None,
        resume: bool,
        callbacks: StageCallbacks,
    ) -> keras.Model:
        """See :meth:`Defense.harden`."""
        added = self.prepare(classifier, data, directory, resume, callbacks)
        trainer = self.build_trainer(classifier, data, added)
        best = self.fit_and_restore_best(
            trainer, data, added, directory=directory, resume=resume, callbacks=callbacks
        )
        return restore_dtype(classifier, best, self.dtype)

    def prepare(
        self,
        classifier: keras.Model,
        data: Dataset,
        directory: Path | None,
        resume: bool,
        callbacks: StageCallbacks,
    ) -> ExtraExamples:
        """Trains what the training needs beside the classifier, and says what it adds to it."""
        del classifier, data, directory, resume, callbacks
        return NO_EXTRA

    def build_trainer(
        self,
        classifier: keras.Model,
        data: Dataset,
        added: ExtraExamples = NO_EXTRA,
    ) -> RobustTrainer:
        """The compiled trainer of a copy of ``classifier``.

        Args:
            classifier: trained; left untouched.
            data: its training split gives the steps of an epoch.
            added: rows beside the real ones.
        """
        chosen = strategy(self.devices)
        steps = steps_per_epoch(data.train, self.batch_size)
        build_batch = batches(
            added,
            clean_term=self.extra_in_clean_term,
            augment=AUGMENTATIONS[self.augment],
        )
        with scope(chosen):
            hardened = cast(copy_classifier(classifier), self.dtype)
            trainer = self.make_trainer(hardened, steps, build_batch)
            trainer.compile(self.make_optimizer(self.epochs * steps))
        return trainer

    def fit_and_restore_best(
        self,
        trainer: RobustTrainer,
        data: Dataset,
        added: ExtraExamples,
        *,
        directory: Path | None,
        resume: bool,
        callbacks: StageCallbacks,
    ) -> keras.Model:
        """Trains to the end and gives the classifier of the best epoch.

        Args:
            trainer: of :meth:`build_trainer`.
            data: its training and validation splits.
            added: what happens between the parts of the training.
            directory: the training keeps its checkpoints in a folder within; needed by a training
                in parts, which are several calls of ``fit``.
            resume: go on from what ``directory`` holds.
            callbacks: as of :meth:`Defense.harden`.
        """
        folder = directory / self.name if directory is not None else None
        best = BestWeights(self.monitor)
        own = [*callbacks(self.name), best]
        validation = data.validation.take(self.validation_samples, seed=0)
        every = added.every
        stops = [*range(every, self.epochs, every), self.epochs] if every else [self.epochs]
        for number, stop in enumerate(stops):
            if number and added.between is not None:
                added.between(trainer, number)
            fit(
                trainer,
                data.train,
                epochs=stop,
                batch_size=self.batch_size,
                seed=self.seed,
                validation=validation,
                directory=folder,
                resume=resume or number > 0,
                callbacks=own,
            )
        best.restore(trainer.eval_model)
        return trainer.eval_model
