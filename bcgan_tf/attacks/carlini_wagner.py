"""The L2 attack of Carlini and Wagner."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import tensorflow as tf
from cleverhans.tf2.attacks.carlini_wagner_l2 import clip_tanh

from bcgan_tf.attacks.attack import Attack
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.masked_loop import masked_while_loop
from bcgan_tf.attacks.primitives import (
    margins,
    misclassified,
    not_inlined,
    per_example,
    require_gradient,
)
from bcgan_tf.settings.kinds import LearningRate, PositiveWeight, Repeats, Steps, Weight

# Pixels of exactly 0 or 1 lie at infinity in tanh space; the reference shrinks them by this.
_TANH_SHRINK = 0.999999
_PROGRESS = 0.9999
_LARGEST_CONST = 1e10
_BETA_1, _BETA_2, _ADAM_EPSILON = 0.9, 0.999, 1e-8


class _State(NamedTuple):
    """Where each example still worked on stands: ``[M]``, the last five shaped as the images."""

    label: tf.Tensor
    finished: tf.Tensor
    search: tf.Tensor  # binary-search steps done
    step: tf.Tensor  # optimizer steps taken within this search step
    const: tf.Tensor
    lower: tf.Tensor
    upper: tf.Tensor
    succeeded: tf.Tensor  # misclassified at this const
    lowest_loss: tf.Tensor  # within this search step
    checked_loss: tf.Tensor  # its value at the last check for progress
    finite: tf.Tensor
    best_l2: tf.Tensor  # squared
    image: tf.Tensor
    x_adv: tf.Tensor  # the nearest misclassified candidate; NaN: the gradient broke down
    shift: tf.Tensor  # the variable: change in tanh space
    first: tf.Tensor  # Adam's moments
    second: tf.Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class CarliniWagnerL2(Attack):
    """Smallest L2 change that makes the model wrong, without a bound.

    Minimizes ``||x' - x||^2 + c * max(z_y - max_{i != y} z_i + confidence, 0)`` over ``w`` with
    ``x' = (tanh(w) + 1) / 2`` by Adam, and searches the smallest ``c`` that succeeds: ten times
    larger until one does, then bisection. The true labels are attacked *away from*.

    It departs from the reference in one point: each example has its own ``c``, Adam state, step
    count and early abort, and starts its next search step as soon as one ends. The reference stops
    a whole batch when the *sum* of its losses stalls. Here the result does not depend on the
    batch, and no example waits for another.

    A pixel of exactly 0 or 1 starts far out in tanh space and needs ``steps * learning_rate`` of
    about 5 to move freely; with 1 or less the attack finds nothing on such images. On an MNIST
    CNN 200 steps of 0.05 came within 0.5 % of the distance of 1,000 steps of 0.01.

    Args:
        steps: optimizer steps in each search step.
        binary_search_steps: number of constants tried; with 10 or more, the last repeats the
            smallest that succeeded, as in the reference.
        learning_rate: Adam's, in tanh space.
        initial_const: first ``c``.
        confidence: logit gap by which the model has to be wrong.
        abort_early: end a search step when a tenth of ``steps`` lowered its smallest loss by less
            than 0.01 %.
        batch_size: most examples attacked at once.
        seed: unused: the attack draws nothing.

    Raises:
        UserError: if a setting is out of range.

    Example:
        >>> result = CarliniWagnerL2(steps=200)(classifier, images, labels)
        >>> result.success_rate, result.l2[result.success].mean()

    Reference: Carlini and Wagner 2017, "Towards Evaluating the Robustness of Neural Networks".
    """

    uses_gradients = True

    steps: Steps = 1000
    binary_search_steps: Repeats = 9
    learning_rate: LearningRate = 1e-2
    initial_const: PositiveWeight = 1e-3
    confidence: Weight = 0.0
    abort_early: bool = True

    @property
    def name(self) -> str:
        return "CW-L2"

    @property
    def minimizes(self) -> str | None:
        return "l2" if self.confidence == 0 else None

    def run(
        self,
        logits_fn: LogitsFn,
        images: tf.Tensor,
        labels: tf.Tensor,
        indices: tf.Tensor,
        round_index: tf.Tensor,
    ) -> tf.Tensor:
        @not_inlined
        def differentiate(
            candidates: tf.Tensor, labels: tf.Tensor, const: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            # Only the model is differentiated by the tape, so that a model without a gradient is
            # noticed; the distance and tanh are done by hand.
            with tf.GradientTape() as tape:
                tape.watch(candidates)
                logits = logits_fn(candidates)
                weighted = const * tf.nn.relu(self.confidence - self.margins(logits, labels))
            gradient = require_gradient(tape.gradient(weighted, candidates))
            return gradient, weighted, misclassified(logits, labels, confidence=self.confidence)

        def advance(step: tf.Tensor, state: _State) -> _State:
            del step
            origin = tf.atanh((2.0 * state.image - 1.0) * _TANH_SHRINK)
            candidates = clip_tanh(origin + state.shift, 0.0, 1.0)
            through_model, weighted, is_wrong = differentiate(candidates, state.label, state.const)
            change = candidates - state.image
            gradient = (through_model + 2.0 * change) * (2.0 * candidates * (1.0 - candidates))
            distance = tf.reduce_sum(tf.square(change), axis=list(range(1, len(images.shape))))

            state = self._record(state, candidates, distance, distance + weighted, is_wrong)
            state, stalled = self._check_progress(state)
            return self._end_search_steps(_adam(state, gradient, self.learning_rate), stalled)

        at_most = self.binary_search_steps * self.steps
        return masked_while_loop(advance, self._start(images, labels), at_most)

    def margins(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """By how much the largest wrong logit exceeds the true one, ``[B]``: what is raised."""
        return margins(logits, labels)

    def _start(self, images: tf.Tensor, labels: tf.Tensor) -> _State:
        rows, zeros = tf.shape(images)[:1], tf.zeros_like(images)
        return _State(
            label=labels,
            finished=tf.zeros(rows, tf.bool),
            search=tf.zeros(rows, tf.int32),
            step=tf.zeros(rows, tf.int32),
            const=tf.fill(rows, float(self.initial_const)),
            lower=tf.zeros(rows),
            upper=tf.fill(rows, math.inf),
            succeeded=tf.zeros(rows, tf.bool),
            lowest_loss=tf.fill(rows, math.inf),
            checked_loss=tf.fill(rows, math.inf),
            finite=tf.ones(rows, tf.bool),
            best_l2=tf.fill(rows, math.inf),
            image=images,
            x_adv=images,
            shift=zeros,
            first=zeros,
            second=zeros,
        )

    def _record(
        self,
        state: _State,
        candidates: tf.Tensor,
        distance: tf.Tensor,
        loss: tf.Tensor,
        is_wrong: tf.Tensor,
    ) -> _State:
        """Keeps the nearest misclassified candidate; finished examples do not change."""
        active = tf.logical_not(state.finished)
        better = active & is_wrong & (distance < state.best_l2)
        return state._replace(
            succeeded=state.succeeded | is_wrong,
            lowest_loss=tf.minimum(state.lowest_loss, loss),
            finite=state.finite & (tf.math.is_finite(loss) | tf.logical_not(active)),
            best_l2=tf.where(better, distance, state.best_l2),
            x_adv=tf.where(per_example(better, candidates), candidates, state.x_adv),
        )

    def _check_progress(self, state: _State) -> tuple[_State, tf.Tensor]:
        """Which examples made no progress since their last check, a tenth of the steps ago."""
        if not self.abort_early:
            return state, tf.zeros_like(state.finished)
        due = tf.equal(tf.math.floormod(state.step, math.ceil(self.steps / 10)), 0)
        # In this form a NaN loss counts as stalled.
        progressed = state.lowest_loss < _PROGRESS * state.checked_loss
        stalled = due & tf.logical_not(progressed)
        return state._replace(
            checked_loss=tf.where(due, state.lowest_loss, state.checked_loss)
        ), stalled

    def _end_search_steps(self, state: _State, stalled: tf.Tensor) -> _State:
        """Chooses the next constant, and starts afresh, where a search step is over."""
        ended = stalled | (state.step >= self.steps)
        going_on = tf.logical_not(ended)
        search = state.search + tf.cast(ended, tf.int32)
        upper = tf.where(ended & state.succeeded, tf.minimum(state.upper, state.const), state.upper)
        lower = tf.where(
            ended & tf.logical_not(state.succeeded),
            tf.maximum(state.lower, state.const),
            state.lower,
        )
        bounded = tf.math.is_finite(upper)
        const = tf.where(
            bounded, (lower + upper) / 2.0, tf.minimum(10.0 * state.const, _LARGEST_CONST)
        )
        if self.binary_search_steps >= 10:
            const = tf.where(bounded & (search == self.binary_search_steps - 1), upper, const)
        keep = per_example(tf.cast(going_on, tf.float32), state.shift)
        finished = search >= self.binary_search_steps
        # A NaN gradient is no sign of robustness: the result becomes NaN, and the caller raises.
        unjudged = finished & tf.logical_not(state.finite | tf.math.is_finite(state.best_l2))
        return state._replace(
            finished=finished,
            x_adv=tf.where(per_example(unjudged, state.x_adv), float("nan"), state.x_adv),
            search=search,
            step=tf.where(ended, 0, state.step),
            const=tf.where(ended, const, state.const),
            lower=lower,
            upper=upper,
            succeeded=state.succeeded & going_on,
            lowest_loss=tf.where(ended, math.inf, state.lowest_loss),
            checked_loss=tf.where(ended, math.inf, state.checked_loss),
            shift=tf.math.multiply_no_nan(state.shift, keep),
            first=tf.math.multiply_no_nan(state.first, keep),
            second=tf.math.multiply_no_nan(state.second, keep),
        )


def _adam(state: _State, gradient: tf.Tensor, learning_rate: float) -> _State:
    """One step of Adam, each example with its own step count."""
    step = state.step + 1
    count = per_example(tf.cast(step, tf.float32), gradient)
    first = _BETA_1 * state.first + (1.0 - _BETA_1) * gradient
    second = _BETA_2 * state.second + (1.0 - _BETA_2) * tf.square(gradient)
    rate = learning_rate / (1.0 - tf.pow(_BETA_1, count))
    scale = tf.sqrt(second / (1.0 - tf.pow(_BETA_2, count))) + _ADAM_EPSILON
    return state._replace(
        step=step, first=first, second=second, shift=state.shift - rate * first / scale
    )
