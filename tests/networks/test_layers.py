"""Dropout that resumes and differs per replica; spectral normalisation against numpy's SVD."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf import distribute
from bcgan_tf.networks.layers import ResumableDropout, SpectralConv2D, SpectralDense

ONES = np.ones((4, 500), np.float32)


def kept(layer, inputs=ONES):
    return layer(inputs, training=True).numpy() > 0


def test_dropout_keeps_the_mean_and_scales_what_it_keeps():
    outputs = ResumableDropout(0.3, seed=1)(np.ones((50, 2000), np.float32), training=True).numpy()
    assert set(np.unique(outputs.round(5))) == {0, np.float32(1 / 0.7).round(5)}
    assert abs(outputs.mean() - 1) < 0.01


def test_dropout_is_off_in_inference_and_does_not_count_it():
    layer = ResumableDropout(0.5)
    np.testing.assert_array_equal(layer(ONES), ONES)
    assert int(layer.calls) == 0
    np.testing.assert_array_equal(ResumableDropout(0.0)(ONES, training=True), ONES)


def test_every_call_draws_another_mask_and_the_sequence_repeats():
    layer, same, other = (ResumableDropout(0.5, seed=seed) for seed in (1, 1, 2))
    masks = [kept(layer) for _ in range(3)]
    assert int(layer.calls) == 3
    for mask in masks:
        np.testing.assert_array_equal(mask, kept(same))
        assert 0.4 < np.mean(mask != kept(other)) < 0.6
    assert 0.4 < np.mean(masks[0] != masks[1]) < 0.6


def test_the_counter_is_saved(tmp_path):
    image = keras.Input((500,))
    model = keras.Model(image, ResumableDropout(0.5, seed=3)(image))
    for _ in range(2):
        model(ONES, training=True)
    model.save(tmp_path / "dropout.keras")
    loaded = keras.models.load_model(tmp_path / "dropout.keras")
    assert int(loaded.layers[-1].calls) == 2
    np.testing.assert_array_equal(loaded(ONES, training=True), model(ONES, training=True))


def test_replicas_drop_different_units_and_count_once(two_replicas):
    with two_replicas.scope():
        layer = ResumableDropout(0.5, seed=1)
        layer.build(ONES.shape)

    @tf.function
    def run():
        return two_replicas.run(lambda: layer(tf.constant(ONES), training=True))

    for calls in (1, 2):
        first, second = (v.numpy() > 0 for v in two_replicas.experimental_local_results(run()))
        assert 0.4 < np.mean(first != second) < 0.6
        assert int(layer.calls.numpy()) == calls


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_impossible_rates(rate):
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        ResumableDropout(rate)


def spectral(kind):
    if kind == "dense":
        return SpectralDense(7, kernel_initializer=keras.initializers.HeNormal(seed=1)), (1, 20)
    layer = SpectralConv2D(
        6, 3, strides=2, padding="same", kernel_initializer=keras.initializers.HeNormal(seed=1)
    )
    return layer, (1, 8, 8, 3)


def effective(layer, shape):
    """The kernel that the layer applies: a dense one's from the unit vectors, else its own."""
    if isinstance(layer, SpectralDense):
        return layer(np.eye(shape[-1], dtype=np.float32)).numpy() - layer.bias.numpy()
    return layer._normalised_kernel(False).numpy().reshape(-1, layer.filters)


@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_the_spectral_norm_becomes_one(kind):
    layer, shape = spectral(kind)
    inputs = np.random.default_rng(0).random(shape, np.float32)
    for _ in range(60):
        layer(inputs, training=True)
    matrix = layer.kernel.numpy().reshape(-1, layer.kernel.shape[-1])
    largest = np.linalg.svd(matrix, compute_uv=False)[0]
    np.testing.assert_allclose(effective(layer, shape), matrix / largest, rtol=2e-3, atol=1e-5)
    norm = np.linalg.svd(effective(layer, shape), compute_uv=False)[0]
    np.testing.assert_allclose(norm, 1, atol=2e-3)


def test_a_spectral_convolution_is_a_convolution_by_the_normalised_kernel():
    layer, shape = spectral("convolution")
    inputs = np.random.default_rng(0).random(shape, np.float32)
    layer(inputs)
    layer.bias.assign(np.arange(6, dtype=np.float32))
    plain = keras.layers.Conv2D(6, 3, strides=2, padding="same")
    plain.build(shape)
    plain.set_weights([layer._normalised_kernel(False).numpy(), layer.bias.numpy()])
    np.testing.assert_allclose(layer(inputs), plain(inputs), atol=1e-5)


def test_inference_leaves_the_power_iteration_alone():
    layer, shape = spectral("dense")
    layer(np.ones(shape, np.float32))
    before = layer.left_vector.numpy()
    layer(np.ones(shape, np.float32), training=False)
    np.testing.assert_array_equal(layer.left_vector, before)
    layer(np.ones(shape, np.float32), training=True)
    assert (layer.left_vector.numpy() != before).any()


def test_the_gradient_flows_through_the_norm():
    """Scaling the kernel changes nothing, so the gradient is orthogonal to the kernel."""
    layer, shape = spectral("dense")
    inputs = np.random.default_rng(0).random((3, shape[-1])).astype(np.float32)
    for _ in range(200):
        layer(inputs, training=True)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(layer(inputs) ** 2)
    gradient = tf.convert_to_tensor(tape.gradient(value, layer.kernel))
    assert np.linalg.norm(gradient) > 0.1
    along = tf.reduce_sum(gradient * layer.kernel) / tf.norm(gradient) / tf.norm(layer.kernel)
    np.testing.assert_allclose(along, 0, atol=1e-3)


@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_two_replicas_agree_on_the_norm(two_replicas, kind):
    outputs = {}
    for name, chosen in (("one", None), ("two", two_replicas)):
        with distribute.scope(chosen):
            layer, shape = spectral(kind)
            layer.build(shape)
        inputs = tf.constant(np.random.default_rng(0).random(shape), tf.float32)

        @tf.function
        def run(layer=layer, inputs=inputs, chosen=chosen):
            if chosen is None:
                return layer(inputs, training=True)
            return chosen.run(lambda: layer(inputs, training=True))

        for _ in range(5):
            result = run()
        if chosen is not None:
            result, second = chosen.experimental_local_results(result)
            np.testing.assert_array_equal(result, second)
        outputs[name] = result.numpy(), layer.left_vector.numpy()
    np.testing.assert_allclose(outputs["one"][0], outputs["two"][0], atol=1e-6)
    np.testing.assert_allclose(outputs["one"][1], outputs["two"][1], atol=1e-6)


def test_bfloat16_iterates_in_float32():
    layer = SpectralDense(
        7, dtype="mixed_bfloat16", kernel_initializer=keras.initializers.HeNormal(seed=1)
    )
    inputs = np.ones((1, 20), np.float32)
    for _ in range(60):
        outputs = layer(inputs, training=True)
    assert outputs.dtype == tf.bfloat16
    assert layer.left_vector.dtype == "float32"
    norm = np.linalg.svd(layer._normalised_kernel(False).numpy(), compute_uv=False)[0]
    np.testing.assert_allclose(norm, 1, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(layer.left_vector), 1, atol=1e-6)
