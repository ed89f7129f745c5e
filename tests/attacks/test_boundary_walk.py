"""The nearest point of a boundary, where it is known; and attacks that end there."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import CarliniWagnerL2
from bcgan_tf.attacks.boundary_walk import nearest_along_boundary

N = 40


def _images(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.3, 0.5, size=(N, 2, 2, 1)).astype(np.float32)


def _length(changes: np.ndarray, norm: str) -> np.ndarray:
    return np.linalg.norm(changes.reshape(N, -1), np.inf if norm == "linf" else 2, axis=1)


def _walked(logits_fn, images: np.ndarray, candidates: np.ndarray, norm: str) -> np.ndarray:
    labels = tf.zeros(N, tf.int64)
    found = nearest_along_boundary(
        logits_fn, tf.constant(images), labels, tf.constant(candidates), norm=norm
    ).numpy()
    assert (found >= 0).all() and (found <= 1).all()
    return found


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_plane_is_reached_at_its_nearest_point(norm):
    """The distance to w . x = b is |w . x - b| by the dual norm of w."""
    weights = np.array([[1.0], [0.5], [-0.7], [0.2]], np.float32).reshape(2, 2, 1)

    def plane(images: tf.Tensor) -> tf.Tensor:
        score = tf.reduce_sum(images * weights, axis=[1, 2, 3]) - 0.6
        return tf.stack([-score, score], axis=1)

    images = _images(0)
    score = (images * weights).sum(axis=(1, 2, 3)) - 0.6
    candidates = np.random.default_rng(1).uniform(size=images.shape).astype(np.float32)
    candidates[:, 0, 0], candidates[:, 1, 0] = 1.0, 0.0  # wrong everywhere
    found = _walked(plane, images, candidates, norm)
    dual = np.abs(weights).sum() if norm == "linf" else np.sqrt(np.square(weights).sum())
    right = score < 0
    assert right.sum() > N / 2
    exact, length = -score / dual, _length(found - images, norm)
    assert (length[right] > exact[right] - 1e-6).all()
    np.testing.assert_allclose(length[right], exact[right], rtol=0.02, atol=1e-4)


def test_a_sphere_is_reached_from_its_far_side():
    """Class 1 is a ball around 0.8: its nearest point is on the line to its centre."""

    def ball(images: tf.Tensor) -> tf.Tensor:
        score = 0.09 - tf.reduce_sum(tf.square(images - 0.8), axis=[1, 2, 3])
        return tf.stack([-score, score], axis=1)

    images = _images(2)
    exact = _length(images - np.float32(0.8), "l2") - 0.3
    candidates = np.full_like(images, 0.8)
    candidates[:, 0, 0] = 1.0  # within the ball, off the line
    found = _walked(ball, images, candidates, "l2")
    length = _length(found - images, "l2")
    assert (exact > 0.2).sum() > N / 2
    np.testing.assert_allclose(length, exact, rtol=0.01)


def test_what_is_right_stays_as_it_was():
    def constant(images: tf.Tensor) -> tf.Tensor:
        return tf.stack([0.0 * images[:, 0, 0, 0], 0.0 * images[:, 0, 0, 0] - 1.0], axis=1)

    images = _images(3)
    candidates = images + np.float32(0.1)
    np.testing.assert_array_equal(_walked(constant, images, candidates, "l2"), candidates)


def test_carlini_wagner_in_bfloat16_comes_nearer_than_in_float32():
    images = keras.Input((4, 4, 1))
    model = keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(images)))
    draws = np.random.default_rng(0)
    weights = draws.normal(size=(16, 3))
    model.set_weights([weights, -0.5 * weights.sum(axis=0)])
    points = draws.uniform(0.1, 0.9, size=(30, 4, 4, 1)).astype(np.float32)
    labels = np.asarray(model(points)).argmax(-1)
    attack = CarliniWagnerL2(steps=200, learning_rate=0.02)
    assert attack.minimizes == "l2" and CarliniWagnerL2(confidence=1.0).minimizes is None
    plain = attack(model, points, labels)
    found = attack(model, points, labels, precision="bfloat16")
    assert plain.success.all() and found.success.all()
    assert plain.l2.mean() > 0.15 and found.l2.mean() < 1.001 * plain.l2.mean()
