"""Defensive distillation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import keras

from bcgan_tf.data import Dataset
from bcgan_tf.defenses.defense import Defense, StageCallbacks, cast, copy_classifier, restore_dtype
from bcgan_tf.distribute.strategies import scope, strategy
from bcgan_tf.networks.copies import clone_reinitialized
from bcgan_tf.settings.defenses import DistillationSettings
from bcgan_tf.training.distillation_trainer import DistillationTrainer
from bcgan_tf.training.fit import fit


class DistillationTraining(DistillationSettings, Defense):
    """A student learns a teacher's soft answers at a high temperature, and is used at 1.

    Three stages: an initialisation (the architecture anew, briefly trained as usual, because at
    T = 100 a fresh network barely begins to learn), a teacher from it on ``logits / T``, and a
    student, from the same initialisation, on ``softmax(teacher / T)``.

    It is here as the paper's baseline and as a known case of gradient masking: logits about T
    times larger leave the cross entropy no gradient, and attacks on ``logits / T`` or on a margin
    break it. It adds no robustness.

    Reference: Papernot et al. 2016, "Distillation as a Defense to Adversarial Perturbations
    against Deep Neural Networks"; the protocol is that of Carlini and Wagner 2017.
    """

    stage_titles: ClassVar[Mapping[str, str]] = {
        "distillation-start": "Initial weights",
        "distillation-teacher": "Teacher",
        "distillation-student": "Student",
    }

    def batch_sizes(self) -> tuple[int, ...]:
        """Of all stages; see :meth:`Defense.batch_sizes`."""
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
        chosen = strategy(self.devices)

        def trained(
            stage: str,
            start: keras.Model,
            *,
            epochs: int,
            temperature: float,
            teacher: keras.Model | None = None,
        ) -> keras.Model:
            with scope(chosen):
                network = copy_classifier(start)
                trainer = DistillationTrainer(
                    network, temperature=temperature, teacher=teacher, seed=self.seed
                )
                trainer.compile(
                    keras.optimizers.SGD(self.learning_rate, momentum=0.9, nesterov=True)
                )
            fit(
                trainer,
                data.train,
                epochs=epochs,
                batch_size=self.batch_size,
                seed=self.seed,
                validation=data.validation,
                directory=directory / stage if directory is not None else None,
                resume=resume,
                callbacks=callbacks(stage),
            )
            return network

        keras.utils.set_random_seed(self.seed)
        with scope(chosen):
            fresh = cast(clone_reinitialized(classifier), self.dtype)
        initial = trained("distillation-start", fresh, epochs=self.initial_epochs, temperature=1.0)
        teacher = trained(
            "distillation-teacher", initial, epochs=self.epochs, temperature=self.temperature
        )
        teacher.trainable = False
        student = trained(
            "distillation-student",
            initial,
            epochs=self.epochs,
            temperature=self.temperature,
            teacher=teacher,
        )
        return restore_dtype(classifier, student, self.dtype)
