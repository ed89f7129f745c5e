"""The attack inside adversarial training: a fixed number of steps on a whole batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated

import tensorflow as tf

from bcgan_tf import randomness
from bcgan_tf.attacks.primitives import not_inlined, per_example, require_gradient
from bcgan_tf.settings.fields import Checked, OneOf
from bcgan_tf.settings.kinds import Norm, StepRatio, Steps

# Logits to a per-example loss [B] that the attack raises.
Objective = Callable[[tf.Tensor], tf.Tensor]
STARTS = ("uniform", "normal", "none")
_NORMAL_START = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class InnerMaximization(Checked):
    """Projected gradient ascent within a ball, for training.

    Unlike the attack :class:`bcgan_tf.attacks.PGD`, every example takes every step (also one that
    is already misclassified), eps is a tensor, so that it can grow during training, and the draws
    come from a stateless seed.

    Args:
        steps: gradient steps; 1 with ``start="none"`` and ``step_ratio=1`` is FGSM.
        step_ratio: length of a step in units of eps; None: ``2.5 / steps``.
        start: ``"uniform"`` in the ball, ``"normal"`` (0.001 N(0, 1), as in TRADES), or
            ``"none"``, at the image.
        norm: of the ball, ``"linf"`` or ``"l2"``.

    Raises:
        UserError: if a setting is out of range.

    Reference: Madry et al. 2018, eq. 2.1 and section 2.1.
    """

    steps: Steps = 7
    step_ratio: StepRatio | None = None
    start: Annotated[str, OneOf(*STARTS)] = "uniform"
    norm: Norm = "linf"

    def __call__(
        self,
        logits_fn: Callable[[tf.Tensor], tf.Tensor],
        images: tf.Tensor,
        eps: tf.Tensor,
        objective: Objective,
        seed: tf.Tensor,
        *,
        prepare: Callable[[tf.Tensor], tf.Tensor] | None = None,
        whole_path: bool = False,
    ) -> tf.Tensor:
        """Adversarial examples.

        Args:
            logits_fn: images to logits ``[B, K]``.
            images: float32 ``[B, ...]`` in [0, 1].
            eps: float32 scalar, the ball's radius.
            objective: raised by the attack; a function of the logits.
            seed: stateless, int32 ``[2]``; replicas share it and get their part of one draw.
            prepare: monotone preprocessing of the pixels, applied before ``logits_fn``; see
                :func:`bcgan_tf.attacks.preprocessing.monotone_preprocessing`. The attack then moves
                within the preprocessed Linf ball, with steps in units of half its width.
            whole_path: return the start and what each step led to.

        Returns:
            float32 ``[B, ...]`` in [0, 1], within ``eps`` of the images, prepared where there is
            ``prepare``; no gradient flows back. With ``whole_path`` ``[steps + 1, B, ...]``.
        """
        ratio = 2.5 / self.steps if self.step_ratio is None else self.step_ratio
        low, high = tf.maximum(images - eps, 0.0), tf.minimum(images + eps, 1.0)
        reach, middle = eps, images
        if prepare is not None:
            low, high, images = prepare(low), prepare(high), prepare(images)
            reach, middle = (high - low) / 2, (high + low) / 2

        @not_inlined
        def direction(candidates: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                tape.watch(candidates)
                loss = tf.reduce_sum(objective(logits_fn(candidates)))
            gradient = require_gradient(tape.gradient(loss, candidates))
            return tf.sign(gradient) if self.norm == "linf" else _unit(gradient)

        def project(points: tf.Tensor) -> tf.Tensor:
            if self.norm == "linf":
                return tf.clip_by_value(points, low, high)
            change = points - images
            length = tf.minimum(_length(change), eps)
            return tf.clip_by_value(images + length * _unit(change), 0.0, 1.0)

        def ascend(candidates: tf.Tensor) -> tf.Tensor:
            return project(candidates + ratio * reach * direction(candidates))

        start = project(self._start(images, middle, reach, seed))
        if whole_path:
            found = tf.scan(lambda last, _: ascend(last), tf.range(self.steps), start)
            return tf.stop_gradient(tf.concat([start[None], found], axis=0))
        _, found = tf.while_loop(
            lambda step, _: step < self.steps,
            lambda step, candidates: (step + 1, ascend(candidates)),
            (tf.constant(0), start),
            maximum_iterations=self.steps,
        )
        return tf.stop_gradient(found)

    def _start(
        self, images: tf.Tensor, middle: tf.Tensor, reach: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        if self.start == "uniform" and self.norm == "l2":
            # Of a ball of dimension d the share u**d lies within u radii.
            shape = tf.shape(images)
            share = randomness.global_noise(
                randomness.fold_in(seed, 1), tf.stack([shape[0], 1]), uniform=True
            )
            size = tf.cast(tf.reduce_prod(shape[1:]), tf.float32)
            radius = reach * tf.pow(tf.abs(share), 1 / size)
            return images + per_example(radius, images) * _unit(
                randomness.global_noise(seed, shape)
            )
        if self.start == "uniform":
            return middle + reach * randomness.global_noise(seed, tf.shape(images), uniform=True)
        if self.start == "normal":
            return images + _NORMAL_START * randomness.global_noise(seed, tf.shape(images))
        return images


def _length(values: tf.Tensor) -> tf.Tensor:
    """L2 norm of each example, ``[B, 1, ...]``."""
    axes = list(range(1, len(values.shape)))
    return tf.sqrt(tf.reduce_sum(tf.square(values), axis=axes, keepdims=True))


def _unit(values: tf.Tensor) -> tf.Tensor:
    """Each example at length 1, or 0 where it is exactly 0; however short it was."""
    axes = list(range(1, len(values.shape)))
    largest = tf.reduce_max(tf.abs(values), axis=axes, keepdims=True)
    values = tf.math.divide_no_nan(values, largest)
    return tf.math.divide_no_nan(values, _length(values))
