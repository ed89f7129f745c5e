"""Trains a plain classifier; defences change the batch it sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from bcgan_tf import losses, randomness

# (images, labels, seed int32 [2]) -> (images, labels, weights float32 [B']); trainers with a loss
# of two terms also take weights [B', 2].
BatchBuilder = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]
_BATCH = 16


class ClassifierTrainer(keras.Model):
    """Cross-entropy training of ``classifier``, which stays loadable with Keras alone.

    Args:
        classifier: functional model, float32 images in [0, 1] to logits ``[B, K]``.
        seed: of what ``build_batch`` draws.
        build_batch: turns the clean batch into the batch to learn from; per-example weights
            multiply the loss, which is averaged over the rows built. None: the clean
            batch, weights 1.
    """

    def __init__(
        self,
        classifier: keras.Model,
        *,
        seed: int = 0,
        build_batch: BatchBuilder | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.classifier = classifier
        self.seed = seed
        self.build_batch = build_batch
        self._loss = keras.metrics.Mean(name="loss")
        self._accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        self.built = True

    def compile(self, optimizer: keras.optimizers.Optimizer | None = None, **kwargs: Any) -> None:
        """Sets the optimizer, Adam(1e-3) by default, and creates its variables."""
        super().compile(optimizer=None, **kwargs)
        self.optimizer = optimizer or keras.optimizers.Adam(1e-3)
        self.optimizer.build(self.classifier.trainable_variables)

    @property
    def optimizers(self) -> list[keras.optimizers.Optimizer]:
        """The one optimizer."""
        return [self.optimizer]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self._loss, self._accuracy]

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The classifier's logits."""
        return self.classifier(inputs, training=training)

    def _built_batch(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        if self.build_batch is None:
            return images, labels, tf.ones(tf.shape(labels), tf.float32)
        seed = randomness.step_seed(self.seed, _BATCH, self.optimizer.iterations)
        return self.build_batch(images, labels, seed)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        images, labels, weights = self._built_batch(*data[:2])
        with tf.GradientTape() as tape:
            logits = self.classifier(images, training=True)
            per_example = weights * self.training_loss(images, labels, logits)
            objective = losses.average(per_example)
        self._descend(tape, objective)
        self._loss.update_state(per_example)
        self._accuracy.update_state(labels, logits)
        return {metric.name: metric.result() for metric in self.metrics}

    def training_loss(self, images: tf.Tensor, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """The loss of a built batch, ``[B']``, before its weights."""
        del images  # for subclasses
        return losses.cross_entropy(labels, logits)

    def _descend(self, tape: tf.GradientTape, objective: tf.Tensor) -> None:
        """One step of the optimizer."""
        variables = self.classifier.trainable_variables
        self.optimizer.apply_gradients(
            zip(tape.gradient(objective, variables), variables, strict=True)
        )

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        logits = self.classifier(images, training=False)
        self._loss.update_state(losses.cross_entropy(labels, logits), weights)
        self._accuracy.update_state(labels, logits, weights)
        return {metric.name: metric.result() for metric in self.metrics}
