"""Auto-PGD: projected gradient ascent that finds its own step size."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Annotated, Any, NamedTuple

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.bounded import BoundedAttack
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.masked_loop import masked_while_loop
from bcgan_tf.attacks.objectives import LOSSES, loss_gradient, objective, ranked_wrong_class
from bcgan_tf.attacks.primitives import misclassified, not_inlined, per_example
from bcgan_tf.settings.fields import OneOf
from bcgan_tf.settings.kinds import Repeats, Steps

# Weight of the new step; the rest is the momentum of the step before.
_STEP_WEIGHT = 0.75
# The share of the steps since a checkpoint that must have raised the loss.
_ENOUGH_INCREASES = 0.75


def checkpoints(steps: int) -> tuple[int, ...]:
    """The steps after which the step size is reconsidered; for 100: 22, 41, 57, 70, 80, 87, 93, 99.

    The first comes after 22 % of the steps, and each interval is 3 % of the steps shorter than
    the one before, down to 6 % (percentages rounded down; an interval is 1 at least).
    """
    interval, decrease, shortest = (
        max(percent * steps // 100, least) for percent, least in ((22, 1), (3, 1), (6, 1))
    )
    ends = []
    while sum(ends[-1:]) + interval <= steps:
        ends.append(sum(ends[-1:]) + interval)
        interval = max(interval - decrease, shortest)
    return tuple(ends)


@dataclasses.dataclass(frozen=True, kw_only=True)
class APGD(BoundedAttack):
    """Projected gradient ascent with momentum that halves its own step size, per example.

    Step ``k`` goes ``eta`` along the sign of the gradient (L2: the normalized gradient), is
    projected, and mixed with the movement before: ``x + 0.75 (z - x) + 0.25 (x - x_before)``,
    projected again. ``eta`` starts at ``2 * eps``. At each checkpoint it is halved where at most
    75 % of the steps since the last one raised the loss, or where it was not halved at the last
    one and the best loss has not risen since; the example then goes on from its best point.
    No example depends on the others of its batch.

    An example stops at its first misclassified iterate, whatever the predicted class; the batch
    shrinks by eighths (:func:`bcgan_tf.attacks.masked_loop.masked_while_loop`). The start is a
    random point on the surface of the ball.

    Targeted, each round aims at one wrong class: round ``r`` at that with the ``r + 2``-nd largest
    logit of the clean image, and after ``target_classes`` of them from the first again. Where a
    model has fewer wrong classes, the rounds that lack a target do nothing.

    The difference of logits ratio needs ``K >= 3`` classes, targeted ``K >= 4``. With fewer, the
    margin ``max_{i != y} z_i - z_y``, targeted ``z_t - z_y``, takes its place.

    Args:
        eps: radius, in units of the [0, 1] pixel range; 0 returns the images.
        loss: ``"ce"``, the cross entropy, or ``"dlr"``, the difference of logits ratio, which does
            not vanish where the logits are large.
        targeted: aim at wrong classes in turn, instead of away from the true one.
        steps: gradient steps of each round.
        restarts: random starts per example, targeted: per example and target.
        target_classes: how many wrong classes are aimed at; targeted only.
        norm: ``"linf"`` or ``"l2"``.
        batch_size: most examples attacked at once.
        seed: of the random starts.

    Raises:
        UserError: if a setting is out of range.

    Example:
        >>> APGD(0.3)(classifier, images, labels).robust_accuracy  # APGD-CE
        >>> APGD(0.3, loss="dlr", targeted=True)(classifier, images, labels)  # APGD-T

    Reference: Croce and Hein 2020, "Reliable Evaluation of Adversarial Robustness with an Ensemble
    of Diverse Parameter-free Attacks", algorithm 1.
    """

    uses_gradients = True

    loss: Annotated[str, OneOf(*LOSSES)] = "ce"
    targeted: bool = False
    steps: Steps = 100
    restarts: Repeats = 1
    target_classes: Repeats = 9

    @property
    def name(self) -> str:
        if not self.targeted:
            return f"APGD-{self.loss.upper()}{self.suffix()}"
        # AutoAttack's APGD-T is the targeted attack on the DLR loss.
        return f"APGD-{'T' if self.loss == 'dlr' else 'CE-T'}{self.suffix()}"

    @property
    def rounds(self) -> int:
        return self.restarts * (self.target_classes if self.targeted else 1)

    @property
    def lengths(self) -> dict[str, float]:
        return {"eps": self.eps}

    def config(self) -> dict[str, Any]:
        settings = super().config() | {"checkpoints": list(checkpoints(self.steps))}
        if not self.targeted:
            del settings["target_classes"]
        if self.loss == "dlr":
            margin, classes = ("targeted margin", 4) if self.targeted else ("margin", 3)
            settings["loss_of_few_classes"] = f"{margin} where K < {classes}"
        return settings

    def _noise(self, index: int, round_index: int, shape: list[int]) -> np.ndarray:
        """The draw from the ball, moved out to its surface."""
        noise = super()._noise(index, round_index, shape)
        length = np.abs(noise).max() if self.norm == "linf" else np.linalg.norm(noise)
        return noise * np.float32(self.eps / (length or 1.0))

    def run(
        self,
        logits_fn: LogitsFn,
        images: tf.Tensor,
        labels: tf.Tensor,
        indices: tf.Tensor,
        round_index: tf.Tensor,
    ) -> tf.Tensor:
        targets, reachable = labels, tf.ones_like(labels, tf.bool)
        if self.targeted:
            rank = tf.math.floormod(round_index, self.target_classes)
            targets, reachable = ranked_wrong_class(logits_fn(images), labels, rank)

        loss = objective(self.loss, targeted=self.targeted)
        differentiate = not_inlined(functools.partial(loss_gradient, logits_fn, loss))
        # Checkpoints and the lengths of the intervals that they end, by step.
        ends = checkpoints(self.steps)
        lengths = np.zeros(self.steps + 1, np.float32)
        lengths[list(ends)] = np.diff(ends, prepend=0)

        def advance(step: tf.Tensor, state: _State) -> _State:
            gradient, values, logits = differentiate(state.iterates, state.labels, state.targets)
            state = _recorded(state, gradient, values, misclassified(logits, state.labels))
            length = tf.gather(lengths, step)
            state, gradient = tf.cond(
                length > 0,
                lambda: _reconsidered(state, gradient, length),
                lambda: (state, gradient),
            )
            return self._moved(state, gradient, tf.where(step > 0, _STEP_WEIGHT, 1.0))

        start = self.draw_start(images, indices, round_index)
        zeros = tf.zeros_like(labels, tf.float32)
        state = _State(
            images=images,
            labels=labels,
            targets=targets,
            before=start,
            iterates=start,
            last_loss=zeros + math.inf,
            x_adv=start,
            best_loss=zeros - math.inf,
            best_gradient=tf.zeros_like(images),
            step_size=zeros + 2.0 * self.eps,
            increases=zeros,
            checked_loss=zeros - math.inf,
            halved=tf.ones_like(labels, tf.bool),
            finished=tf.logical_not(reachable),
        )
        # One more iteration, because the last point is judged too.
        return masked_while_loop(advance, state, self.steps + 1)

    def _moved(self, state: _State, gradient: tf.Tensor, weight: tf.Tensor) -> _State:
        """One step with momentum."""
        direction = self.ascend(gradient, 1.0)
        ahead = state.iterates + per_example(state.step_size, direction) * direction
        ahead = self.clip_to_ball(state.images, ahead)
        momentum = (1.0 - weight) * (state.iterates - state.before)
        moved = state.iterates + weight * (ahead - state.iterates) + momentum
        # A NaN gradient is no sign of robustness. The result becomes NaN, so that the caller raises
        # an error. It is checked here because clipping hides NaN.
        sums = tf.reduce_sum(direction, axis=list(range(1, len(direction.shape))))
        unsound = tf.math.is_nan(sums) & tf.logical_not(state.finished)
        return state._replace(
            before=state.iterates,
            iterates=self.clip_to_ball(state.images, moved),
            x_adv=tf.where(per_example(unsound, direction), math.nan, state.x_adv),
            finished=state.finished | unsound,
        )


class _State(NamedTuple):
    """Where each of the ``M`` examples still worked on stands."""

    images: tf.Tensor
    labels: tf.Tensor
    targets: tf.Tensor
    before: tf.Tensor  # the iterate before the last move
    iterates: tf.Tensor
    last_loss: tf.Tensor  # one step ago
    x_adv: tf.Tensor  # the misclassified iterate, until there is one the iterate of best_loss
    best_loss: tf.Tensor
    best_gradient: tf.Tensor
    step_size: tf.Tensor
    increases: tf.Tensor  # steps since the last checkpoint that raised the loss
    checked_loss: tf.Tensor  # best_loss at the last checkpoint
    halved: tf.Tensor  # at the last checkpoint; true at first, when there was none
    finished: tf.Tensor


def _recorded(state: _State, gradient: tf.Tensor, values: tf.Tensor, is_wrong: tf.Tensor) -> _State:
    """Keeps the best point and any misclassified one; does not change finished examples."""
    # A point with NaN logits is kept too: the run that judges it then raises an error.
    stop = is_wrong | tf.math.is_nan(values)
    better = tf.logical_not(state.finished) & (stop | (values > state.best_loss))
    wide = per_example(better, gradient)
    return state._replace(
        last_loss=values,
        x_adv=tf.where(wide, state.iterates, state.x_adv),
        best_loss=tf.where(better, values, state.best_loss),
        best_gradient=tf.where(wide, gradient, state.best_gradient),
        increases=state.increases + tf.cast(values > state.last_loss, tf.float32),
        finished=state.finished | stop,
    )


def _reconsidered(
    state: _State, gradient: tf.Tensor, length: tf.Tensor
) -> tuple[_State, tf.Tensor]:
    """A checkpoint: halves step sizes, and goes back to the best point where they were halved."""
    few_increases = state.increases <= _ENOUGH_INCREASES * length
    stalled = tf.logical_not(state.halved) & (state.best_loss <= state.checked_loss)
    halve = few_increases | stalled
    wide = per_example(halve, gradient)
    state = state._replace(
        iterates=tf.where(wide, state.x_adv, state.iterates),
        step_size=tf.where(halve, state.step_size / 2.0, state.step_size),
        increases=tf.zeros_like(state.increases),
        checked_loss=state.best_loss,
        halved=halve,
    )
    return state, tf.where(wide, state.best_gradient, gradient)
