"""Adversarial examples made on one model, tried on another."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.bounded import BoundedAttack
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.primitives import cross_entropy_gradient, not_inlined
from bcgan_tf.evaluation.task import EvaluationTask


@dataclasses.dataclass(frozen=True, kw_only=True)
class FullPGD(BoundedAttack):
    """Gradient ascent that goes on after the model is wrong: its examples are to transfer.

    An attack that stops at the first misclassified point ends just across the boundary of the
    model it was made on, and another model's boundary lies elsewhere.

    Args:
        eps: radius, in [0, 1] pixel units.
        steps: gradient steps of length ``2.5 * eps / steps``, from the image.
        norm: ``"linf"`` or ``"l2"``.
    """

    uses_gradients = True

    steps: int = 20

    @property
    def name(self) -> str:
        return f"FullPGD-{self.steps}{self.suffix()}"

    def run(
        self,
        logits_fn: LogitsFn,
        images: tf.Tensor,
        labels: tf.Tensor,
        indices: tf.Tensor,
        round_index: tf.Tensor,
    ) -> tf.Tensor:
        differentiate = not_inlined(functools.partial(cross_entropy_gradient, logits_fn))

        def advance(step: tf.Tensor, iterates: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            gradient, _ = differentiate(iterates, labels)
            moved = iterates + self.ascend(gradient, 2.5 * self.eps / self.steps)
            return step + 1, self.clip_to_ball(images, tf.clip_by_value(moved, 0.0, 1.0))

        start = (tf.constant(0), images)
        final: Any = tf.while_loop(lambda step, _: step < self.steps, advance, start)
        return final[1]


def transferred(task: EvaluationTask, surrogate: EvaluationTask) -> np.ndarray:
    """bool ``[N]``: right on the clean image, wrong on the example made on the surrogate.

    Args:
        task: the model that is judged, and the radius.
        surrogate: the same images, and the model whose gradients make the examples.
    """
    broken = np.zeros(task.n, bool)
    for steps in (1, 20):  # one step of 2.5 eps, cut to eps, is FGSM, which transfers well
        attack = FullPGD(task.radius, norm=task.norm, steps=steps, batch_size=task.batch_size)
        candidates = surrogate.attack(attack).adversarials
        broken |= task.correct & (task.predict(candidates).argmax(-1) != task.labels)
    return broken
