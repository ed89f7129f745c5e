"""The losses that attacks raise, by name, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from bcgan_tf import losses
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.primitives import require_gradient

Objective = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]

_OBJECTIVES: dict[tuple[str, bool], Objective] = {
    ("ce", False): lambda labels, targets, logits: losses.cross_entropy(labels, logits),
    ("ce", True): lambda labels, targets, logits: -losses.cross_entropy(targets, logits),
    ("dlr", False): lambda labels, targets, logits: losses.dlr(labels, logits),
    ("dlr", True): losses.targeted_dlr,
}

LOSSES = tuple(dict.fromkeys(name for name, _ in _OBJECTIVES))


def objective(loss: str, *, targeted: bool) -> Objective:
    """The function of labels, target classes and logits ``[B, K]`` that an attack maximises.

    Args:
        loss: ``"ce"``, the cross entropy of the true label (targeted: minus that of the target),
            or ``"dlr"``, see :func:`bcgan_tf.losses.dlr` and :func:`bcgan_tf.losses.targeted_dlr`.
        targeted: towards a target class, instead of away from the true one.

    Returns:
        A function that returns float32 ``[B]``; an untargeted one ignores the targets.
    """
    return _OBJECTIVES[loss, targeted]


def loss_gradient(
    logits_fn: LogitsFn,
    objective: Objective,
    images: tf.Tensor,
    labels: tf.Tensor,
    targets: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gradient of each example's own loss, the losses ``[B]``, and the logits ``[B, K]``.

    Raises:
        UserError: if the logits do not depend on the images differentiably.
    """
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = logits_fn(images)
        values = objective(labels, targets, logits)
    return require_gradient(tape.gradient(values, images)), values, logits


def ranked_wrong_classes(logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The logits in falling order and their classes, ``[B, K]``; the true one last, as -inf."""
    classes = tf.shape(logits)[1]
    is_true = tf.one_hot(labels, classes, on_value=True, off_value=False)
    values, order = tf.math.top_k(tf.where(is_true, -math.inf, logits), k=classes)
    return values, order


def ranked_wrong_class(
    logits: tf.Tensor, labels: tf.Tensor, rank: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The wrong class of the ``rank``-th largest logit.

    Args:
        logits: float32 ``[B, K]``.
        labels: int64 ``[B]``, the true ones.
        rank: integer scalar; 0 is the likeliest wrong class, and K-2 the last one.

    Returns:
        The class, int64 ``[B]``, and whether it exists, bool ``[B]``. It does not exist where the
        rank is larger than K-2 or the logit is minus infinity.
    """
    values, classes = ranked_wrong_classes(logits, labels)
    # The last place is the true class's.
    place = tf.minimum(tf.cast(rank, tf.int32), tf.shape(logits)[1] - 1)
    return tf.cast(classes[:, place], tf.int64), tf.math.is_finite(values[:, place])
