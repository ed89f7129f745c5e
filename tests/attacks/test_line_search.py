"""The nearest misclassified point on a line, where it is known."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.line_search import nearest_on_line

IMAGES = np.full((4, 2, 2, 1), 0.4, np.float32)
LABELS = tf.zeros(4, tf.int64)


def curved(images: tf.Tensor) -> tf.Tensor:
    """Class 1 where the sum of the squared pixels is above 1: at 0.5 in each pixel."""
    score = tf.reduce_sum(tf.square(images), axis=[1, 2, 3]) - 1.0
    return tf.stack([-score, score], axis=1)


def _searched(candidates: list[float]) -> np.ndarray:
    """The first pixel of what is found, for candidates of four equal pixels each."""
    points = np.array(candidates, np.float32)[:, None, None, None] * np.ones((1, 2, 2, 1), "f4")
    found = nearest_on_line(curved, tf.constant(IMAGES), LABELS, tf.constant(points))
    assert np.ptp(found.numpy(), axis=(1, 2, 3)).max() < 1e-6
    return found.numpy()[:, 0, 0, 0]


def test_it_ends_just_beyond_the_boundary():
    found = _searched([0.55, 0.7, 1.0, 0.4])
    assert (found[:3] > 0.5).all() and (found[:3] < [0.501, 0.505, 0.53]).all()
    assert found[3] == np.float32(0.4)  # no change, nothing to search


def test_it_looks_beyond_what_is_not_misclassified():
    """A change of 0.095 is too short by 5 %; one of 0.05 by half."""
    found = _searched([0.495, 0.45, 0.55, 0.7])
    assert (found > 0.5).all() and (found < 0.505).all()
