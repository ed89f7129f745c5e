"""The lines on which a change of class is searched, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.perturbation.directions import (
    cross_entropy_gradients,
    fgsm_direction,
    gradient_directions,
    length,
    nearest_of_other_classes,
    plain_images,
    random_signs,
    unit,
)

WEIGHTS = np.array([[2.0, 0.0, 1.0], [0.0, 1.0, -3.0]], np.float32)


def _model(images: tf.Tensor) -> tf.Tensor:
    return images @ WEIGHTS


def _saturated(images: tf.Tensor) -> tf.Tensor:
    return 1000 * _model(images)


def _found(model, images, norm):
    labels = np.zeros(len(images), np.int64)
    task = EvaluationTask(model, images, labels, norm=norm, batch_size=8)
    entropy = cross_entropy_gradients(task)
    return entropy, dict(gradient_directions(task, entropy))


def test_lengths_are_scaled_to_one_even_where_squares_underflow():
    changes = np.array([[3.0, -4.0], [1e-30, 0.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(length(changes, "linf"), [4, 1e-30, 0], rtol=1e-6)
    np.testing.assert_allclose(length(changes, "l2"), [5, 1e-30, 0], rtol=1e-6)
    np.testing.assert_allclose(unit(changes, "linf"), [[0.75, -1], [1, 0], [0, 0]])
    np.testing.assert_allclose(unit(changes, "l2"), [[0.6, -0.8], [1, 0], [0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(fgsm_direction(changes, "linf"), [[1, -1], [1, 0], [0, 0]])
    np.testing.assert_allclose(fgsm_direction(changes, "l2"), unit(changes, "l2"))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_directions_of_a_linear_model(norm):
    images = np.array([[0.5, 0.4]], np.float32)  # logits 1, 0.4, -0.7
    entropy, lines = _found(_model, images, norm)
    probabilities = np.exp([1.0, 0.4, -0.7]) / np.exp([1.0, 0.4, -0.7]).sum()
    expected = WEIGHTS @ (probabilities - [1, 0, 0])
    np.testing.assert_allclose(entropy[0], expected, rtol=1e-5, atol=1e-6)
    # Wrong classes by their logits: 1, then 2; there is no third.
    assert list(lines) == [
        "cross entropy",
        "cross entropy, other norm",
        "margin",
        "wrong class 1",
        "wrong class 2",
    ]
    first, second = np.array([-2, 1]), np.array([-1, -3])
    towards = {"margin": first, "wrong class 1": first, "wrong class 2": second}
    for name, gradient in (towards | {"cross entropy": expected}).items():
        direction = np.sign(gradient) if norm == "linf" else gradient / np.linalg.norm(gradient)
        np.testing.assert_allclose(lines[name][0], direction, rtol=1e-5, atol=1e-6)
    other = expected / np.abs(expected).max() if norm == "linf" else np.sign(expected) / 2**0.5
    np.testing.assert_allclose(lines["cross entropy, other norm"][0], other, rtol=1e-5, atol=1e-6)


def test_pixels_that_would_leave_the_box_stay():
    images = np.array([[0.0, 0.4]], np.float32)  # the margin would lower the first one
    _, lines = _found(_model, images, "l2")
    np.testing.assert_allclose(lines["margin"][0], [0, 1])


def test_where_the_cross_entropy_saturates_only_the_others_point_anywhere():
    entropy, lines = _found(_saturated, np.array([[0.5, 0.4]], np.float32), "linf")
    assert not entropy.any() and not lines["cross entropy"].any()
    np.testing.assert_array_equal(lines["margin"][0], [-1, 1])
    np.testing.assert_array_equal(lines["wrong class 2"][0], [-1, -1])


def test_random_signs_follow_seed_and_index_alone():
    signs = random_signs(np.array([3, 7]), (2, 3), 50, seed=1)
    assert signs.shape == (2, 50, 2, 3) and set(np.unique(signs)) == {-1, 1}
    np.testing.assert_array_equal(random_signs(np.array([7]), (2, 3), 50, seed=1)[0], signs[1])
    assert (random_signs(np.array([3]), (2, 3), 50, seed=2)[0] != signs[0]).any()
    assert (signs[0] != signs[1]).any() and abs(signs.mean()) < 0.2
    assert len(np.unique(signs[0].reshape(50, 6), axis=0)) > 20


def test_gray_is_within_half_of_every_image():
    images = np.random.default_rng(0).uniform(0, 1, (9, 4, 4, 1)).astype(np.float32)
    images[0], images[1] = 0, 1
    assert length(plain_images((4, 4, 1))["gray"] - images, "linf").max() == 0.5


@pytest.mark.parametrize("batch_size", [2, 50])
def test_the_nearest_image_of_each_other_class(batch_size):
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 1, (15, 2, 2, 1)).astype(np.float32)
    labels = rng.integers(0, 3, 15)
    found = nearest_of_other_classes(images, labels, batch_size=batch_size)
    assert found.shape == (15, 2)
    for row, columns in enumerate(found):
        distances = length(images - images[row], "l2")
        expected = [
            np.flatnonzero(labels == one)[distances[labels == one].argmin()]
            for one in range(3)
            if one != labels[row]
        ]
        assert list(columns) == sorted(expected, key=lambda one: distances[one])
    alone = nearest_of_other_classes(images, np.zeros(15, int), batch_size=batch_size)
    assert alone.shape == (15, 0)
