"""Adversarial examples made on one model, tried on another."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks import checks
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.bounded import BoundedAttack
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.primitives import cross_entropy_gradient, not_inlined


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


def transferred(
    surrogate: Any,
    model: Any,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    eps: float,
    norm: str = "linf",
    batch_size: int = 250,
) -> np.ndarray:
    """bool ``[N]``: right on the clean image, wrong on the example made on the surrogate.

    Args:
        surrogate: a Keras model or a callable whose gradients make the examples.
        model: the one that is judged.
        images: float32 ``[N, ...]`` in [0, 1].
        labels: int ``[N]``, the true classes.
        eps: radius, in [0, 1] pixel units.
        norm: ``"linf"`` or ``"l2"``.
        batch_size: most images at once.
    """
    predict = Batched(checks.as_logits_fn(model), batch_size)
    right = predict(images).argmax(-1) == labels
    broken = np.zeros(len(images), bool)
    for steps in (1, 20):  # one step of 2.5 eps, cut to eps, is FGSM, which transfers well
        made = FullPGD(eps, norm=norm, steps=steps, batch_size=batch_size)
        candidates = made(surrogate, images, labels).adversarials
        broken |= right & (predict(candidates).argmax(-1) != labels)
    return broken
