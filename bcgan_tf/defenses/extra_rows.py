"""Batches for robust training: real images, extra rows beside them, random changes of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from bcgan_tf.defenses.gan import draw_fakes
from bcgan_tf.models.bcgan import BCGAN
from bcgan_tf.training.augmentation import Augmentation
from bcgan_tf.training.classifier_trainer import BatchBuilder
from bcgan_tf.training.robust_trainer import RobustTrainer

# (images, labels, count, seed) -> (images, labels, weights) of ``count`` extra rows
ExtraRows = Callable[
    [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]
]


@dataclasses.dataclass(frozen=True)
class ExtraExamples:
    """What a robust training has beside the real images.

    Attributes:
        rows: makes extra rows for every batch; None: there are none.
        ratio: extra rows per real row, more than 0.
        weight: of their mean loss. A row that its maker weighs 0 counts as a loss of 0.
        every: epochs between two calls of ``between``; 0: it is never called.
        between: called with the trainer and the number of the call, from 1. A resumed training
            calls it again for what is past.
    """

    rows: ExtraRows | None = None
    ratio: float = 1.0
    weight: float = 1.0
    every: int = 0
    between: Callable[[RobustTrainer, int], None] | None = None


NO_EXTRA = ExtraExamples()


def generated_rows(gan: BCGAN, oracle: keras.Model | None) -> ExtraRows:
    """Fresh fakes for every step, labelled with the class they were asked for.

    Args:
        gan: as it is at each step: trained on, it makes other fakes.
        oracle: images to logits; fakes that it puts into another class have weight 0. None: all
            have weight 1.
    """

    def rows(images: tf.Tensor, labels: tf.Tensor, count: tf.Tensor, seed: tf.Tensor) -> Any:
        fakes, classes = draw_fakes(gan, count, seed)
        if oracle is None:
            return fakes, classes, tf.ones([count])
        judged = tf.argmax(oracle(fakes, training=False), axis=-1, output_type=tf.int32)
        return fakes, classes, tf.cast(judged == classes, tf.float32)

    return rows


def repeated_rows(images: tf.Tensor, labels: tf.Tensor, count: tf.Tensor, seed: tf.Tensor) -> Any:
    """The batch's own images again, from the first on: the control of equal cost."""
    del seed
    chosen = tf.range(count) % tf.shape(labels)[0]
    return tf.gather(images, chosen), tf.gather(labels, chosen), tf.ones([count])


def batches(
    added: ExtraExamples, *, clean_term: bool, augment: Augmentation | None = None
) -> BatchBuilder | None:
    """Builds batches whose average loss is ``mean over real + weight * mean over extra``.

    Args:
        added: the extra rows.
        clean_term: whether they count in a loss's first term too; see
            :class:`bcgan_tf.training.robust_trainer.RobustTrainer`.
        augment: changes every image of the batch in a way of its own.

    Returns:
        None where the clean batch is all.
    """
    extra = added.rows
    if extra is None and augment is None:
        return None

    def build(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> Any:
        if extra is None:
            weights = tf.ones(tf.shape(labels), tf.float32)
        else:
            images, labels, weights = joined(images, labels, seed, extra)
        return augment(images, seed) if augment else images, labels, weights

    def joined(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, extra: ExtraRows) -> Any:
        rows = tf.shape(labels)[0]
        count = tf.cast(tf.round(tf.cast(rows, tf.float32) * added.ratio), tf.int32)
        more, classes, kept = extra(images, labels, count, seed)
        total = tf.cast(rows + count, tf.float32)
        # The loss is averaged over all rows; these factors make it two means, one of each kind.
        real = tf.fill([rows], total / tf.cast(rows, tf.float32))
        extras = added.weight * kept * total / tf.cast(count, tf.float32)
        second = tf.concat([real, extras], axis=0)
        first = second if clean_term else tf.concat([real, tf.zeros([count])], axis=0)
        order = _interleaved(rows, count)
        return (
            tf.gather(tf.concat([images, more], axis=0), order),
            tf.gather(tf.concat([labels, tf.cast(classes, labels.dtype)], axis=0), order),
            tf.gather(tf.stack([first, second], axis=1), order),
        )

    return build


def _interleaved(rows: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """An order of both kinds in which the halves of the whole are the wholes of the halves.

    What is drawn for a batch by its rows' places, such as the starts of attacks, is then the same
    for ``N`` replicas and for one.
    """
    places = tf.concat([2 * tf.range(rows) * count, (2 * tf.range(count) + 1) * rows], axis=0)
    return tf.argsort(places, stable=True)
