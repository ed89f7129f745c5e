"""Trains a classifier on adversarial examples of itself."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from bcgan_tf import losses, randomness
from bcgan_tf.errors import UserError
from bcgan_tf.models.classifier_trainer import BatchBuilder, ClassifierTrainer
from bcgan_tf.models.inner_maximisation import InnerMaximisation

_START = 17
_VALIDATION_START = 18
# What each epoch's robust accuracy is measured with: stronger than the attacks of training.
_VALIDATION = InnerMaximisation(steps=20)


class AdversarialTrainer(ClassifierTrainer):
    """Adversarial training: the loss is taken at the worst point of a ball around each image.

    With ``trades_beta`` None: ``(1 - clean_weight) CE(f(x'), y) + clean_weight CE(f(x), y)``, x'
    found by raising the cross entropy. Else TRADES: ``CE(f(x), y) + beta KL(f(x) || f(x'))``, x'
    found by raising that divergence.

    The attack sees the network as it predicts (``training=False``), the loss as it trains.
    Validation reports ``accuracy`` on clean images and ``robust_accuracy`` under 20 steps at the
    full eps, so that an overfitting to the attack of training is seen when it happens.

    Args:
        classifier: functional model, float32 images in [0, 1] to logits ``[B, K]``.
        eps: Linf radius, in [0, 1] pixel units.
        attack: the inner maximisation.
        ramp_steps: training steps over which eps rises linearly from 0: without it, a network of
            small capacity never leaves the constant answer at a large eps.
        clean_weight: of the clean images' cross entropy, in [0, 1).
        trades_beta: weight of the divergence; None is adversarial training.
        average_decay: of the moving average of the weights, which is then what is validated and
            saved (:attr:`judged`); 0 is off.
        seed: of the attack's starts and of ``build_batch``.
        build_batch: see :class:`ClassifierTrainer`; what it builds is attacked.

    Reference: Madry et al. 2018; Zhang et al. 2019, "Theoretically Principled Trade-off between
    Robustness and Accuracy", eq. 5.
    """

    def __init__(
        self,
        classifier: keras.Model,
        *,
        eps: float,
        attack: InnerMaximisation,
        ramp_steps: int = 0,
        clean_weight: float = 0.0,
        trades_beta: float | None = None,
        average_decay: float = 0.0,
        seed: int = 0,
        build_batch: BatchBuilder | None = None,
        **kwargs: Any,
    ):
        super().__init__(classifier, seed=seed, build_batch=build_batch, **kwargs)
        if not 0 <= average_decay < 1:
            raise UserError(f"average_decay is {average_decay}; choose 0 (off) or less than 1")
        self.eps = eps
        self.attack = attack
        self.ramp_steps = ramp_steps
        self.clean_weight = clean_weight
        self.trades_beta = trades_beta
        self.average_decay = average_decay
        self.averaged = keras.models.clone_model(classifier) if average_decay else None
        if self.averaged is not None:
            self.averaged.set_weights(classifier.get_weights())
            self.averaged.trainable = False
        self._robust_accuracy = keras.metrics.SparseCategoricalAccuracy(name="robust_accuracy")

    @property
    def judged(self) -> keras.Model:
        """The classifier that counts: the averaged one, where there is one."""
        return self.classifier if self.averaged is None else self.averaged

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*super().metrics, self._robust_accuracy]

    def current_eps(self) -> tf.Tensor:
        """The radius at this step of training, float32 scalar."""
        if not self.ramp_steps:
            return tf.constant(self.eps, tf.float32)
        share = tf.cast(self.optimizer.iterations, tf.float32) / self.ramp_steps
        return self.eps * tf.minimum(share, 1.0)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        images, labels, weights = self._built_batch(*data[:2])
        adversarial = self._adversarial_examples(images, labels)
        with tf.GradientTape() as tape:
            per_example, logits, adversarial_logits = self._objective(images, labels, adversarial)
            objective = losses.average(weights * per_example)
        variables = self.classifier.trainable_variables
        self.optimizer.apply_gradients(
            zip(tape.gradient(objective, variables), variables, strict=True)
        )
        self._update_average()
        self._loss.update_state(weights * per_example)
        if logits is not None:
            self._accuracy.update_state(labels, logits)
        self._robust_accuracy.update_state(labels, adversarial_logits)
        return {
            metric.name: metric.result()
            for metric in self.metrics
            if logits is not None or metric is not self._accuracy
        }

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        seed = randomness.step_seed(self.seed, _VALIDATION_START, tf.constant(0))
        adversarial = _VALIDATION(
            lambda x: self.judged(x, training=False),
            images,
            tf.constant(self.eps, tf.float32),
            lambda logits: losses.cross_entropy(labels, logits),
            seed,
        )
        logits = self.judged(images, training=False)
        self._loss.update_state(losses.cross_entropy(labels, logits), weights)
        self._accuracy.update_state(labels, logits, weights)
        attacked = self.judged(adversarial, training=False)
        # Right on the attacked image, and on the clean one: the attack may only take away.
        both = tf.where(
            tf.equal(tf.argmax(logits, -1), tf.cast(labels, tf.int64))[:, None], attacked, logits
        )
        self._robust_accuracy.update_state(labels, both, weights)
        return {metric.name: metric.result() for metric in self.metrics}

    def _adversarial_examples(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        def predict(inputs: tf.Tensor) -> tf.Tensor:
            return self.classifier(inputs, training=False)

        seed = randomness.step_seed(self.seed, _START, self.optimizer.iterations)
        if self.trades_beta is None:

            def objective(logits: tf.Tensor) -> tf.Tensor:
                return losses.cross_entropy(labels, logits)
        else:
            clean = tf.stop_gradient(predict(images))

            def objective(logits: tf.Tensor) -> tf.Tensor:
                return losses.kl_divergence(clean, logits)

        return self.attack(predict, images, self.current_eps(), objective, seed)

    def _objective(
        self, images: tf.Tensor, labels: tf.Tensor, adversarial: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | None, tf.Tensor]:
        """Per-example loss ``[B]``, the clean logits where the loss needs them, the attacked."""
        attacked = self.classifier(adversarial, training=True)
        if self.trades_beta is None and not self.clean_weight:
            return losses.cross_entropy(labels, attacked), None, attacked
        logits = self.classifier(images, training=True)
        clean = losses.cross_entropy(labels, logits)
        if self.trades_beta is None:
            robust = losses.cross_entropy(labels, attacked)
            return (1 - self.clean_weight) * robust + self.clean_weight * clean, logits, attacked
        divergence = losses.kl_divergence(logits, attacked)
        return clean + self.trades_beta * divergence, logits, attacked

    def _update_average(self) -> None:
        if self.averaged is None:
            return
        # As if started at once: early on the average follows the weights.
        steps = tf.cast(self.optimizer.iterations, tf.float32)
        decay = tf.minimum(self.average_decay, steps / (steps + 10.0))
        for mean, weight in zip(self.averaged.weights, self.classifier.weights, strict=True):
            mean.assign(decay * mean + (1.0 - decay) * tf.cast(weight, mean.dtype))
