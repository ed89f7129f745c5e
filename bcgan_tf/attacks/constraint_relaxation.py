"""The constraint relaxation attack: few gradients, and none for what looks hopeless."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.bounded import BoundedAttack
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.linearized_boundary import distances
from bcgan_tf.attacks.masked_loop import masked_while_loop
from bcgan_tf.attacks.objectives import ranked_wrong_classes
from bcgan_tf.attacks.primitives import (
    logit_units,
    margins,
    misclassified,
    not_inlined,
    per_example,
    require_gradient,
)
from bcgan_tf.settings.fields import Range
from bcgan_tf.settings.kinds import Repeats

# Wrong classes among which the targets are chosen.
_CANDIDATES = 9
# Steps of the untargeted beginning, each of half the radius.
_BEGINNING = 10
# A cycle: so many steps in the relaxed ball, then so many in the true one, then in the tightened
# one for a step and in the true one again.
_RELAXED, _JUDGED, _CYCLE = 10, 19, 30
_LEAST_SCALE = 0.05
# An image is given up for a target whose logit lies so far below the true one's at the end of the
# judged steps, and is tried again where any margin came nearer than the second; both in units of
# the distance between the image's largest and third-largest logit, the first times the cycle's
# scale.
_HOPELESS, _NEAR = 0.5, 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstraintRelaxation(BoundedAttack):
    """Targeted steps that may leave the ball for a while, towards few classes, given up early.

    It begins with ten steps on the margin from a random point, of half the radius each. Of the nine
    likeliest wrong classes at the last of these points, those are the targets whose boundaries,
    linearized there, are nearest. Towards each it takes cycles of 30 steps on ``z_t - z_y`` from a
    new random point. In cycle ``c`` the scale is ``s = max(0.5^c, 0.05)``, and a step has length
    ``s * eps``. The first ten are projected onto the larger ball of ``(1 + s) eps``, while their
    projections onto the true ball are judged; the rest onto the true one, but for one that is
    projected onto that of ``(1 - s) eps`` and moved at random by ``s * eps``.

    After 20 steps of a cycle an image is given up for this target where ``z_y - z_t`` is above
    ``s / 2`` times the distance between the largest and the third-largest logit of the clean image:
    the original has 2 in place of that distance, which large logits switch off. Images whose margin
    came within a fiftieth of that distance are tried again from new points.

    Args:
        eps: radius, in units of the [0, 1] pixel range; 0 returns the images.
        targets: how many wrong classes are aimed at.
        cycles: of 30 steps, for each.
        restarts: further tries of the images that came near.
        norm: ``"linf"`` or ``"l2"``.
        batch_size: most examples attacked at once.
        seed: of the random points.

    Raises:
        UserError: if a setting is out of range.

    Example:
        >>> ConstraintRelaxation(0.3)(classifier, images, labels).robust_accuracy

    Reference: the constraint relaxation attack of AAAI 2025 (github.com/fzjcdt/
    constraint-relaxation-attack), which begins with the cross entropy in place of the margin; the
    order of the targets is that of Melamed et al. 2024, "MALT Powers Up Adversarial Attacks", there
    taken at the image.
    """

    uses_gradients = True

    targets: Repeats = 3
    cycles: Repeats = 5
    restarts: Annotated[int, Range(0, 1000)] = 4

    @property
    def name(self) -> str:
        return f"CR{self.suffix()}"

    @property
    def lengths(self) -> dict[str, float]:
        return {"eps": self.eps}

    def run(
        self,
        logits_fn: LogitsFn,
        images: tf.Tensor,
        labels: tf.Tensor,
        indices: tf.Tensor,
        round_index: tf.Tensor,
    ) -> tf.Tensor:
        del round_index
        clean = logits_fn(images)
        candidates = min(_CANDIDATES, (clean.shape[1] or _CANDIDATES + 1) - 1)
        plan = _Plan(self)

        @not_inlined
        def differentiate(points: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(points)
                logits = logits_fn(points)
                aimed = tf.gather(logits, targets, axis=1, batch_dims=1)
                raised = aimed - tf.gather(logits, labels, axis=1, batch_dims=1)
            return require_gradient(tape.gradient(raised, points)), raised, logits

        judge = not_inlined(logits_fn)

        def nearest_classes(state: _State) -> tf.Tensor:
            """The classes whose boundaries, linearized at the points, are nearest."""
            classes = _likeliest(judge(state.points), state.labels, candidates)
            found = []
            for rank in range(candidates):
                gradient, raised, _ = differentiate(state.points, state.labels, classes[:, rank])
                found.append(distances(gradient[:, None], raised[:, None], self.norm))
            order = tf.argsort(tf.concat(found, axis=1), axis=1, stable=True)
            nearest = tf.gather(order, tf.minimum(tf.range(self.targets), candidates - 1), axis=1)
            return tf.gather(classes, nearest, axis=1, batch_dims=1)

        def advance(_: tf.Tensor, state: _State) -> _State:
            beginning = state.step < _BEGINNING
            rank = plan.of(plan.rank, state.step)
            aimed = tf.gather(state.order, rank, axis=1, batch_dims=1)
            gradient, raised, logits = differentiate(state.points, state.labels, aimed)
            state = self._judged(state, plan, logits, judge)
            # In the beginning the target is always the likeliest wrong class of the last point.
            order = tf.where(
                beginning[:, None], _likeliest(logits, state.labels, self.targets), state.order
            )
            chosen = tf.equal(state.step, _BEGINNING - 1)
            order = tf.cond(
                tf.reduce_any(chosen),
                lambda: tf.where(chosen[:, None], nearest_classes(state), order),
                lambda: order,
            )
            scale = plan.of(plan.scale, state.step)
            far = -raised > _HOPELESS * scale * state.unit
            hopeless = plan.of(plan.judging, state.step) & far
            after = tf.where(hopeless, plan.of(plan.next_target, state.step), state.step + 1)
            near = state.nearest > -_NEAR * state.unit
            tried = (after >= plan.first_try) & tf.logical_not(near)
            done = tried | (after >= plan.steps)
            after = tf.minimum(after, plan.steps - 1)
            moved = self._moved(state, plan, gradient)
            return state._replace(
                order=order,
                points=self._restarted(state, plan, moved, after),
                step=after,
                finished=state.finished | done,
            )

        zeros = tf.zeros_like(labels, tf.int32)
        state = _State(
            images=images,
            labels=labels,
            indices=indices,
            unit=logit_units(clean),
            points=self.draw_start(images, indices, tf.constant(0, tf.int64)),
            x_adv=images,
            order=_likeliest(clean, labels, self.targets),
            step=zeros,
            nearest=margins(clean, labels),
            finished=tf.zeros_like(labels, tf.bool),
        )
        return masked_while_loop(advance, state, plan.steps)

    def _judged(
        self,
        state: _State,
        plan: _Plan,
        logits: tf.Tensor,
        judge: Callable[[tf.Tensor], tf.Tensor],
    ) -> _State:
        """Keeps what breaks the model within the true ball; outside, the projection is tried."""
        outside = plan.of(plan.outside, state.step)
        within = self.clip_to_ball(state.images, state.points)
        logits = tf.cond(
            tf.reduce_any(outside),
            lambda: tf.where(outside[:, None], judge(within), logits),
            lambda: logits,
        )
        margin = margins(logits, state.labels)
        found = misclassified(logits, state.labels) | tf.math.is_nan(margin)
        keep = tf.logical_not(state.finished) & (found | (margin > state.nearest))
        return state._replace(
            x_adv=tf.where(per_example(keep, within), within, state.x_adv),
            nearest=tf.where(keep, margin, state.nearest),
            finished=state.finished | found,
        )

    def _moved(self, state: _State, plan: _Plan, gradient: tf.Tensor) -> tf.Tensor:
        """A step, projected onto the ball that the next point is to lie in."""
        length = plan.of(plan.length, state.step) * self.eps
        direction = self.ascend(gradient, 1.0)
        ahead = state.points + per_example(length, direction) * direction
        radius = per_example(plan.of(plan.radius, state.step) * self.eps, direction)
        return self.clip_to_ball(state.images, ahead, radius)

    def _restarted(
        self, state: _State, plan: _Plan, moved: tf.Tensor, after: tf.Tensor
    ) -> tf.Tensor:
        """The points, at random where a target begins and moved at random within a cycle."""
        begins, noise = plan.of(plan.begins, after), plan.of(plan.noise, after)

        def drawn() -> tf.Tensor:
            change = self.draw_noise(state.images, state.indices, after)
            shaken = self.clip_to_ball(state.images, moved + per_example(noise, moved) * change)
            fresh = tf.clip_by_value(state.images + change, 0.0, 1.0)
            return tf.where(per_example(begins, moved), fresh, shaken)

        return tf.cond(tf.reduce_any(begins | (noise > 0)), drawn, lambda: moved)


class _Plan:
    """What each step does, by its number; each image counts its own steps."""

    def __init__(self, attack: ConstraintRelaxation) -> None:
        of_target = attack.cycles * _CYCLE
        of_try = attack.targets * of_target
        tries = 1 + attack.restarts
        self.first_try = _BEGINNING + of_try
        self.steps = _BEGINNING + tries * of_try
        steps = np.arange(self.steps)
        later = steps >= _BEGINNING
        place = np.where(later, steps - _BEGINNING, 0)
        cycle, within = place % of_target // _CYCLE, place % _CYCLE
        scale = np.maximum(0.5**cycle, _LEAST_SCALE).astype(np.float32)
        self.rank = np.where(later, place % of_try // of_target, 0).astype(np.int32)
        self.scale = scale
        self.length = np.where(later, scale, 0.5).astype(np.float32)
        # The point that a step leads to is the next one's.
        relaxed, tightened = within + 1 < _RELAXED, within + 1 == _JUDGED + 1
        radius = np.where(relaxed, 1 + scale, np.where(tightened, 1 - scale, 1.0))
        self.radius = np.where(later, radius, 1.0).astype(np.float32)
        self.outside = later & (within > 0) & (within < _RELAXED)
        self.judging = later & (within == _JUDGED)
        self.noise = np.where(later & (within == _JUDGED + 1), scale, 0.0).astype(np.float32)
        self.begins = later & (place % of_target == 0)
        self.next_target = (_BEGINNING + (place // of_target + 1) * of_target).astype(np.int32)

    def of(self, table: np.ndarray, steps: tf.Tensor) -> tf.Tensor:
        """The entries of a table, for each image's step."""
        return tf.gather(tf.constant(table), steps)


class _State(NamedTuple):
    """Where each of the ``M`` examples still worked on stands."""

    images: tf.Tensor
    labels: tf.Tensor
    indices: tf.Tensor
    unit: tf.Tensor  # the distance between the largest and the third-largest logit of the image
    points: tf.Tensor
    x_adv: tf.Tensor  # what breaks the model, until there is one what came nearest to it
    order: tf.Tensor  # [M, targets], the classes aimed at
    step: tf.Tensor
    nearest: tf.Tensor  # the largest margin so far, within the ball
    finished: tf.Tensor


def _likeliest(logits: tf.Tensor, labels: tf.Tensor, count: int) -> tf.Tensor:
    """The likeliest wrong classes, int64 ``[M, count]``; the last of them again where too few."""
    places = tf.minimum(tf.range(count), tf.shape(logits)[1] - 2)
    _, classes = ranked_wrong_classes(logits, labels)
    return tf.cast(tf.gather(classes, places, axis=1), tf.int64)
