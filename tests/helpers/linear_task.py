"""Images and a linear classifier of them, whose distances to the other classes are known."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

RNG = np.random.default_rng(5)
IMAGES = RNG.uniform(0.2, 0.8, (60, 4, 4, 1)).astype(np.float32)
WEIGHTS = RNG.normal(size=(16, 4)).astype(np.float32)


def linear(images: tf.Tensor) -> tf.Tensor:
    return tf.reshape(images, [-1, 16]) @ WEIGHTS


LABELS = linear(tf.constant(IMAGES)).numpy().argmax(-1).astype(np.int64)
LABELS[:5] = (LABELS[:5] + 1) % 4  # misclassified


def distances() -> np.ndarray:
    """Linf distance to the nearest other class: |z_y - z_t| / ||w_y - w_t||_1; 0 where wrong."""
    logits = linear(tf.constant(IMAGES)).numpy().astype(np.float64)
    found = np.full(len(LABELS), np.inf)
    for row, label in enumerate(LABELS):
        for other in set(range(4)) - {label}:
            gap = logits[row, label] - logits[row, other]
            found[row] = min(found[row], gap / np.abs(WEIGHTS[:, label] - WEIGHTS[:, other]).sum())
    return np.maximum(found, 0)


EPS = float(np.median(distances()))
