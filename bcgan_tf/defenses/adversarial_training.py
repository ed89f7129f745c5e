"""Adversarial training: FGSM, PGD, TRADES."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import keras

from bcgan_tf.defenses.robust_training import RobustTraining
from bcgan_tf.settings.defenses import FGSMSettings, PGDSettings, TRADESSettings
from bcgan_tf.training.adversarial_trainer import AdversarialTrainer
from bcgan_tf.training.classifier_trainer import BatchBuilder
from bcgan_tf.training.inner_maximization import InnerMaximization


class PGDTraining(PGDSettings, RobustTraining):
    """Training on the adversarial examples of the network as it is at each step.

    The log of every epoch has the clean and the robust accuracy on the validation split, and the
    epoch of the highest robust accuracy is what is returned: an overfitting to the attack
    (catastrophic: within an epoch; robust: slowly) is seen and costs nothing.

    Without the rise of eps a small network on MNIST at eps 0.3 answers the same to all images, from
    the first epoch to the last.

    Example:
        >>> hardened = PGDTraining(eps=0.3).harden(classifier, bcgan_tf.load_dataset("mnist"))

    Reference: Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks";
    the rise of eps and the falling learning rate are this package's, measured in docs/.
    """

    stage_titles: ClassVar[Mapping[str, str]] = {"pgd-at": "PGD training"}

    @property
    def attack(self) -> InnerMaximization:
        """The inner maximisation; a path that is learned from begins at the image itself."""
        start = "none" if self.accumulate else "uniform"
        return InnerMaximization(steps=self.steps, step_ratio=self.step_ratio, start=start)

    def trainer_options(self) -> dict[str, Any]:
        """What distinguishes the kinds of adversarial training, for the trainer."""
        return {"clean_weight": self.clean_weight, "accumulate": self.accumulate}

    def make_trainer(
        self, classifier: keras.Model, steps: int, build_batch: BatchBuilder | None
    ) -> AdversarialTrainer:
        """See :meth:`RobustTraining.make_trainer`."""
        return AdversarialTrainer(
            classifier,
            eps=self.eps,
            training_eps=self.eps_ratio * self.eps,
            attack=self.attack,
            ramp_steps=round(self.ramp_epochs * steps),
            ema_decay=self.ema_decay,
            seed=self.seed,
            build_batch=build_batch,
            **self.trainer_options(),
        )


class FGSMTraining(FGSMSettings, PGDTraining):
    """Adversarial training with one step of eps and no random start, mixed 1:1 with clean images.

    Goodfellow's form, and the paper's baseline. It overfits to its attack: the network bends its
    gradient instead of its decisions, the one-step accuracy rises to nearly 100 % and PGD breaks
    everything. That is what it is here to show; the best epoch on the validation split, attacked
    with 20 steps, is returned all the same.

    Reference: Goodfellow, Shlens, Szegedy 2015, section 6.
    """

    stage_titles: ClassVar[Mapping[str, str]] = {"fgsm-at": "FGSM training"}

    @property
    def attack(self) -> InnerMaximization:
        """One step from the image itself."""
        return InnerMaximization(steps=self.steps, step_ratio=self.step_ratio, start="none")


class TRADESTraining(TRADESSettings, PGDTraining):
    """Cross entropy on clean images plus a divergence that keeps the answers around them equal.

    Reference: Zhang et al. 2019, "Theoretically Principled Trade-off between Robustness and
    Accuracy".
    """

    stage_titles: ClassVar[Mapping[str, str]] = {"trades": "TRADES"}

    @property
    def attack(self) -> InnerMaximization:
        """From the image and a little noise: at the image itself the divergence has no slope."""
        return InnerMaximization(steps=self.steps, step_ratio=self.step_ratio, start="normal")

    def trainer_options(self) -> dict[str, Any]:
        """The weight of the divergence."""
        return {"trades_beta": self.beta}
