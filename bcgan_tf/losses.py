"""Loss terms as per-example vectors, and the function that averages them.

Every function returns one float32 value per example, shape ``[B]``. Only :func:`average` turns such
a vector into a scalar, because under ``N`` replicas the optimizer *sums* gradients: a plain
``reduce_mean`` inside a replica would weigh its term ``N`` times.
"""

from __future__ import annotations

import math

import tensorflow as tf

# A logit this far below the largest stands for a class that is masked out.
_MASKED = 1e5
# Keeps the ratio of logit differences finite where all of them are equal.
_SMALLEST_SCALE = 1e-12


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

    Its gradient with respect to the logits is ``softmax(logits) - 1/K``. It is bounded and does not
    vanish for confident samples, unlike that of ``KL(softmax(logits) || U)``.

    A logit of minus infinity, or more than 1e5 below the largest, masks a class out: ``U`` is
    uniform over the others, and ``K`` counts these.

    Args:
        logits: float ``[B, K]``, ``K >= 2``.

    Returns:
        float32 ``[B]``, at least 0, and 0 exactly where all logits are equal.

    Reference: Lee et al. 2018, "Training Confidence-calibrated Classifiers", eq. 3.
    """
    log_probabilities = tf.nn.log_softmax(tf.cast(logits, tf.float32))
    meant = log_probabilities > -_MASKED
    classes = tf.reduce_sum(tf.cast(meant, tf.float32), axis=-1)
    total = tf.reduce_sum(tf.where(meant, log_probabilities, 0.0), axis=-1)
    return -tf.math.log(classes) - total / classes


def kl_uniform_top2(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """``KL(U || softmax(logits))`` in nats, ``U`` uniform over the class ``c`` and its runner-up.

    The runner-up ``r`` is the largest class other than ``c``. On a boundary two classes tie;
    :func:`kl_to_uniform` is least where all ``K`` tie, and equal to this loss for ``K = 2``. The
    loss is 0 only where ``c`` and ``r`` have probability 1/2 each. Its gradient with respect to the
    logits is ``softmax(logits)`` minus 1/2 at ``c`` and at ``r``.

    Args:
        logits: float ``[B, K]``, ``K >= 2``.
        labels: int ``[B]``, the classes ``c``.

    Returns:
        float32 ``[B]``, at least 0.
    """
    log_probabilities = tf.nn.log_softmax(tf.cast(logits, tf.float32))
    own, rival = _own_and_rival(labels, log_probabilities)
    return -math.log(2.0) - 0.5 * (own + rival)


def kl_divergence(logits: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """``KL(softmax(logits) || softmax(other))`` in nats: the consistency term of TRADES.

    Args:
        logits: float ``[B, K]``, of the clean images; differentiated too.
        other: float ``[B, K]``, of the adversarial images.

    Returns:
        float32 ``[B]``, at least 0.

    Reference: Zhang et al. 2019, "Theoretically Principled Trade-off between Robustness and
    Accuracy", eq. 5.
    """
    log_p = tf.nn.log_softmax(tf.cast(logits, tf.float32))
    log_q = tf.nn.log_softmax(tf.cast(other, tf.float32))
    # Classes masked out with minus infinity are left out; inf - inf would be NaN.
    meant = tf.math.is_finite(log_p)
    log_p, log_q = (tf.where(meant, values, 0.0) for values in (log_p, log_q))
    terms = tf.exp(log_p) * (log_p - log_q)
    return tf.reduce_sum(tf.where(meant, terms, 0.0), axis=-1)


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
    """Discriminator loss ``-(L_S + L_C)`` of the paper's eq. 6, to be minimized.

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
    """Generator loss: the non-saturating form of ``L_S - L_C`` (eq. 6), to be minimized.

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


def dlr(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Difference of logits ratio, which attacks maximise: positive where the model is wrong.

    ``(max_{i != y} z_i - z_y) / (z_(1) - z_(3))`` with ``z_(j)`` the j-th largest logit: unlike
    the cross entropy it does not change when all logits are scaled. Where there is no
    third logit (``K = 2``, or it is minus infinity), it is the margin, divided by 1.

    Args:
        labels: int ``[B]``, the true ones.
        logits: float ``[B, K]``, ``K >= 2``.

    Returns:
        float32 ``[B]``; in [-1, 0] where the model is right and ``K >= 3``.

    Reference: Croce and Hein 2020, "Reliable Evaluation of Adversarial Robustness with an Ensemble
    of Diverse Parameter-free Attacks", eq. 6.
    """
    top, order = _top(logits, 3)
    wrong = tf.where(order[:, 0] == tf.cast(labels, tf.int32), top[:, 1], top[:, 0])
    return _ratio(wrong - _logit_of(labels, logits), top[:, 0], top[:, 2])


def targeted_dlr(labels: tf.Tensor, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Targeted difference of logits ratio, which attacks maximise.

    ``(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2)``. Where there is no fourth logit (``K < 4``,
    or it is minus infinity), it is the targeted margin, divided by 1.

    Args:
        labels: int ``[B]``, the true ones.
        targets: int ``[B]``, the target classes.
        logits: float ``[B, K]``, ``K >= 2``.

    Returns:
        float32 ``[B]``.

    Reference: Croce and Hein 2020, as for :func:`dlr`, eq. 7.
    """
    top, _ = _top(logits, 4)
    margin = _logit_of(targets, logits) - _logit_of(labels, logits)
    return _ratio(margin, top[:, 0], (top[:, 2] + top[:, 3]) / 2.0)


def _own_and_rival(labels: tf.Tensor, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The value at the label, and the largest at another class, both ``[B]``."""
    own_class = tf.one_hot(labels, tf.shape(values)[-1], on_value=True, off_value=False)
    runner_up = tf.argmax(tf.where(own_class, -math.inf, values), axis=-1)
    return _logit_of(labels, values), _logit_of(runner_up, values)


def _top(logits: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The largest logits and their classes, ``[B, count]``; minus infinity where K is smaller."""
    logits = tf.cast(logits, tf.float32)
    if (logits.shape[-1] or 0) < count:
        logits = tf.pad(logits, [[0, 0], [0, count]], constant_values=-math.inf)
    top = tf.math.top_k(logits, k=count)
    return top.values, top.indices


def _logit_of(classes: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.gather(tf.cast(logits, tf.float32), classes, axis=1, batch_dims=1)


def _ratio(margin: tf.Tensor, largest: tf.Tensor, lower: tf.Tensor) -> tf.Tensor:
    exists = tf.math.is_finite(lower)
    scale = tf.where(exists, largest - tf.where(exists, lower, 0.0), 1.0)
    return margin / (scale + _SMALLEST_SCALE)
