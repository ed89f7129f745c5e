"""Interval bound propagation: training for a robustness that can be proved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import keras

from bcgan_tf.certification.interval_bounds import require_bounds
from bcgan_tf.data import Dataset
from bcgan_tf.defenses.boundary_adversarial import GAN_STAGE_TITLES, FilteredBoundaryTraining
from bcgan_tf.defenses.robust_training import RobustTraining
from bcgan_tf.errors import UserError
from bcgan_tf.networks.ibp_initialization import reset_for_ibp
from bcgan_tf.settings.defenses import BoundaryIBPSettings, IBPSettings
from bcgan_tf.training.classifier_trainer import BatchBuilder
from bcgan_tf.training.ibp_trainer import IBPTrainer
from bcgan_tf.training.inner_maximization import InnerMaximization


class IBPTraining(IBPSettings, RobustTraining):
    """Training on interval bounds of the worst logits within eps.

    The loss is ``kappa CE(clean) + (1 - kappa) CE(worst logits)``; kappa falls from 1 while eps
    rises. With ``attack_steps`` the first term is adversarial training's. What comes out has a
    certified accuracy (:func:`bcgan_tf.certified_accuracy`), which no attack can take away; the
    log of every epoch has it beside the clean and the PGD accuracy, and the epoch in which it is
    highest is returned.

    Raises:
        UserError: the classifier has layers without interval bounds; the message names them all.

    Reference: Gowal et al. 2018, "On the Effectiveness of Interval Bound Propagation for Training
    Verifiably Robust Models"; Shi et al. 2021, "Fast Certified Robust Training with Short Warmup",
    for the initial weights; De Palma et al. 2024, "Expressive Losses for Verified Robustness via
    Convex Combinations" (MTL-IBP), for ``attack_steps``.
    """

    stage_titles: ClassVar[Mapping[str, str]] = {"ibp": "Interval bound propagation"}
    monitor: ClassVar[str] = "val_certified_accuracy"

    def check(self, classifier: keras.Model, data: Dataset) -> None:
        """See :meth:`Defense.check`; refuses a classifier that cannot be bounded too."""
        super().check(classifier, data)
        try:
            require_bounds(classifier)
        except UserError as error:
            raise UserError(
                f"{error}; replace what is named, or choose a defense without bounds, such as "
                "pgd-at"
            ) from error

    def make_trainer(
        self, classifier: keras.Model, steps: int, build_batch: BatchBuilder | None
    ) -> IBPTrainer:
        """See :meth:`RobustTraining.make_trainer`."""
        if self.start == "ibp":
            reset_for_ibp(classifier, seed=self.seed)
        return IBPTrainer(
            classifier,
            eps=self.eps,
            training_eps=self.eps_ratio * self.eps,
            kappa=self.kappa,
            attack=InnerMaximization(steps=self.attack_steps) if self.attack_steps else None,
            warmup_steps=round(self.warmup_epochs * steps),
            ramp_steps=round(self.ramp_epochs * steps),
            ema_decay=self.ema_decay,
            seed=self.seed,
            build_batch=build_batch,
        )


class BoundaryIBPTraining(BoundaryIBPSettings, IBPTraining, FilteredBoundaryTraining):
    """BCGAN-IBP: boundary samples in the term of the worst logits, beside the real images.

    ``kappa CE(real) + (1 - kappa) (CE(worst logits of real) + lambda CE(worst logits of fake))``.
    """

    stage_titles: ClassVar[Mapping[str, str]] = {
        **GAN_STAGE_TITLES,
        "bcgan-ibp": "Interval bound propagation on real images and boundary samples",
    }
    extra_in_clean_term: ClassVar[bool] = False
