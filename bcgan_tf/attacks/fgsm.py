"""The fast gradient sign method."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from bcgan_tf.attacks.bounded import BoundedAttack
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.primitives import cross_entropy_gradient


@dataclasses.dataclass(frozen=True)
class FGSM(BoundedAttack):
    """One step of length ``eps`` along the sign of the gradient (L2: along the gradient).

    ``x' = clip(x + eps * sign(grad_x CE(logits(x), y)), 0, 1)`` with the true label ``y``, by
    cleverhans' ``compute_gradient`` and ``optimize_linear``.

    Args:
        eps: radius, in units of the [0, 1] pixel range; 0 returns the images.
        norm: ``"linf"`` or ``"l2"``.
        batch_size: most examples attacked at once.
        seed: unused: the attack draws nothing.

    Raises:
        UserError: if a setting is out of range.

    Example:
        >>> result = FGSM(0.1)(classifier, images, labels)
        >>> result.robust_accuracy

    Reference: Goodfellow, Shlens, Szegedy 2015, "Explaining and Harnessing Adversarial Examples".
    """

    uses_gradients = True

    @property
    def name(self) -> str:
        return f"FGSM{self.suffix()}"

    def run(
        self,
        logits_fn: LogitsFn,
        images: tf.Tensor,
        labels: tf.Tensor,
        indices: tf.Tensor,
        round_index: tf.Tensor,
    ) -> tf.Tensor:
        gradient, _ = cross_entropy_gradient(logits_fn, images, labels)
        return tf.clip_by_value(images + self.ascend(gradient, self.eps), 0.0, 1.0)
