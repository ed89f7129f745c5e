"""Trains a classifier at a temperature, on labels or on another classifier's soft answers."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from bcgan_tf.settings.fields import check
from bcgan_tf.settings.kinds import Temperature
from bcgan_tf.training.classifier_trainer import ClassifierTrainer

_LOWEST = -1e30


class DistillationTrainer(ClassifierTrainer):
    """Cross entropy on ``logits / T``, against labels or against ``softmax(teacher(x) / T)``.

    Validation is at temperature 1, as the classifier is used. There its logits are about T times
    larger than those of a plain one, so its cross entropy has no gradient left in float32.

    Args:
        classifier: functional model, float32 images in [0, 1] to logits ``[B, K]``.
        temperature: T, at least 1.
        teacher: a frozen classifier whose answers are learnt; None: the labels.
        seed: of the trainer's draws; there are none here.
    """

    def __init__(
        self,
        classifier: keras.Model,
        *,
        temperature: Temperature,
        teacher: keras.Model | None = None,
        seed: int = 0,
        **kwargs: Any,
    ):
        check(DistillationTrainer.__init__, temperature=temperature)
        super().__init__(classifier, seed=seed, **kwargs)
        self.temperature = temperature
        # In a function, where Keras does not look: neither trained nor in the checkpoints.
        self._teacher = lambda: teacher

    def training_loss(self, images: tf.Tensor, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """See :meth:`ClassifierTrainer.training_loss`."""
        teacher = self._teacher()
        if teacher is not None:
            answers = teacher(images, training=False) / self.temperature
            soft = tf.stop_gradient(tf.nn.softmax(tf.cast(answers, tf.float32)))
        else:
            soft = tf.one_hot(labels, self.classifier.output_shape[-1])
        # Of a class masked out with minus infinity the loss would be 0 * inf.
        scaled = tf.maximum(tf.cast(logits, tf.float32) / self.temperature, _LOWEST)
        return tf.nn.softmax_cross_entropy_with_logits(soft, scaled)
