"""Gradients that are missing, exactly zero, NaN or infinite are counted, and attacks still run."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import FGSM, PGD
from bcgan_tf.evaluation.gradient_health import gradient_health, guard_gradient, in_float64
from helpers.suites import evaluate

IMAGES = np.float32([[0.2, 0.4], [0.8, 0.5], [0.4, 0.0], [0.6, 0.0]])
LABELS = np.array([0, 1, 0, 1])


def _linear(images: tf.Tensor) -> tf.Tensor:
    """Class 1 where the first pixel is above 0.5; the gap of logits is 20 |x - 0.5|."""
    gap = 20.0 * (images[:, :1] - 0.5)
    return tf.concat([tf.zeros_like(gap), gap], axis=1)


def _gradient(model, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    inputs = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(inputs))
    return tape.gradient(loss, inputs).numpy()


def test_a_healthy_model_keeps_its_answers_and_its_gradient():
    model = guard_gradient(_linear, IMAGES, LABELS)
    health = gradient_health(_linear, IMAGES, LABELS)
    np.testing.assert_array_equal(model(tf.constant(IMAGES)), _linear(IMAGES))
    expected = _gradient(_linear, IMAGES, LABELS)
    assert expected.any()
    np.testing.assert_array_equal(_gradient(model, IMAGES, LABELS), expected)
    assert health.correct.all() and not health.missing and not health.backward
    assert health.bad == health.dead == 0


def test_a_gradient_that_is_nan_only_where_nobody_looked_stops_no_evaluation():
    """A norm at zero, on an image behind those that are looked at first."""

    def model(images: tf.Tensor) -> tf.Tensor:
        length = tf.sqrt(tf.reduce_sum(tf.square(images), axis=1, keepdims=True))
        return _linear(images) + 1e-3 * length * [0.0, 1.0]

    images = np.concatenate([np.tile(IMAGES, (20, 1)), np.zeros((1, 2), np.float32)])
    labels = np.append(np.tile(LABELS, 20), 0)
    assert not gradient_health(model, images[:64], labels[:64]).non_finite.any()
    assert not np.isfinite(_gradient(model, images, labels)).all()
    found = evaluate(model, (images, labels), [PGD(0.05, random_start=False)])
    assert found.robust_accuracy == 1.0 and found.n == 81


def _dense(scale: float) -> keras.Model:
    """Logits minus and plus half of ``scale`` times the one pixel."""
    pixel = keras.Input((1,))
    logits = keras.layers.Dense(2, name="logits")(pixel)
    model = keras.Model(pixel, logits)
    model.set_weights([np.float32([[-scale / 2, scale / 2]]), np.zeros(2, np.float32)])
    return model


def test_saturation_is_exact_where_a_float_runs_out():
    """exp(-gap) underflows from a gap of 104 in float32, and of 746 in float64."""
    images = np.float32([[0.01], [0.08], [0.12], [0.5], [0.8]])  # gaps 10, 80, 120, 500, 800
    health = gradient_health(_dense(1000.0), images, np.ones(5, int), float64=True)
    assert health.zero.tolist() == [False, False, True, True, True]
    assert health.zero64 is not None and health.zero64.tolist() == [False] * 4 + [True]
    assert health.share(health.zero) == pytest.approx(3 / 5)
    # The margin does not saturate: another loss revives all of them.
    assert not health.margin_zero.any() and health.dead == 0


def test_shares_are_over_the_correctly_classified_images():
    images = np.float32([[0.01], [0.12], [0.12], [0.8]])
    health = gradient_health(_dense(1000.0), images, np.array([1, 1, 0, 0]))
    assert health.correct.tolist() == [True, True, False, False]
    assert health.bad == pytest.approx(1 / 2)
    assert health.to_dict()["n"] == 2


@pytest.mark.parametrize(
    "break_up",
    [
        tf.round,
        lambda z: tf.cast(tf.cast(z, tf.int32), tf.float32),
        lambda z: 5.0 * tf.one_hot(tf.argmax(z, axis=1), 2),
        lambda z: tf.numpy_function(np.floor, [z], tf.float32),
    ],
    ids=["round", "integers", "argmax", "numpy"],
)
def test_a_model_without_a_gradient_is_usable(break_up):
    def model(images: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(break_up(_linear(images)), [None, 2])

    attackable = guard_gradient(model, IMAGES, LABELS)
    health = gradient_health(model, IMAGES, LABELS)
    assert health.missing and health.bad == health.dead == 1
    np.testing.assert_array_equal(attackable(tf.constant(IMAGES)), model(tf.constant(IMAGES)))
    np.testing.assert_array_equal(_gradient(attackable, IMAGES, LABELS), np.zeros_like(IMAGES))
    result = FGSM(0.3)(attackable, IMAGES, LABELS)
    np.testing.assert_array_equal(result.adversarials, IMAGES)


def test_non_finite_gradients_are_counted_and_replaced_by_zero():
    """sqrt has an infinite slope at 0: the second pixel of the last two images."""

    def model(images: tf.Tensor) -> tf.Tensor:
        return _linear(images) + 0.1 * tf.sqrt(images[:, 1:])

    attackable = guard_gradient(model, IMAGES, LABELS)
    health = gradient_health(model, IMAGES, LABELS)
    assert not health.missing
    assert health.non_finite.tolist() == [False, False, True, True]
    assert health.bad == pytest.approx(1 / 2)
    cleaned = _gradient(attackable, IMAGES, LABELS)
    assert np.isfinite(cleaned).all()
    np.testing.assert_array_equal(cleaned[:2], _gradient(model, IMAGES, LABELS)[:2])
    np.testing.assert_array_equal(attackable(tf.constant(IMAGES)), model(tf.constant(IMAGES)))
    assert PGD(0.4, steps=10)(attackable, IMAGES, LABELS).success_rate == 1


class _Quantized:
    """A step at 0.5 that brings a stand-in for its gradient."""

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        return _linear(tf.round(images))

    def backward(self, images: tf.Tensor) -> tf.Tensor:
        return _linear(images)


def test_a_stand_in_is_attacked_but_the_own_gradient_is_judged():
    model = guard_gradient(_Quantized(), IMAGES, LABELS)
    health = gradient_health(_Quantized(), IMAGES, LABELS)
    assert health.backward and health.missing and health.dead == 1
    assert FGSM(0.31)(model, IMAGES, LABELS).success_rate == 1
    stripped = guard_gradient(lambda images: _linear(tf.round(images)), IMAGES, LABELS)
    assert FGSM(0.31)(stripped, IMAGES, LABELS).success_rate == 0


def test_a_sequential_model_with_adapted_preprocessing_has_a_copy_in_float64():
    normalization = keras.layers.Normalization(axis=None)
    normalization.adapt(np.float32([[0.1, 0.9]]))
    layers = [normalization, keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((2, 2, 1)), *layers])
    copy = in_float64(model)
    assert copy is not None
    batch = np.random.default_rng(1).random((5, 2, 2, 1))
    np.testing.assert_allclose(copy(tf.constant(batch)), model(batch), atol=1e-5)


def test_a_copy_in_float64_has_the_digits_of_float64():
    keras.utils.set_random_seed(1)
    inner = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Conv2D(3, 3), keras.layers.BatchNormalization()]
    )
    images = keras.Input((4, 4, 1))
    hidden = keras.layers.Flatten()(inner(images))
    model = keras.Model(images, keras.layers.Dense(3)(keras.layers.ReLU()(hidden)))
    copy = in_float64(model)
    assert copy is not None
    batch = np.random.default_rng(1).random((5, 4, 4, 1))
    exact, rounded = copy(tf.constant(batch)).numpy(), model(batch.astype(np.float32)).numpy()
    assert exact.dtype == np.float64
    np.testing.assert_allclose(exact, rounded, rtol=0, atol=1e-5)
    assert (exact != exact.astype(np.float32)).any()  # no cast in between
    for ours, theirs in zip(model.weights, inner.weights, strict=False):
        assert ours.dtype == theirs.dtype == "float32"


def test_what_cannot_be_copied_to_float64_is_not_run():
    health = gradient_health(_linear, IMAGES, LABELS, float64=True)
    assert health.zero64 is None and health.to_dict()["zero_float64"] is None

    class Custom(keras.Model):
        def call(self, inputs):
            return _linear(inputs)

    assert in_float64(Custom()) is None


def test_the_batch_size_changes_nothing():
    images = np.random.default_rng(1).random((20, 1)).astype(np.float32)
    whole = gradient_health(_dense(300.0), images, np.ones(20, int))
    pieces = gradient_health(_dense(300.0), images, np.ones(20, int), batch_size=3)
    np.testing.assert_array_equal(whole.zero, pieces.zero)
    assert 0.5 < whole.bad < 0.9
    json.dumps(whole.to_dict())
