"""Loss against iteration: whether the ascent of an attack arrived, or never left the ground."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from bcgan_tf import losses
from bcgan_tf.attacks import checks
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.pgd import PGD
from bcgan_tf.attacks.primitives import margins, not_inlined, require_gradient
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.task import EvaluationTask

# The key of a run's mean margin is that of its mean cross entropy and this.
MARGIN = " margin"

_Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# Label and what is raised, a function of labels and logits.
_CROSS_ENTROPY: tuple[str, _Loss] = ("", losses.cross_entropy)
_MARGIN: tuple[str, _Loss] = (" (margin loss)", lambda labels, logits: margins(logits, labels))


def loss_curves(task: EvaluationTask, *, steps: int = 50, long_steps: int = 250) -> dict[str, Any]:
    """Projected gradient ascent that goes on after an image is broken, its losses written down.

    Three runs from one random start each: on the cross entropy, on the cross entropy with many
    more and smaller steps, and on the margin ``max_{i != y} z_i - z_y``. A sound attack's curves
    rise and level off, the long run ends no higher than the short one, and both losses lead to
    about the same margin. A cross entropy that stays at 0 while the margin loss climbs is
    gradient masking; a long run far above the short one is an attack that was stopped too early.

    Args:
        task: the model, the images and the radius, which is above 0. The images that are classified
            right are used (all of them, where none is). A missing or non-finite gradient counts as
            zero, which is a flat line.
        steps: of the short runs; their step size is :class:`bcgan_tf.attacks.pgd.PGD`'s.
        long_steps: of the long run, at least ``steps``.

    Returns:
        JSON-able: ``n``, ``eps``, ``norm``; ``iterations``, 0 ... ``long_steps``; and for each
        run, such as ``"PGD-50"``, its mean cross entropy in nats and, under ``"PGD-50 margin"``,
        its mean margin, at iterations 0 (the start), 1, ... A mean that is not finite is None.

    Raises:
        UserError: a setting is out of range.
    """
    checks.check_number("eps", task.eps, above=0)
    for name, value in (("steps", steps), ("long_steps", long_steps)):
        checks.check_positive_int(name, value)
    if long_steps < steps:
        raise UserError(f"long_steps is {long_steps}, fewer than steps, {steps}; give more")
    right = np.flatnonzero(task.correct)
    part = task.take(right) if right.size else task
    curves: dict[str, Any] = {
        "n": part.n,
        "eps": part.eps,
        "norm": part.norm,
        "iterations": list(range(long_steps + 1)),
    }
    plan = [(steps, *_CROSS_ENTROPY), (long_steps, *_CROSS_ENTROPY), (steps, *_MARGIN)]
    shared: dict[str, Any] = {"norm": part.norm, "seed": part.seed, "batch_size": part.batch_size}
    for count, suffix, loss in dict.fromkeys(plan):
        climb = Batched(
            _ascent(PGD(part.radius, steps=count, **shared), part.attacked, loss), part.batch_size
        )
        values = climb(part.images, part.labels, part.indices).astype(np.float64)
        entropy, margin = values.mean(axis=0)
        curves[f"PGD-{count}{suffix}"] = _finite(entropy)
        curves[f"PGD-{count}{suffix}{MARGIN}"] = _finite(margin)
    return curves


def _ascent(attack: PGD, logits_fn: LogitsFn, loss: _Loss) -> Callable[..., tf.Tensor]:
    """A graph function from a batch to ``[B, 2, steps + 1]``: cross entropies and margins."""

    @not_inlined
    def differentiate(points: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(points)
            logits = logits_fn(points)
            total = tf.reduce_sum(loss(labels, logits))
        return require_gradient(tape.gradient(total, points)), logits

    def run(images: tf.Tensor, labels: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        def advance(step: tf.Tensor, points: tf.Tensor, log: tf.TensorArray) -> tuple[Any, ...]:
            gradient, logits = differentiate(points, labels)
            told = tf.stack([losses.cross_entropy(labels, logits), margins(logits, labels)], 1)
            moved = points + attack.ascend(gradient, attack.resolved_step_size)
            moved = attack.clip_to_ball(images, tf.clip_by_value(moved, 0.0, 1.0))
            # A margin of classes masked out with minus infinity has no direction.
            moved = tf.where(tf.math.is_finite(moved), moved, points)
            return step + 1, moved, log.write(step, told)

        start = attack.draw_start(images, indices, tf.constant(0, tf.int64))
        log = tf.TensorArray(tf.float32, attack.steps + 1, element_shape=[None, 2])
        free = tf.TensorShape([None]) + images.shape[1:]
        unknown: Any = None  # a TensorArray has no shape of its own
        final: Any = tf.while_loop(
            lambda step, *_: step <= attack.steps,
            advance,
            (tf.constant(0), start, log),
            shape_invariants=(tf.TensorShape([]), free, tf.TensorShape(unknown)),
        )
        return tf.transpose(final[2].stack(), [1, 2, 0])

    return run


def _finite(means: np.ndarray) -> list[float | None]:
    return [float(mean) if math.isfinite(mean) else None for mean in means]
