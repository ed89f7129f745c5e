"""APGD at each example's own radius: where it succeeds, how far it goes, and what it is told."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.perturbation.nearest_point import NearestPoint
from bcgan_tf.perturbation.radius_search import _OwnRadius, search_radius

NORMAL = np.array([0.5, -1.0, 2.0, 0.25, -0.75, 1.5], np.float32)
DUAL = {"linf": 6.0, "l2": float(np.linalg.norm(NORMAL))}
both_norms = pytest.mark.parametrize("norm", ["linf", "l2"])


def _model(images: tf.Tensor) -> tf.Tensor:
    gap = (tf.reshape(images, [-1, 6]) - 0.5) @ NORMAL[:, None]
    return tf.concat([tf.zeros_like(gap), gap, gap - 1e6], 1)


def _images() -> tuple[np.ndarray, np.ndarray]:
    """Eight images of class 0, away from the ends of the box, and by how much class 1 is behind."""
    pixels = np.random.default_rng(0).uniform(0.45, 0.55, (8, 6))
    behind = (pixels - 0.5) @ NORMAL + np.linspace(0.05, 0.4, 8)
    pixels -= behind[:, None] * NORMAL / (NORMAL @ NORMAL)
    images = pixels.astype(np.float32).reshape(8, 2, 3, 1)
    return images, -(images.reshape(8, 6).astype(np.float64) - 0.5) @ NORMAL


@both_norms
def test_every_example_has_a_ball_of_its_own(norm):
    images, gaps = _images()
    exact = gaps / DUAL[norm]
    largest = 1.0 if norm == "linf" else 6**0.5
    for factor, succeeds in ((1.01, True), (0.99, False)):
        entries = (factor * exact / largest).astype(np.float32)
        flat = np.concatenate([images.reshape(8, 6), entries[:, None]], 1)
        attack = _OwnRadius(1.0, loss="ce", norm=norm, steps=40, largest=largest)
        result = attack(lambda rows: _model(rows[:, :6]), flat, np.zeros(8, int))
        np.testing.assert_array_equal(result.success, np.full(8, succeeds))
        change = result.adversarials[:, :6].astype(np.float64) - flat[:, :6]
        lengths = np.linalg.norm(change, np.inf if norm == "linf" else 2, axis=1)
        assert (lengths <= factor * exact + 1e-6).all() and (lengths >= 0.9 * exact).all()
        np.testing.assert_array_equal(result.adversarials[:, 6], entries)


@both_norms
def test_starts_fill_the_surface_of_each_ball(norm):
    largest = 1.0 if norm == "linf" else 2.0
    images = np.full((3, 5), 0.5, np.float32)
    images[:, 4] = [0.01, 0.1, 0.2]
    attack = _OwnRadius(1.0, norm=norm, largest=largest)
    starts = attack.draw_start(tf.constant(images), tf.range(3, dtype=tf.int64), tf.constant(0))
    change = starts.numpy()[:, :4] - 0.5
    lengths = np.linalg.norm(change, np.inf if norm == "linf" else 2, axis=1)
    np.testing.assert_allclose(lengths, images[:, 4] * largest, rtol=1e-4)
    np.testing.assert_array_equal(starts[:, 4], images[:, 4])


@both_norms
def test_the_radius_is_found_from_any_start(norm):
    """Known before is a point 2 % too far, one six times too far, or none."""
    images, gaps = _images()
    exact = gaps / DUAL[norm]
    limit = 1.0 if norm == "linf" else 6**0.5
    task = EvaluationTask(_model, images, np.zeros(8, np.int64), norm=norm, batch_size=8)
    nearest = NearestPoint(task, limit)
    nearest.distance = exact * np.resize([1.02, 6.0, np.inf], 8)
    reports = []
    search_radius(nearest, steps=30, levels=10, report=lambda: reports.append(1))
    assert len(reports) == 10
    assert (nearest.distance >= exact * (1 - 1e-4)).all()
    np.testing.assert_allclose(nearest.distance, exact, rtol=0.021)
