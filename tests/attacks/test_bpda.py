"""Forward of one function, gradient of another; and models averaged over their own draws."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import FGSM, PGD
from bcgan_tf.attacks.bpda import bpda
from bcgan_tf.attacks.checks import as_logits_fn
from bcgan_tf.attacks.expectation import expectation
from bcgan_tf.errors import UserError

IMAGES = np.linspace(0.1, 0.45, 8, dtype=np.float32).reshape(8, 1)
LABELS = np.zeros(8, np.int64)


def _threshold(images: tf.Tensor) -> tf.Tensor:
    """Class 1 from a value of 0.5 on."""
    return tf.concat([0.5 - images, images - 0.5], axis=1)


def _quantize(images: tf.Tensor) -> tf.Tensor:
    return tf.round(7.0 * images) / 7.0


def test_values_are_the_forward_and_gradients_the_backward():
    function = bpda(tf.round, lambda x: 3.0 * x)
    inputs = tf.constant([0.2, 0.7, 0.1 + 0.2])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = function(inputs)
    assert outputs.numpy().tolist() == [0.0, 1.0, 0.0]
    np.testing.assert_array_equal(tape.gradient(outputs, inputs), [3.0, 3.0, 3.0])


def test_the_identity_is_the_default_and_the_forward_is_bit_exact():
    inputs = tf.constant(np.random.default_rng(0).random(1000).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = bpda(_quantize)(inputs)
    np.testing.assert_array_equal(outputs, _quantize(inputs))
    np.testing.assert_array_equal(tape.gradient(outputs, inputs), np.ones(1000))


def test_the_forward_may_be_of_less_precision():
    images = tf.constant([[0.2, 0.7]])
    quantize = bpda(lambda x: tf.cast(x, tf.bfloat16))
    with tf.GradientTape() as tape:
        tape.watch(images)
        found = quantize(images)
        total = tf.reduce_sum(3 * found)
    gradient = tape.gradient(total, images)
    assert found.dtype == tf.bfloat16 and gradient.dtype == tf.float32
    np.testing.assert_array_equal(gradient, [[3, 3]])


def test_a_quantised_model_stops_pgd_but_not_with_bpda():
    def masked(images):
        return _threshold(_quantize(images))

    with pytest.raises(UserError, match="no gradient"):
        PGD(0.45, steps=5)(masked, IMAGES, LABELS)
    attacked = PGD(0.45, steps=5)(lambda x: _threshold(bpda(_quantize)(x)), IMAGES, LABELS)
    assert attacked.clean_accuracy == 1 and attacked.robust_accuracy == 0


def test_a_callable_model_may_bring_its_own_backward():
    class Quantized:
        def __call__(self, images):
            return _threshold(_quantize(images))

        def backward(self, images):
            return _threshold(images)

    model = Quantized()
    np.testing.assert_array_equal(as_logits_fn(model)(IMAGES), model(IMAGES))
    assert FGSM(0.45)(model, IMAGES, LABELS).robust_accuracy == 0


def test_expectation_averages_the_draws():
    def noisy(images):
        return _threshold(images) + tf.random.normal([1, 2], stddev=3.0)

    model = tf.function(expectation(noisy, 400))
    drawn = np.stack([model(IMAGES).numpy() for _ in range(20)])
    errors = drawn - _threshold(IMAGES).numpy()
    assert np.unique(errors.std(axis=0)).size > 1
    # The standard deviation of a mean of 400 draws is 3 / 20.
    assert 0.1 < errors[:, 0].std() < 0.2
    assert abs(errors[:, 0].mean()) < 4 * 0.15 / np.sqrt(40)


def test_the_gradient_goes_through_every_draw():
    def scaled(images):
        return _threshold(images) * tf.random.uniform([], 0.0, 2.0)

    inputs = tf.constant(IMAGES)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = tf.reduce_sum(expectation(scaled, 500)(inputs)[:, 1])
    gradient = tape.gradient(total, inputs).numpy()
    assert np.ptp(gradient) == 0 and abs(gradient[0, 0] - 1) < 4 * 0.577 / np.sqrt(500)


def test_samples_must_be_a_count():
    with pytest.raises(UserError, match="samples is 0"):
        expectation(_threshold, 0)
