"""A model under diagnosis: its images, and the attacks that several checks share."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from bcgan_tf.attacks import checks
from bcgan_tf.attacks.apgd import APGD
from bcgan_tf.attacks.attack import Attack, AttackResult, deciding_settings
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.fgsm import FGSM
from bcgan_tf.attacks.logits import median_gap
from bcgan_tf.attacks.pgd import PGD
from bcgan_tf.attacks.preprocessing import AdaptiveAPGD
from bcgan_tf.evaluation.robust_accuracy import Evaluation


@dataclasses.dataclass(eq=False)
class Subject:
    """A model, ``n`` images, and a threat model.

    Attributes:
        model: in a form that every attack accepts.
        images: float32 ``[n, ...]`` in [0, 1].
        labels: int64 ``[n]``.
        eps: radius in [0, 1] pixel units.
        norm: ``"linf"`` or ``"l2"``.
        seed: of all draws.
        batch_size: most images at once.
        calls: model calls that one answer takes; above 1 for a stochastic model.
        evaluation: finished attacks on these images and those after them, or None.
        no_gradient: the model has none, and no stand-in: comparing gradient attacks says nothing.
        through_preprocessing: ``model`` is a view of a network through its preprocessing.
    """

    model: Any
    images: np.ndarray
    labels: np.ndarray
    eps: float
    norm: str
    seed: int
    batch_size: int
    calls: int = 1
    evaluation: Evaluation | None = None
    no_gradient: bool = False
    through_preprocessing: bool = False

    def __post_init__(self) -> None:
        self._survivors: dict[Attack, np.ndarray] = {}
        self.predict = Batched(checks.as_logits_fn(self.model), self.batch_size)
        self.logits = self.predict(self.images)
        checks.check_logits(self.logits, self.labels)
        self.right = self.logits.argmax(-1) == self.labels

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def shared(self) -> dict[str, Any]:
        """The options that every attack within a ball gets."""
        return {"norm": self.norm, "seed": self.seed, "batch_size": self.batch_size}

    @functools.cached_property
    def whole(self) -> float:
        """The radius that reaches every image in [0, 1]."""
        return 1.0 if self.norm == "linf" else math.sqrt(math.prod(self.images.shape[1:]))

    @property
    def half(self) -> float:
        """The radius that reaches the grey image, and so one and the same point, from anywhere."""
        return self.whole / 2

    @functools.cached_property
    def gap(self) -> float:
        """Median of the largest minus the second-largest logit."""
        return median_gap(self.logits)

    def fgsm(self) -> FGSM:
        """One step."""
        return FGSM(self.eps, **self.shared)

    def pgd(self, eps: float | None = None) -> PGD:
        """Forty steps on the cross entropy."""
        return PGD(self.eps if eps is None else eps, **self.shared)

    def apgd(self, eps: float | None = None, *, loss: str = "ce") -> APGD:
        """A hundred steps that choose their own size."""
        # Another name: the evaluation's plain APGD is not this attack.
        kind = AdaptiveAPGD if self.through_preprocessing else APGD
        return kind(self.eps if eps is None else eps, loss=loss, **self.shared)

    def attack(self, attack: Attack, mask: np.ndarray | None = None) -> AttackResult:
        """Runs an attack on these images."""
        return attack(self.model, self.images, self.labels, mask=mask)

    def survivors(self, attack: Attack) -> np.ndarray:
        """bool ``[n]``: right, and still right after the attack; each attack is run once."""
        if attack not in self._survivors:
            known = self._from_evaluation(attack)
            self._survivors[attack] = self.attack(attack).robust if known is None else known
        return self._survivors[attack]

    def _from_evaluation(self, attack: Attack) -> np.ndarray | None:
        """What the evaluation found, where the very same attack was run on all images there."""
        if self.evaluation is None:
            return None
        if self.through_preprocessing and not isinstance(attack, AdaptiveAPGD):
            return None  # there it followed the network's own gradient
        settings = deciding_settings(attack.config())
        for result in self.evaluation.results:
            complete = bool((result.attacked == result.clean_correct).all())
            same = result.attack == attack.name and deciding_settings(result.config) == settings
            if same and complete:
                return result.robust[: self.n]
        return None

    @functools.cached_property
    def gradient_survivors(self) -> np.ndarray:
        """bool ``[n]``: what all gradient attacks within eps left, the evaluation's included."""
        left = np.logical_and.reduce(
            [
                self.survivors(attack)
                for attack in (self.fgsm(), self.pgd(), self.apgd(), self.apgd(loss="dlr"))
            ]
        )
        for result in gradient_results(self.evaluation):
            assert self.evaluation is not None
            left = left & ~self.evaluation.broken_by(result, self.eps)[: self.n]
        return left


def gradient_results(evaluation: Evaluation | None) -> list[AttackResult]:
    """The results of attacks that follow gradients."""
    if evaluation is None:
        return []
    return [r for r in evaluation.results if r.uses_gradients]


def black_box_results(evaluation: Evaluation | None) -> list[AttackResult]:
    """The results of attacks that ask for logits alone."""
    if evaluation is None:
        return []
    return [r for r in evaluation.results if not r.uses_gradients]
