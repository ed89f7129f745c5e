"""The attacks that several checks share, each run once."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from bcgan_tf.attacks.apgd import APGD
from bcgan_tf.attacks.attack import Attack, deciding_settings
from bcgan_tf.attacks.fgsm import FGSM
from bcgan_tf.attacks.pgd import PGD
from bcgan_tf.attacks.preprocessing import AdaptiveAPGD
from bcgan_tf.attacks.result import AttackResult
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.task import EvaluationTask


class SharedAttacks:
    """Attacks on one task, with what a finished evaluation knows already.

    Args:
        task: the model and the images that are looked at.
        evaluation: finished attacks on these images and others, or None.
        rows: int ``[n]``, positions of the task's images in the evaluation; None: the first ``n``.
        no_gradient: the model has none, and no stand-in: comparing gradient attacks says nothing.
        through: the task's logits are those of a network through its preprocessing.
    """

    def __init__(
        self,
        task: EvaluationTask,
        evaluation: Evaluation | None = None,
        rows: np.ndarray | None = None,
        *,
        no_gradient: bool = False,
        through: bool = False,
    ) -> None:
        self.task, self.evaluation = task, evaluation
        self.rows = np.arange(task.n) if rows is None else rows
        self.no_gradient, self.through = no_gradient, through
        self._survivors: dict[Attack, np.ndarray] = {}

    def of_logits(self, attacked: Any) -> SharedAttacks:
        """The same checks on other logits, of which no evaluation knows anything."""
        return SharedAttacks(
            self.task.with_logits(attacked),
            None,
            self.rows,
            no_gradient=self.no_gradient,
            through=self.through,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """The options that every attack within a ball gets."""
        task = self.task
        return {"norm": task.norm, "seed": task.seed, "batch_size": task.batch_size}

    def fgsm(self) -> FGSM:
        """One step."""
        return FGSM(self.task.radius, **self.settings)

    def pgd(self, eps: float | None = None) -> PGD:
        """Forty steps on the cross entropy."""
        return PGD(self.task.radius if eps is None else eps, **self.settings)

    def apgd(self, eps: float | None = None, *, loss: str = "ce") -> APGD:
        """A hundred steps that choose their own size."""
        # Another name: the evaluation's plain APGD is not this attack.
        kind = AdaptiveAPGD if self.through else APGD
        return kind(self.task.radius if eps is None else eps, loss=loss, **self.settings)

    def survivors(self, attack: Attack) -> np.ndarray:
        """bool ``[n]``: right, and still right after the attack; each attack is run once."""
        if attack not in self._survivors:
            known = self._from_evaluation(attack)
            self._survivors[attack] = self.task.attack(attack).robust if known is None else known
        return self._survivors[attack]

    def _from_evaluation(self, attack: Attack) -> np.ndarray | None:
        """What the evaluation found, where the very same attack was run on all images there."""
        if self.evaluation is None:
            return None
        if self.through and not isinstance(attack, AdaptiveAPGD):
            return None  # there it followed the network's own gradient
        settings = deciding_settings(attack.config())
        for result in self.evaluation.results:
            complete = bool((result.attacked == result.clean_correct).all())
            same = result.attack == attack.name and deciding_settings(result.config) == settings
            if same and complete:
                return result.robust[self.rows]
        return None

    @functools.cached_property
    def gradient_survivors(self) -> np.ndarray:
        """bool ``[n]``: what all gradient attacks within eps left, the evaluation's included."""
        attacks = (self.fgsm(), self.pgd(), self.apgd(), self.apgd(loss="dlr"))
        left = np.logical_and.reduce([self.survivors(attack) for attack in attacks])
        for result in results_of(self.evaluation, uses_gradients=True):
            assert self.evaluation is not None
            left = left & ~self.evaluation.broken_by(result, self.task.eps)[self.rows]
        return left


def results_of(evaluation: Evaluation | None, *, uses_gradients: bool) -> list[AttackResult]:
    """The results of attacks that follow gradients, or of those that do not."""
    results = () if evaluation is None else evaluation.results
    return [result for result in results if result.uses_gradients == uses_gradients]
