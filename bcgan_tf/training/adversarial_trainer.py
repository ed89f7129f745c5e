"""Trains a classifier on adversarial examples of itself."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from bcgan_tf import losses, randomness
from bcgan_tf.training.inner_maximization import InnerMaximization
from bcgan_tf.training.robust_trainer import RobustTrainer, weights_of_terms

_START = 17


class AdversarialTrainer(RobustTrainer):
    """Adversarial training: the loss is taken at the worst point of a ball around each image.

    With ``trades_beta`` None: ``(1 - clean_weight) CE(f(x'), y) + clean_weight CE(f(x), y)``, x'
    found by raising the cross entropy. Else TRADES: ``CE(f(x), y) + beta KL(f(x) || f(x'))``, x'
    found by raising that divergence.

    The attack sees the network as it predicts (``training=False``), the loss as it trains. Weights
    ``[B', 2]`` of ``build_batch`` are, with TRADES, of its cross entropy and of its divergence;
    else the first column counts.

    Args:
        classifier: functional model, float32 images in [0, 1] to logits ``[B, K]``.
        eps: Linf radius, in [0, 1] pixel units.
        attack: the inner maximisation.
        clean_weight: of the clean images' cross entropy, in [0, 1).
        trades_beta: weight of the divergence; None is adversarial training.
        accumulate: take the sum of the losses at all points of the attack's path, its start
            included, in place of that at its end; with neither of the two weights above.
        **kwargs: of :class:`bcgan_tf.training.robust_trainer.RobustTrainer`.

    Reference: Madry et al. 2018; Zhang et al. 2019, "Theoretically Principled Trade-off between
    Robustness and Accuracy", eq. 5.
    """

    def __init__(
        self,
        classifier: keras.Model,
        *,
        eps: float,
        attack: InnerMaximization,
        clean_weight: float = 0.0,
        trades_beta: float | None = None,
        accumulate: bool = False,
        **kwargs: Any,
    ):
        super().__init__(classifier, eps=eps, **kwargs)
        self.attack = attack
        self.clean_weight = clean_weight
        self.trades_beta = trades_beta
        self.accumulate = accumulate

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        images, labels, weights = self._built_batch(*data[:2])
        adversarial = self._adversarial_examples(images, labels)
        with tf.GradientTape() as tape:
            per_example, logits, adversarial_logits = self._objective(
                images, labels, adversarial, weights
            )
            objective = losses.average(per_example)
        self._descend(tape, objective)
        self._loss.update_state(per_example)
        labeled, _ = weights_of_terms(weights)
        if logits is not None:
            self._accuracy.update_state(labels, logits, labeled)
        self._robust_accuracy.update_state(labels, adversarial_logits, labeled)
        return {
            metric.name: metric.result()
            for metric in self.metrics
            if logits is not None or metric is not self._accuracy
        }

    def _adversarial_examples(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        seed = randomness.step_seed(self.seed, _START, self.optimizer.iterations)
        if self.trades_beta is None:

            def objective(logits: tf.Tensor) -> tf.Tensor:
                return losses.cross_entropy(labels, logits)
        else:
            clean = tf.stop_gradient(self._attacked(images))

            def objective(logits: tf.Tensor) -> tf.Tensor:
                return losses.kl_divergence(clean, logits)

        return self.adversarial_examples(
            self.attack,
            images,
            objective,
            self.current_eps(),
            seed,
            whole_path=self.accumulate,
        )

    def _objective(
        self, images: tf.Tensor, labels: tf.Tensor, adversarial: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | None, tf.Tensor]:
        """Weighted loss ``[B]``, the clean logits where the loss needs them, the attacked."""
        first, second = weights_of_terms(weights)
        if self.accumulate:
            path = tf.unstack(adversarial, self.attack.steps + 1)
            logits = [self.training_logits(points) for points in path]
            total = tf.add_n([losses.cross_entropy(labels, one) for one in logits])
            return first * total, None, logits[-1]
        attacked = self.training_logits(adversarial)
        if self.trades_beta is None and not self.clean_weight:
            return first * losses.cross_entropy(labels, attacked), None, attacked
        logits = self.clean_logits(images)
        clean = losses.cross_entropy(labels, logits)
        if self.trades_beta is None:
            robust = losses.cross_entropy(labels, attacked)
            mixed = (1 - self.clean_weight) * robust + self.clean_weight * clean
            return first * mixed, logits, attacked
        divergence = losses.kl_divergence(logits, attacked)
        return first * clean + self.trades_beta * (second * divergence), logits, attacked
