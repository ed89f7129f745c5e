"""Trains a classifier on interval bounds of its worst answers."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from bcgan_tf import losses, randomness
from bcgan_tf.certification.certified import is_certified, worst_margins
from bcgan_tf.training.inner_maximization import InnerMaximization
from bcgan_tf.training.robust_trainer import RobustTrainer, weights_of_terms

_START = 23


class IBPTrainer(RobustTrainer):
    """``kappa CE(f(x), y) + (1 - kappa) CE(worst logits within eps, y)``.

    With ``attack`` the first term is taken at adversarial examples within the same radius: a lower
    bound of the worst case, where the second term is an upper bound; kappa weighs the two.

    kappa falls linearly from 1 while eps rises from 0; both wait for ``warmup_steps``. Weights
    ``[B', 2]`` of ``build_batch`` are of the first and of the second term.

    Training reports the certified accuracy at the radius of the moment, validation that at
    ``eps``, beside the clean and the PGD accuracy between which it lies.

    Args:
        classifier: functional model that :mod:`~bcgan_tf.certification.interval_bounds` can bound.
        eps: Linf radius of validation, in [0, 1] pixel units.
        training_eps: the radius that training rises to.
        kappa: what the weight of the first term falls to, in [0, 1].
        attack: the inner maximisation of the first term; None: clean images.
        warmup_steps: of plain training.
        ramp_steps: of the rise after them.
        **kwargs: of :class:`bcgan_tf.training.robust_trainer.RobustTrainer`.

    Reference: Gowal et al. 2018, "On the Effectiveness of Interval Bound Propagation for Training
    Verifiably Robust Models", section 3; with ``attack``, De Palma et al. 2024, "Expressive Losses
    for Verified Robustness via Convex Combinations" (MTL-IBP).
    """

    def __init__(
        self,
        classifier: keras.Model,
        *,
        eps: float,
        training_eps: float,
        kappa: float = 0.5,
        attack: InnerMaximization | None = None,
        warmup_steps: int = 0,
        ramp_steps: int = 0,
        **kwargs: Any,
    ):
        super().__init__(
            classifier, eps=eps, training_eps=training_eps, ramp_steps=ramp_steps, **kwargs
        )
        self.kappa = kappa
        self.attack = attack
        self.warmup_steps = warmup_steps
        self._certified_accuracy = keras.metrics.Mean(name="certified_accuracy")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*super().metrics, self._certified_accuracy]

    def progress(self) -> tf.Tensor:
        """Share of the rise of eps (and fall of kappa) done at this step, float32 in [0, 1]."""
        after = tf.cast(self.optimizer.iterations, tf.float32) - float(self.warmup_steps)
        if not self.ramp_steps:
            return tf.cast(after >= 0, tf.float32)
        return tf.clip_by_value(after / float(self.ramp_steps), 0.0, 1.0)

    def current_eps(self) -> tf.Tensor:
        """The radius of training at this step, float32 scalar."""
        return self.training_eps * self.progress()

    def current_kappa(self) -> tf.Tensor:
        """The weight of the clean loss at this step, float32 scalar."""
        return 1.0 - (1.0 - self.kappa) * self.progress()

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        images, labels, weights = self._built_batch(*data[:2])
        first_weights, robust_weights = weights_of_terms(weights)
        eps, kappa = self.current_eps(), self.current_kappa()
        lower, upper = tf.maximum(images - eps, 0.0), tf.minimum(images + eps, 1.0)
        seen = self._attacked_images(images, labels, eps)
        with tf.GradientTape() as tape:
            if self.attack is None:
                logits = self.clean_logits(images)
            else:
                logits = self.training_logits(seen)
            first = losses.cross_entropy(labels, logits)
            margins = worst_margins(self.classifier, lower, upper, labels)
            robust = losses.cross_entropy(labels, margins)
            per_example = kappa * (first_weights * first) + (1 - kappa) * (robust_weights * robust)
            objective = losses.average(per_example)
        self._descend(tape, objective)
        self._loss.update_state(per_example)
        accuracy, unseen = self._accuracy, self._robust_accuracy
        if self.attack is not None:
            accuracy, unseen = unseen, accuracy
        accuracy.update_state(labels, logits, first_weights)
        # The true margin is 0, all others are below.
        proved = tf.reduce_sum(tf.cast(margins >= 0, tf.int32), axis=1) == 1
        self._certified_accuracy.update_state(tf.cast(proved, tf.float32), robust_weights)
        return {metric.name: metric.result() for metric in self.metrics if metric is not unseen}

    def _attacked_images(self, images: tf.Tensor, labels: tf.Tensor, eps: tf.Tensor) -> tf.Tensor:
        if self.attack is None:
            return images
        seed = randomness.step_seed(self.seed, _START, self.optimizer.iterations)
        return self.adversarial_examples(
            self.attack, images, lambda logits: losses.cross_entropy(labels, logits), eps, seed
        )

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        proved = is_certified(self.eval_model, images, labels, tf.constant(self.eps, tf.float32))
        self._certified_accuracy.update_state(tf.cast(proved, tf.float32), weights)
        return super().test_step(data)
