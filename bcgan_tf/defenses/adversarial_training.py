"""Adversarial training: FGSM, PGD, TRADES."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import keras

from bcgan_tf.defenses.robust_training import RobustTraining
from bcgan_tf.settings.kinds import BelowOne, PositiveWeight, StepRatio, Steps
from bcgan_tf.training.adversarial_trainer import AdversarialTrainer
from bcgan_tf.training.classifier_trainer import BatchBuilder
from bcgan_tf.training.inner_maximization import InnerMaximization


@dataclasses.dataclass(frozen=True, kw_only=True)
class PGDTraining(RobustTraining):
    """Training on the adversarial examples of the network as it is at each step.

    The log of every epoch has the clean and the robust accuracy on the validation split, and the
    epoch of the highest robust accuracy is what is returned: an overfitting to the attack
    (catastrophic: within an epoch; robust: slowly) is seen and costs nothing.

    The settings of eps, of its rise (without it a small network on MNIST at eps 0.3 answers the
    same to all images, from the first epoch to the last), and of the training are those of
    :class:`bcgan_tf.defenses.robust_training.RobustTraining`.

    Args:
        steps: of the attack in training.
        step_ratio: length of its step in units of eps; None: ``2.5 / steps``.
        clean_weight: weight of the clean images' loss, in [0, 1).

    Example:
        >>> hardened = PGDTraining(eps=0.3).harden(classifier, bcgan_tf.load("mnist"))

    Reference: Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks";
    the rise of eps and the falling learning rate are this package's, measured in docs/.
    """

    name: ClassVar[str] = "pgd-at"
    stage_titles: ClassVar[Mapping[str, str]] = {"pgd-at": "PGD training"}

    steps: Steps = 7
    step_ratio: StepRatio | None = None
    clean_weight: BelowOne = 0.0

    @property
    def attack(self) -> InnerMaximization:
        """The inner maximisation."""
        return InnerMaximization(steps=self.steps, step_ratio=self.step_ratio)

    def trainer_options(self) -> dict[str, Any]:
        """What distinguishes the kinds of adversarial training, for the trainer."""
        return {"clean_weight": self.clean_weight}

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class FGSMTraining(PGDTraining):
    """Adversarial training with one step of eps and no random start, mixed 1:1 with clean images.

    Goodfellow's form, and the paper's baseline. It overfits to its attack: the network bends its
    gradient instead of its decisions, the one-step accuracy rises to nearly 100 % and PGD breaks
    everything. That is what it is here to show; the best epoch on the validation split, attacked
    with 20 steps, is returned all the same.

    Reference: Goodfellow, Shlens, Szegedy 2015, section 6.
    """

    name: ClassVar[str] = "fgsm-at"
    stage_titles: ClassVar[Mapping[str, str]] = {"fgsm-at": "FGSM training"}

    steps: Steps = 1
    step_ratio: StepRatio | None = 1.0
    clean_weight: BelowOne = 0.5

    @property
    def attack(self) -> InnerMaximization:
        """One step from the image itself."""
        return InnerMaximization(steps=self.steps, step_ratio=self.step_ratio, start="none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TRADESTraining(PGDTraining):
    """Cross entropy on clean images plus a divergence that keeps the answers around them equal.

    Args:
        beta: weight of the divergence; 1 on MNIST, 6 on CIFAR-10.

    Reference: Zhang et al. 2019, "Theoretically Principled Trade-off between Robustness and
    Accuracy".
    """

    name: ClassVar[str] = "trades"
    stage_titles: ClassVar[Mapping[str, str]] = {"trades": "TRADES"}

    beta: PositiveWeight = 1.0

    def conflicts(self) -> Iterator[str]:
        """See :meth:`Checked.conflicts`."""
        yield from super().conflicts()
        if self.clean_weight:
            yield "TRADES has no clean_weight: its first term is the clean loss already"

    @property
    def attack(self) -> InnerMaximization:
        """From the image and a little noise: at the image itself the divergence has no slope."""
        return InnerMaximization(steps=self.steps, step_ratio=self.step_ratio, start="normal")

    def trainer_options(self) -> dict[str, Any]:
        """The weight of the divergence."""
        return {"trades_beta": self.beta}
