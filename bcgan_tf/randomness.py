"""Stateless random draws: a pure function of (seed, purpose, step), so that runs can resume.

A ``keras.random.SeedGenerator`` loses its state on saving and, made under a strategy, hands every
replica the same numbers. Here the seed of each draw is folded from what identifies it.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def fold_in(seed: tf.Tensor, data: Any) -> tf.Tensor:
    """A new stateless seed, int32 ``[2]``, from a seed and an integer (or integer tensor)."""
    random: Any = tf.random  # its stub knows Python integers alone
    return random.fold_in(seed, data)


def fold_replica(seed: tf.Tensor) -> tf.Tensor:
    """Folds the replica's index into a stateless seed, int32 ``[2]``."""
    context = tf.distribute.get_replica_context()
    replica = context.replica_id_in_sync_group if context is not None else 0
    return fold_in(seed, replica)


def step_seed(seed: int, purpose: int, step: tf.Tensor) -> tf.Tensor:
    """Seed, int32 ``[2]``, of the draw for one ``purpose`` at one training ``step``.

    Seeds are those of NumPy, up to 2 ** 32 - 1: the upper half is wrapped to the negative numbers.
    """
    wrapped = (seed + 2**31) % 2**32 - 2**31
    return fold_in(tf.constant([wrapped, purpose], tf.int32), tf.cast(step, tf.int32))


def _replica_rows(rows: int | tf.Tensor) -> tuple[tf.Tensor, int | tf.Tensor]:
    context = tf.distribute.get_replica_context()
    if context is None:
        return tf.constant(0), rows
    first = tf.convert_to_tensor(context.replica_id_in_sync_group) * rows
    return first, rows * context.num_replicas_in_sync


def global_normal(seed: tf.Tensor, rows: int | tf.Tensor, width: int) -> tf.Tensor:
    """This replica's rows of one N(0, 1) draw for the *global* batch, float32 ``[rows, width]``.

    Replicas get different rows of the same draw, so ``N`` replicas see exactly the noise that one
    replica would see on the same global batch.
    """
    first, total = _replica_rows(rows)
    return tf.random.stateless_normal(tf.stack([total, width]), seed)[first : first + rows]


def global_uniform(seed: tf.Tensor, rows: int | tf.Tensor, width: int) -> tf.Tensor:
    """As :func:`global_normal`, uniform in [0, 1)."""
    first, total = _replica_rows(rows)
    return tf.random.stateless_uniform(tf.stack([total, width]), seed)[first : first + rows]


def global_labels(seed: tf.Tensor, rows: int | tf.Tensor, num_classes: int) -> tf.Tensor:
    """This replica's rows of one uniform draw of classes for the global batch, int32 ``[rows]``."""
    first, total = _replica_rows(rows)
    draw = tf.random.stateless_uniform(tf.stack([total]), seed, maxval=num_classes, dtype=tf.int32)
    return draw[first : first + rows]


def global_noise(seed: tf.Tensor, shape: tf.Tensor, *, uniform: bool = False) -> tf.Tensor:
    """This replica's part of one draw for the global batch: N(0, 1), or uniform in [-1, 1).

    Args:
        seed: stateless, int32 ``[2]``.
        shape: int32, of this replica's part, rows first.
        uniform: instead of normal.

    Returns:
        float32 of that shape.
    """
    first, total = _replica_rows(shape[0])
    whole = tf.concat([tf.reshape(total, [1]), shape[1:]], axis=0)
    if uniform:
        draw = tf.random.stateless_uniform(whole, seed, -1.0, 1.0)
    else:
        draw = tf.random.stateless_normal(whole, seed)
    return draw[first : first + shape[0]]
