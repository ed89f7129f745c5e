"""FAB finds distances that are known on paper."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import CarliniWagnerL2, linearized_boundary
from bcgan_tf.attacks.fab import FAB
from helpers.linear_task import Linear, around, linear_model

both_norms = pytest.mark.parametrize("norm", ["linf", "l2"])
both_aims = pytest.mark.parametrize("targeted", [True, False], ids=["targeted", "untargeted"])


def _length(result, norm: str) -> np.ndarray:
    return result.linf if norm == "linf" else result.l2


@both_norms
@both_aims
def test_it_finds_the_exact_distance_to_the_nearest_class(targeted, norm):
    model, images, labels = linear_model(6)
    distances = model.distances(images, labels, norm)
    logits = model(tf.constant(images)).numpy()
    logits[np.arange(24), labels] = -np.inf
    assert (logits.argmax(1) != distances.argmin(1)).sum() >= 2

    result = FAB(None, norm=norm, targeted=targeted, steps=20)(model, images, labels)
    found, exact = _length(result, norm), distances.min(axis=1)
    assert result.success.all()
    assert (found >= exact * (1 - 1e-4)).all()  # nothing nearer exists
    np.testing.assert_allclose(found, exact, rtol=2e-3, atol=1e-5)


def test_two_classes_leave_one_target():
    model, images, labels = linear_model(2)
    result = FAB(None, steps=20)(model, images, labels)
    exact = model.distances(images, labels, "linf").min(axis=1)
    np.testing.assert_allclose(result.linf, exact, rtol=2e-3, atol=1e-5)


@both_norms
def test_with_eps_it_succeeds_just_above_the_distance_and_fails_just_below(norm):
    result = FAB(0.05, norm=norm, steps=30)(*around(0.05, norm, 5, 0.997, 1.003))
    assert result.clean_accuracy == 1 and _length(result, norm).max() <= 0.05 + 1e-6
    np.testing.assert_array_equal(result.success, np.arange(24) < 12)


@pytest.mark.parametrize(
    ("norm", "exact"),
    [
        # A pixel at 0.9 moves by 0.1 at most, the other bridges the rest; from 0.95 likewise.
        ("linf", [0.1, 0.1]),
        ("l2", [np.hypot(0.1, 0.1), np.hypot(0.05, 0.1)]),
    ],
)
def test_the_box_is_in_the_way_by_hand(norm, exact):
    """z1 - z0 = 2 a + b - 2.6 is -0.3 and -0.2; within the box alone, a would move farther."""
    model = Linear(np.float32([[0, 2], [0, 1]]), np.float32([0, -2.6]))
    images, labels = np.float32([[0.9, 0.5], [0.95, 0.5]]), np.zeros(2, int)
    result = FAB(None, norm=norm)(model, images, labels)
    assert result.success.all() and result.adversarials.max() <= 1
    found = _length(result, norm)
    # In a corner of the box it settles into a cycle up to 1.3 % away.
    assert (found >= np.multiply(exact, 1 - 1e-4)).all()
    np.testing.assert_allclose(found, exact, rtol=0.02)
    assert not FAB(0.99 * min(exact), norm=norm)(model, images, labels).success.any()


def test_it_does_not_stop_on_the_boundary_itself(monkeypatch):
    """The way back from its first point, at 0.105, ends just short of the boundary, at 0.09453.

    From there a step goes beyond it by 1.7e-6, which float32 logits do not tell from a tie.
    """

    def kinked(images: tf.Tensor) -> tf.Tensor:
        way = images - 0.2
        steep = -0.05 + (way - 0.05) * (0.05 / 0.04453)
        return tf.concat([tf.ones_like(way), 1.0 + tf.where(way < 0.05, way - 0.1, steep)], 1)

    images, labels = np.float32([[0.2]]), np.array([0])
    final = FAB(None, steps=20)(kinked, images, labels)
    np.testing.assert_allclose(final.linf, 0.09453, rtol=2e-3)
    monkeypatch.setattr("bcgan_tf.attacks.line_search._STEPS", 0)
    found = [FAB(None, steps=steps)(kinked, images, labels).linf[0] for steps in (1, 20)]
    assert found[0] == pytest.approx(0.105, rel=1e-4)
    assert final.linf[0] < found[1] == pytest.approx(0.09453, rel=0.01)


@pytest.mark.parametrize(("norm", "scale"), [("l2", 1e-25), ("linf", 1e6)])
def test_the_scale_of_the_logits_does_not_matter(norm, scale):
    model, images, labels = linear_model(6)
    result = FAB(None, norm=norm, steps=20)(lambda batch: scale * model(batch), images, labels)
    exact = model.distances(images, labels, norm).min(axis=1)
    np.testing.assert_allclose(_length(result, norm), exact, rtol=2e-3, atol=1e-5)


def test_a_model_without_a_static_number_of_classes():
    model, images, labels = linear_model(6)

    def unshaped(batch: tf.Tensor) -> tf.Tensor:
        return tf.cond(tf.size(batch) > 0, lambda: model(batch), lambda: model(batch)[:, :3])

    attack = FAB(None, targeted=False, steps=10)
    expected = attack(model, images, labels)
    np.testing.assert_allclose(attack(unshaped, images, labels).linf, expected.linf, atol=1e-5)


@both_norms
def test_on_trained_digits_with_and_without_eps(norm, digits_cnn):
    model, images, labels = digits_cnn.model, digits_cnn.images[:30], digits_cnn.labels[:30]
    nearest = FAB(None, norm=norm, steps=20, target_classes=3)(model, images, labels)
    assert nearest.success_rate == 1
    lengths = _length(nearest, norm)
    if norm == "l2":
        other = CarliniWagnerL2(steps=100, learning_rate=0.08, initial_const=0.1)
        theirs = other(model, images, labels)
        right = nearest.clean_correct
        assert lengths[right].mean() <= 1.02 * theirs.l2[right].mean()
    eps = float(np.median(lengths))
    bounded = FAB(eps, norm=norm, steps=20, target_classes=3)(model, images, labels)
    agree = bounded.success == (nearest.success & (lengths <= eps))
    assert agree.mean() >= 0.97


@both_norms
def test_many_classes_are_taken_one_after_the_other_with_the_same_outcome(norm, monkeypatch):
    model, images, labels = linear_model(6)
    at_once = FAB(None, norm=norm, targeted=False, steps=5)(model, images, labels)
    monkeypatch.setattr(linearized_boundary, "_UNROLLED", 5)
    in_turn = FAB(None, norm=norm, targeted=False, steps=5)(model, images, labels)
    np.testing.assert_array_equal(at_once.adversarials, in_turn.adversarials)


def test_a_thousand_classes_make_no_thousand_gradients_in_the_graph():
    kernel = tf.constant(np.random.default_rng(0).normal(size=(4, 1000)).astype(np.float32))
    step = tf.function(
        lambda points, labels: linearized_boundary.towards_nearest(
            lambda x: x @ kernel, points, labels, norm="linf"
        )
    )
    points, labels = tf.fill([2, 4], 0.5), tf.constant([0, 1], tf.int64)
    normals, gaps = step(points, labels)
    assert len(step.get_concrete_function(points, labels).graph.get_operations()) < 300
    w = kernel.numpy().astype(np.float64)
    for row, label in enumerate((0, 1)):
        to_each = w - w[:, label : label + 1]
        away = -(0.5 * to_each).sum(axis=0)
        distances = np.abs(away) / np.maximum(np.abs(to_each).sum(axis=0), 1e-30)
        distances[label] = np.inf
        nearest = distances.argmin()
        np.testing.assert_allclose(normals[row], to_each[:, nearest], rtol=1e-5)
        np.testing.assert_allclose(gaps[row], away[nearest], rtol=1e-4, atol=1e-6)
