"""Trains a classifier on generated images for many steps between two passes over the real ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from bcgan_tf import losses, randomness
from bcgan_tf.training.classifier_trainer import ClassifierTrainer

# (rows of this replica, seed int32 [2]) -> images, labels
Generate = Callable[[int, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
_GENERATED = 17
# Batches that are drawn at once, at most: a large generator reads its weights that much less often.
_DRAWN = 10


class AlternatingTrainer(ClassifierTrainer):
    """Cross-entropy training whose epochs begin with batches of generated images.

    ``fit`` gives it the real images; :meth:`callback` goes with it. All steps count as the
    optimizer's, so that a training that is resumed knows whether an epoch has had its generated
    batches.

    Args:
        classifier: as of :class:`ClassifierTrainer`.
        generate: makes a batch.
        generated_batches: of each epoch, before its real images; several are drawn at once.
        real_batches: steps of an epoch of ``fit``.
        batch_size: global.
        seed: of what ``generate`` draws.
    """

    def __init__(
        self,
        classifier: keras.Model,
        *,
        generate: Generate,
        generated_batches: int,
        real_batches: int,
        batch_size: int,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(classifier, seed=seed, **kwargs)
        self.generate = generate
        self.generated_batches = generated_batches
        self.real_batches = real_batches
        self.batch_size = batch_size
        self._drawn = math.gcd(generated_batches, _DRAWN)
        self._compiled = tf.function(self._all_generated)

    def callback(self) -> keras.callbacks.Callback:
        """Does the generated batches of each epoch, which are one graph."""
        return _GeneratedFirst(self)

    def learn_generated(self, epoch: int) -> None:
        """The generated batches of an epoch, unless they were done before the training ended."""
        begun = epoch * (self.generated_batches + self.real_batches)
        done = int(tf.convert_to_tensor(self.optimizer.iterations)) - begun
        if done < self.generated_batches:
            self._compiled()

    def _all_generated(self) -> None:
        for _ in tf.range(self.generated_batches // self._drawn):
            self.distribute_strategy.run(self._learn_drawn)

    def _learn_drawn(self) -> None:
        context = tf.distribute.get_replica_context()
        rows = self.batch_size // (context.num_replicas_in_sync if context else 1)
        seed = randomness.step_seed(self.seed, _GENERATED, self.optimizer.iterations)
        images, labels = self.generate(self._drawn * rows, seed)
        for start in range(0, self._drawn * rows, rows):
            batch = slice(start, start + rows)
            with tf.GradientTape() as tape:
                logits = self.classifier(images[batch], training=True)
                objective = losses.average(losses.cross_entropy(labels[batch], logits))
            self._descend(tape, objective)


class _GeneratedFirst(keras.callbacks.Callback):
    def __init__(self, trainer: AlternatingTrainer) -> None:
        super().__init__()
        self._trainer = trainer

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._trainer.learn_generated(epoch)
