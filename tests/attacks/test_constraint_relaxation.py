"""The constraint relaxation attack: exact on linear models, blind to the scale of the logits."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import APGD, ConstraintRelaxation
from bcgan_tf.attacks.constraint_relaxation import _Plan
from bcgan_tf.errors import UserError
from helpers.toy_models import sharp_network

SIDE, CLASSES = 6, 5


def linear_network(scale: float = 1.0) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """``z = W x``, images away from 0 and 1, and their labels."""
    draw = np.random.RandomState(0)
    images = draw.uniform(0.4, 0.6, (60, SIDE, SIDE, 1)).astype(np.float32)
    weights = draw.normal(size=(SIDE * SIDE, CLASSES)).astype(np.float32)
    pixels = keras.Input((SIDE, SIDE, 1))
    dense = keras.layers.Dense(CLASSES, use_bias=False)
    model = keras.Model(pixels, dense(keras.layers.Flatten()(pixels)))
    dense.set_weights([weights * np.float32(scale)])
    return model, images, model(images).numpy().argmax(-1)


@pytest.mark.parametrize(("norm", "order", "eps"), [("linf", 1, 0.02), ("l2", 2, 0.06)])
def test_it_is_exact_on_a_linear_network(norm, order, eps):
    """The distance to class j is the gap of the logits over the dual norm of the difference."""
    model, images, labels = linear_network()
    weights = model.get_weights()[0].astype(np.float64)
    logits = images.reshape(60, -1).astype(np.float64) @ weights
    true = weights.T[labels]
    gaps = logits[np.arange(60), labels][:, None] - logits
    lengths = np.linalg.norm(true[:, None] - weights.T[None], ord=order, axis=2)
    distances = np.where(gaps > 0, gaps / np.maximum(lengths, 1e-9), np.inf).min(axis=1)
    found = ConstraintRelaxation(eps, norm=norm, targets=4)(model, images, labels)
    clear = np.abs(distances - eps) > 1e-4 * eps
    np.testing.assert_array_equal(found.success[clear], (distances < eps)[clear])
    assert 10 < found.success.sum() < 50


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_the_scale_of_the_logits_changes_nothing(scale):
    """The thresholds of the original are in units of the logits, which large ones switch off."""
    attack = ConstraintRelaxation(0.01, targets=2, cycles=2)
    usual, other = (attack(*linear_network(by)) for by in (1.0, scale))
    np.testing.assert_array_equal(usual.success, other.success)
    np.testing.assert_allclose(usual.adversarials, other.adversarials, atol=1e-5)


def test_what_is_hopeless_costs_few_gradients():
    """Ten steps, three classes to choose from, then 20 for each of two, where none comes near."""
    _, images, _ = linear_network()
    rows: list[int] = []

    def counted(batch: tf.Tensor) -> tf.Tensor:
        def note(seen: np.ndarray) -> np.ndarray:
            rows.append(len(seen))
            return seen

        total = tf.reduce_sum(batch, axis=[1, 2, 3])
        seen = tf.numpy_function(note, [tf.stop_gradient(total)], tf.float32)
        far = 0.001 * total + 0 * tf.ensure_shape(seen, total.shape)
        return tf.stack([10 + far, far, 2 * far, 1 + far], axis=1)

    attack = ConstraintRelaxation(0.01, targets=2, cycles=5, restarts=3)
    run = tf.function(
        lambda: attack.run(
            counted, tf.constant(images), tf.zeros(60, tf.int64), tf.range(60, dtype=tf.int64),
            tf.constant(0, tf.int64),
        )
    )  # fmt: skip
    run()
    gradients = 10 + 3 + 2 * 20
    judged = 1 + 2 * 9 + 1  # where it chooses, projections of the relaxed steps, the clean images
    assert sum(rows) == 60 * (gradients + judged)


def test_the_target_is_the_class_with_the_nearest_boundary():
    """Class 1 has the larger logit, and no gradient; class 2 is 0.3 away, a tenth of each pixel."""

    def model(images: tf.Tensor) -> tf.Tensor:
        total = tf.reduce_sum(images, axis=[1, 2, 3])
        return tf.stack([1.0 - 1e-4 * total, 0.9 + 0 * total, 0.7 + (total - 2.0)], axis=1)

    images = np.full((3, 2, 2, 1), 0.5, np.float32)
    attack = ConstraintRelaxation(0.1, targets=1, cycles=1, restarts=0)
    assert attack(model, images, np.zeros(3, np.int64)).success.all()


def test_the_plan_of_the_steps():
    """Two targets, two cycles, one further try."""
    plan = _Plan(ConstraintRelaxation(0.1, targets=2, cycles=2, restarts=1))
    assert (plan.first_try, plan.steps) == (10 + 120, 10 + 240)
    np.testing.assert_array_equal(np.flatnonzero(plan.begins), [10, 70, 130, 190])
    np.testing.assert_array_equal(np.flatnonzero(plan.judging), 29 + 30 * np.arange(8))
    np.testing.assert_array_equal(np.flatnonzero(plan.noise), 30 + 30 * np.arange(8))
    assert set(plan.rank[10:70]) == {0} and set(plan.rank[70:130]) == {1}
    np.testing.assert_allclose(plan.length[[0, 10, 40]], [0.5, 1, 0.5])
    # Points 1 to 9 of a cycle lie in the relaxed ball, that after the judged ones in a smaller one.
    np.testing.assert_allclose(plan.radius[[0, 10, 18, 19, 28, 29, 30]], [1, 2, 2, 1, 1, 0, 1])
    np.testing.assert_array_equal(np.flatnonzero(plan.outside[10:40]), np.arange(1, 10))
    np.testing.assert_array_equal(plan.next_target[[15, 69, 70]], [70, 70, 130])


def test_it_is_as_strong_as_apgd_t_on_a_network():
    model, images, labels = sharp_network(6, 6, 1)
    eps = 0.02
    ours = ConstraintRelaxation(eps, targets=4)(model, images, labels)
    theirs = APGD(eps, loss="dlr", targeted=True, target_classes=4)(model, images, labels)
    assert ours.robust_accuracy <= theirs.robust_accuracy


def test_two_classes_and_masked_ones():
    model, images, _ = linear_network()

    def two(batch):
        logits = model(batch)
        return tf.concat([logits[:, :2], tf.fill([tf.shape(batch)[0], 3], -np.inf)], axis=1)

    right = two(images).numpy().argmax(-1)
    masked = ConstraintRelaxation(0.03)(two, images, right)
    plain = ConstraintRelaxation(0.03)(lambda batch: model(batch)[:, :2], images, right)
    np.testing.assert_array_equal(masked.success, plain.success)
    assert 0 < masked.success.sum() < 60


@pytest.mark.parametrize(
    ("options", "words"), [({"restarts": -1}, "restarts"), ({"targets": 0}, "targets")]
)
def test_settings_out_of_range_are_refused(options, words):
    with pytest.raises(UserError, match=f"{words} is"):
        ConstraintRelaxation(0.1, **options)
