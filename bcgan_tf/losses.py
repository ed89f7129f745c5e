"""Loss terms as per-example vectors, and the one place where they are reduced.

Every function returns one float32 value per example, shape ``[B]``. Only :func:`average` turns such
a vector into a scalar, because under ``N`` replicas the optimizer *sums* gradients: a plain
``reduce_mean`` inside a replica would weigh its term ``N`` times.
"""

from __future__ import annotations

import math

import tensorflow as tf


def average(per_example: tf.Tensor) -> tf.Tensor:
    """Mean of a per-example loss over the *global* batch, whatever the number of replicas.

    Args:
        per_example: float32 ``[B]``, ``B`` the rows of this replica.

    Returns:
        A float32 scalar; summed over replicas it is the mean over the global batch.
    """
    return tf.nn.compute_average_loss(tf.cast(per_example, tf.float32))


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Cross entropy ``-log softmax(logits)[label]`` in nats.

    Args:
        labels: int ``[B]``.
        logits: float ``[B, K]``.

    Returns:
        float32 ``[B]``.
    """
    return tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=labels, logits=tf.cast(logits, tf.float32)
    )


def kl_to_uniform(logits: tf.Tensor) -> tf.Tensor:
    """``KL(U || softmax(logits))`` in nats: the paper's boundary term, eq. 8 (b).

    Its gradient with respect to the logits is ``softmax(logits) - 1/K``: bounded, and alive for
    confident samples, where ``KL(softmax(logits) || U)`` has almost none.

    Args:
        logits: float ``[B, K]``, ``K >= 2``.

    Returns:
        float32 ``[B]``, at least 0, and 0 exactly where all logits are equal.

    Reference: Lee et al. 2018, "Training Confidence-calibrated Classifiers", eq. 3.
    """
    log_probabilities = tf.nn.log_softmax(tf.cast(logits, tf.float32))
    classes = log_probabilities.shape[-1]
    return -math.log(classes) - tf.reduce_mean(log_probabilities, axis=-1)


def _source_loss(logits: tf.Tensor, target: float) -> tf.Tensor:
    logits = tf.cast(logits, tf.float32)
    return tf.nn.sigmoid_cross_entropy_with_logits(
        labels=tf.fill(tf.shape(logits), target), logits=logits
    )


def acgan_discriminator_loss(
    real_source: tf.Tensor,
    fake_source: tf.Tensor,
    real_class: tf.Tensor,
    fake_class: tf.Tensor,
    real_labels: tf.Tensor,
    fake_labels: tf.Tensor,
    *,
    real_target: float = 1.0,
) -> tf.Tensor:
    """Discriminator loss ``-(L_S + L_C)`` of the paper's eq. 6, to be minimised.

    Args:
        real_source: float ``[B]``, source logits of real images (positive: "real").
        fake_source: float ``[B]``, source logits of generated images.
        real_class: float ``[B, K]``, class logits of real images.
        fake_class: float ``[B, K]``, class logits of generated images.
        real_labels: int ``[B]``.
        fake_labels: int ``[B]``, the classes ``c`` the generator was asked for.
        real_target: the "real" target; below 1 it is one-sided label smoothing (Salimans 2016).

    Returns:
        float32 ``[B]``.
    """
    source = _source_loss(real_source, real_target) + _source_loss(fake_source, 0.0)
    auxiliary = cross_entropy(real_labels, real_class) + cross_entropy(fake_labels, fake_class)
    return source + auxiliary


def acgan_generator_loss(
    fake_source: tf.Tensor, fake_class: tf.Tensor, fake_labels: tf.Tensor
) -> tf.Tensor:
    """Generator loss: the non-saturating form of ``L_S - L_C`` (eq. 6), to be minimised.

    Args:
        fake_source: float ``[B]``, source logits of generated images.
        fake_class: float ``[B, K]``, class logits of generated images.
        fake_labels: int ``[B]``.

    Returns:
        float32 ``[B]``.
    """
    return _source_loss(fake_source, 1.0) + cross_entropy(fake_labels, fake_class)


def top_two_margin(logits: tf.Tensor) -> tf.Tensor:
    """Largest minus second-largest logit, ``[B]``: 0 exactly on a decision boundary."""
    top = tf.math.top_k(tf.cast(logits, tf.float32), k=2).values
    return top[:, 0] - top[:, 1]
