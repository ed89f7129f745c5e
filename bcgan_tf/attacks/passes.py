"""Counting what a search spends: forward and backward passes of single examples."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.checks import LogitsFn


class Passes(NamedTuple):
    """Passes through a network, each of one example."""

    forward: int = 0
    backward: int = 0

    def __add__(self, other: tuple[int, int]) -> Passes:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Passes(self.forward + other[0], self.backward + other[1])


NONE = Passes()


class PassCounter:
    """Counts in graphs, rows that fill a batch up included."""

    def __init__(self) -> None:
        self._counts = tf.Variable(tf.zeros([2], tf.int64), trainable=False)

    def of(self, logits_fn: LogitsFn) -> LogitsFn:
        """The function, with its calls and the gradients through it counted."""

        def add(forward: int, backward: int, images: tf.Tensor) -> None:
            rows = tf.shape(images, tf.int64)[0]
            self._counts.assign_add(rows * tf.constant([forward, backward], tf.int64))

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            add(0, 1, upstream)
            return upstream

        unchanged: Any = tf.custom_gradient(lambda images: (tf.identity(images), gradient))

        def counted(images: tf.Tensor) -> tf.Tensor:
            add(1, 0, images)
            return logits_fn(unchanged(images))

        return counted

    def taken(self) -> Passes:
        """What was counted since the last time that this was asked."""
        found = np.asarray(self._counts)
        self._counts.assign_sub(found)
        return Passes(*(int(count) for count in found))
