"""Adversarial training: FGSM, PGD, TRADES."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import keras

from bcgan_tf.data import Dataset, steps_per_epoch
from bcgan_tf.defenses.defense import Defense, StageCallbacks, copy_classifier
from bcgan_tf.distribute import check_batch_size, scope, strategy
from bcgan_tf.errors import UserError
from bcgan_tf.models.adversarial_trainer import AdversarialTrainer
from bcgan_tf.models.best_weights import BestWeights
from bcgan_tf.models.fitting import fit
from bcgan_tf.models.inner_maximisation import InnerMaximisation


@dataclasses.dataclass(frozen=True, kw_only=True)
class PGDTraining(Defense):
    """Training on the adversarial examples of the network as it is at each step.

    The log of every epoch has the clean and the robust accuracy on the validation split, and the
    epoch of the highest robust accuracy is what is returned: an overfitting to the attack
    (catastrophic: within an epoch; robust: slowly) is seen and costs nothing.

    Args:
        eps: Linf radius, in [0, 1] pixel units.
        steps: of the attack in training.
        step_ratio: length of its step in units of eps; None: ``2.5 / steps``.
        ramp_epochs: epochs over which eps rises from 0. Without it a small network on MNIST at
            eps 0.3 answers the same to all images, from the first epoch to the last.
        clean_weight: weight of the clean images' loss, in [0, 1).
        epochs: of training.
        batch_size: global.
        learning_rate: Adam's; constant, and falling linearly to 0 from half-way on.
        average_decay: of the moving average of the weights that is validated and returned; 0: off.
        validation_samples: images of the validation split that are attacked after each epoch.

    Example:
        >>> hardened = PGDTraining(eps=0.3).harden(classifier, bcgan_tf.load("mnist"))

    Reference: Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks";
    the rise of eps and the falling learning rate are this package's, measured in docs/.
    """

    name: ClassVar[str] = "pgd-at"

    eps: float = 0.3
    steps: int = 7
    step_ratio: float | None = None
    ramp_epochs: float = 4.0
    clean_weight: float = 0.0
    epochs: int = 16
    batch_size: int = 128
    learning_rate: float = 1e-3
    average_decay: float = 0.0
    validation_samples: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.eps <= 1:
            raise UserError(f"eps is {self.eps}; pixels lie in [0, 1], so choose within (0, 1]")
        if not 0 <= self.clean_weight < 1:
            raise UserError(f"clean_weight is {self.clean_weight}; choose 0 or more, less than 1")
        for field in ("steps", "epochs", "batch_size", "validation_samples"):
            if getattr(self, field) < 1:
                raise UserError(f"{field} is {getattr(self, field)}; choose at least 1")

    @property
    def attack(self) -> InnerMaximisation:
        """The inner maximisation."""
        return InnerMaximisation(steps=self.steps, step_ratio=self.step_ratio)

    def trainer_options(self) -> dict[str, Any]:
        """What distinguishes the kinds of adversarial training, for the trainer."""
        return {"clean_weight": self.clean_weight}

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
        trainer = self.build_trainer(classifier, data)
        folder = directory / self.name if directory is not None else None
        best = BestWeights("val_robust_accuracy", folder)
        fit(
            trainer,
            data.train,
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=self.seed,
            validation=data.validation.take(self.validation_samples, seed=0),
            directory=folder,
            resume=resume,
            callbacks=[*callbacks(self.name), best],
        )
        best.restore(trainer.judged)
        trainer.judged.trainable = True
        return trainer.judged

    def build_trainer(self, classifier: keras.Model, data: Dataset) -> AdversarialTrainer:
        """The compiled trainer of a copy of ``classifier``."""
        chosen = strategy(self.devices)
        check_batch_size(self.batch_size, chosen)
        steps = steps_per_epoch(data.train, self.batch_size)
        with scope(chosen):
            hardened = copy_classifier(classifier)
            hardened.trainable = True
            trainer = AdversarialTrainer(
                hardened,
                eps=self.eps,
                attack=self.attack,
                ramp_steps=round(self.ramp_epochs * steps),
                average_decay=self.average_decay,
                seed=self.seed,
                **self.trainer_options(),
            )
            half = self.epochs * steps // 2
            schedule = _ConstantThenLinear(self.learning_rate, half, self.epochs * steps)
            trainer.compile(keras.optimizers.Adam(schedule))
        return trainer


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

    steps: int = 1
    step_ratio: float | None = 1.0
    clean_weight: float = 0.5

    @property
    def attack(self) -> InnerMaximisation:
        """One step from the image itself."""
        return InnerMaximisation(steps=self.steps, step_ratio=self.step_ratio, start="none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TRADES(PGDTraining):
    """Cross entropy on clean images plus a divergence that keeps the answers around them equal.

    Args:
        beta: weight of the divergence; 1 on MNIST, 6 on CIFAR-10.

    Reference: Zhang et al. 2019, "Theoretically Principled Trade-off between Robustness and
    Accuracy".
    """

    name: ClassVar[str] = "trades"

    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta <= 0:
            raise UserError(
                f"beta is {self.beta}; choose more than 0 (0 is training on clean data)"
            )
        if self.clean_weight:
            raise UserError("TRADES has no clean_weight: its first term is the clean loss already")

    @property
    def attack(self) -> InnerMaximisation:
        """From the image and a little noise: at the image itself the divergence has no slope."""
        return InnerMaximisation(steps=self.steps, step_ratio=self.step_ratio, start="normal")

    def trainer_options(self) -> dict[str, Any]:
        """The weight of the divergence."""
        return {"trades_beta": self.beta}


@keras.saving.register_keras_serializable(package="bcgan_tf")
class _ConstantThenLinear(keras.optimizers.schedules.LearningRateSchedule):
    """Constant up to a step, then falling linearly, to 0 at the last."""

    def __init__(self, learning_rate: float, constant_steps: int, steps: int) -> None:
        self.learning_rate = learning_rate
        self.constant_steps = constant_steps
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        step = keras.ops.cast(step, "float32")
        left = (self.steps - step) / max(1, self.steps - self.constant_steps)
        return self.learning_rate * keras.ops.clip(left, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
        return {
            "learning_rate": self.learning_rate,
            "constant_steps": self.constant_steps,
            "steps": self.steps,
        }
