"""A model that rounds alike in every batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Sharp:
    """A random two-layer network that computes in float64, so that all batches round alike."""

    hidden: np.ndarray
    output: np.ndarray

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(tf.cast(images, tf.float64), [tf.shape(images)[0], len(self.hidden)])
        return tf.cast(tf.tanh((flat - 0.5) @ self.hidden) @ self.output, tf.float32)

    def margin(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Largest wrong logit minus the true one, computed in NumPy."""
        logits = np.tanh((images.reshape(len(images), -1) - 0.5) @ self.hidden) @ self.output
        true = np.eye(logits.shape[1], dtype=bool)[labels]
        return np.where(true, -np.inf, logits).max(1) - logits[true]


def sharp_network(*shape: int, count: int = 23) -> tuple[Sharp, np.ndarray, np.ndarray]:
    """The network for examples of a shape, ``count`` of them, and its own answers as labels."""
    rng = np.random.default_rng(7)
    pixels = math.prod(shape)
    model = Sharp(rng.normal(size=(pixels, 32)) / math.sqrt(pixels), 4 * rng.normal(size=(32, 5)))
    images = rng.uniform(0, 1, (count, *shape)).astype(np.float32)
    return model, images, model(tf.constant(images)).numpy().argmax(-1)
