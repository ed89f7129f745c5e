"""Projected gradient descent."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from bcgan_tf.attacks.bounded import BoundedAttack
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.masked_loop import masked_while_loop
from bcgan_tf.attacks.primitives import (
    cross_entropy_gradient,
    misclassified,
    not_inlined,
    per_example,
)
from bcgan_tf.settings.kinds import Repeats, Steps, StepSize


@dataclasses.dataclass(frozen=True, kw_only=True)
class PGD(BoundedAttack):
    """Repeated gradient steps on the cross entropy, projected back on the ball and on [0, 1].

    The steps and projections are cleverhans' ``optimize_linear`` and ``clip_eta``; the whole loop
    is one graph. An example stops at its first misclassified iterate, which is returned instead of
    the last. The batch shrinks by eighths as examples break, and a restart attacks only the
    survivors of the restarts before.

    Args:
        eps: radius, in units of the [0, 1] pixel range; 0 returns the images.
        step_size: length of a step, same units. None: for Linf ``2.5 * eps / steps`` (Madry et
            al.'s rule of thumb: it can cross the ball, and still settles in it); for L2
            ``10 * eps / steps``, at most ``eps``, because projection turns a random start towards
            the gradient only by a factor of ``e`` for each radius walked: 2.5 radii leave 4
            points more of an MNIST CNN standing at eps = 1.5.
        steps: gradient steps of each restart.
        restarts: random starts per example; the worst one counts.
        random_start: start uniformly in the ball instead of at the image.
        norm: ``"linf"`` or ``"l2"``.
        batch_size: most examples attacked at once.
        seed: of the random starts.

    Raises:
        UserError: if a setting is out of range, or restarts are asked for without random starts.

    Example:
        >>> result = PGD(0.3, steps=40, restarts=5)(classifier, images, labels)
        >>> result.robust_accuracy

    Reference: Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks".
    """

    uses_gradients = True

    step_size: StepSize | None = None
    steps: Steps = 40
    restarts: Repeats = 1
    random_start: bool = True

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.restarts > 1 and not self.random_start:
            yield "restarts without random_start repeat one attack; leave one of them"

    @property
    def name(self) -> str:
        return f"PGD-{self.steps}{self.suffix()}"

    @property
    def rounds(self) -> int:
        return self.restarts

    @property
    def lengths(self) -> dict[str, float]:
        return {"eps": self.eps, "step_size": self.resolved_step_size}

    @property
    def resolved_step_size(self) -> float:
        """The length of a step that is used."""
        if self.step_size is not None:
            return self.step_size
        share = 2.5 / self.steps if self.norm == "linf" else min(10 / self.steps, 1.0)
        return share * self.eps

    def config(self) -> dict[str, Any]:
        return super().config() | {"step_size": self.resolved_step_size}

    def run(
        self,
        logits_fn: LogitsFn,
        images: tf.Tensor,
        labels: tf.Tensor,
        indices: tf.Tensor,
        round_index: tf.Tensor,
    ) -> tf.Tensor:
        start = self.draw_start(images, indices, round_index) if self.random_start else images

        differentiate = not_inlined(functools.partial(cross_entropy_gradient, logits_fn))

        def advance(step: tf.Tensor, state: _State) -> _State:
            del step
            gradient, logits = differentiate(state.x_adv, state.labels)
            moved = state.x_adv + self.ascend(gradient, self.resolved_step_size)
            moved = self.clip_to_ball(state.images, tf.clip_by_value(moved, 0.0, 1.0))
            broken = state.finished | misclassified(logits, state.labels)
            x_adv = tf.where(per_example(broken, images), state.x_adv, moved)
            return state._replace(finished=broken, x_adv=x_adv)

        state = _State(images, labels, finished=tf.zeros_like(labels, tf.bool), x_adv=start)
        return masked_while_loop(advance, state, self.steps)


class _State(NamedTuple):
    """The examples still worked on; ``x_adv`` is the iterate."""

    images: tf.Tensor
    labels: tf.Tensor
    finished: tf.Tensor
    x_adv: tf.Tensor
